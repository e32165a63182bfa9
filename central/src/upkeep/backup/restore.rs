//! From a backup to the state of a central.

use std::io::Read;
use std::path::Path;

use super::{BackupError, CA_PREFIX, DATABASE, MANIFEST, Manifest, VERSION, open};
use crate::ca::{Authorities, write_private};
use crate::config::Config;
use crate::secret::sha256_hex;
use crate::store::Database;

/// Largest manifest: a backup has a handful of files.
const MANIFEST_MAX_BYTES: u64 = 1 << 20;
/// Files that a backup may have: both CAs and the database.
const NAMES: [&str; 5] = ["ca/ca.key", "ca/ca.crt", "ca/next.key", "ca/next.crt", DATABASE];

/// Makes the state of a central from the backup in `input`; `-` is standard
/// input. Everything is checked before anything is written.
///
/// # Errors
/// See [`BackupError`].
pub fn restore(config: &Config, input: &Path) -> Result<Manifest, BackupError> {
    let target = match config.database()? {
        Database::Sqlite(database) => Some(database.path),
        Database::Postgres(_) => None,
    };
    for path in target.iter().cloned().chain(["ca.key", "ca.crt"].map(|name| config.ca_dir().join(name))) {
        if path.exists() {
            return Err(BackupError::NotEmpty { path });
        }
    }
    let (manifest, files) = read(open(input)?)?;
    let (databases, ca): (Files, Files) = files.into_iter().partition(|(name, _)| name == DATABASE);
    if target.is_none() && !databases.is_empty() {
        return Err(BackupError::Server);
    }
    let plain = |(name, content): (String, Vec<u8>)| Some((name.strip_prefix(CA_PREFIX)?.to_owned(), content));
    let ca: Files = ca.into_iter().filter_map(plain).collect();
    // The CA first: a database that is there counts as a state.
    Authorities::put_files(&config.ca_dir(), &ca)?;
    if let (Some(target), Some((_, content))) = (target, databases.first()) {
        write_private(&target, content)?;
    }
    Ok(manifest)
}

type Files = Vec<(String, Vec<u8>)>;

/// Reads a backup whole and checks it against its manifest.
fn read(input: impl Read) -> Result<(Manifest, Files), BackupError> {
    let unreadable = |error: std::io::Error| damaged(format!("it cannot be read ({error})"));
    let mut tar = tar::Archive::new(zstd::Decoder::new(input).map_err(unreadable)?);
    let mut entries = tar.entries().map_err(unreadable)?;
    let first = entries.next().ok_or_else(|| damaged("it is empty"))?.map_err(unreadable)?;
    if first.path().map_err(unreadable)?.as_ref() != Path::new(MANIFEST) {
        return Err(damaged("it does not begin with its manifest"));
    }
    let mut text = Vec::new();
    first.take(MANIFEST_MAX_BYTES).read_to_end(&mut text).map_err(unreadable)?;
    let manifest = manifest(&text)?;
    let mut files = Files::new();
    for expected in &manifest.files {
        let name = expected.name.as_str();
        if !NAMES.contains(&name) {
            return Err(damaged(format!("it lists {name:?}, which no backup has")));
        }
        let entry = entries.next().ok_or_else(|| damaged(format!("{name} is missing")))?.map_err(unreadable)?;
        if entry.path().map_err(unreadable)?.as_ref() != Path::new(name) {
            return Err(damaged(format!("{name} is not at its place")));
        }
        let mut content = Vec::new();
        // One byte more shows what is longer than it should be.
        entry.take(expected.bytes.saturating_add(1)).read_to_end(&mut content).map_err(unreadable)?;
        if sha256_hex(&content) != expected.sha256 {
            return Err(damaged(format!("{name} is not what was kept (SHA-256)")));
        }
        files.push((name.to_owned(), content));
    }
    Ok((manifest, files))
}

/// Reads the manifest; its version comes first, as a later one may have fields
/// that are not known here.
fn manifest(text: &[u8]) -> Result<Manifest, BackupError> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| damaged(format!("its manifest is no JSON ({error})")))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version > u64::from(VERSION) => {
            Err(BackupError::Newer { found: u32::try_from(version).unwrap_or(u32::MAX) })
        }
        Some(_) => {
            serde_json::from_value(value).map_err(|error| damaged(format!("its manifest is not understood ({error})")))
        }
        None => Err(damaged("its manifest has no version")),
    }
}

fn damaged(problem: impl Into<String>) -> BackupError {
    BackupError::Damaged { problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::app::App;
    use crate::secret::SecretHash;
    use crate::upkeep::backup::write;
    use crate::upkeep::{ca, token};

    fn config(dir: &Path) -> Config {
        let text = format!("state_dir = \"{}\"", dir.join("state").display());
        Config::parse(&text, Path::new("test.toml")).unwrap()
    }

    #[tokio::test]
    async fn a_restored_central_has_the_same_ca_and_knows_the_same_tokens() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (old_config, new_config) = (config(old.path()), config(new.path()));
        let secret = token::rotate(&old_config, std::time::Duration::ZERO).await.unwrap();
        let status = ca::rotate(&old_config).await.unwrap();
        let file = old.path().join("backup");
        let kept = write(&old_config, &file, false).unwrap();
        assert_eq!(kept.files, 5, "two CAs and the database");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> =
            std::fs::read_dir(old.path().join("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".backup")), "{left:?}");

        restore(&new_config, &file).unwrap();
        assert_eq!(ca::status(&new_config).await.unwrap(), status);
        let (store, _) = App::open_store(&new_config).await.unwrap();
        assert!(store.system().find_api_token(SecretHash::of(&secret), 1).await.unwrap().is_some());
        let mode = std::fs::metadata(new.path().join("state/central.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn neither_a_state_nor_a_backup_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        App::open_store(&config).await.unwrap();
        let file = dir.path().join("backup");
        write(&config, &file, false).unwrap();
        assert!(matches!(restore(&config, &file), Err(BackupError::NotEmpty { .. })));
        let before = std::fs::read(&file).unwrap();
        assert!(matches!(write(&config, &file, false), Err(BackupError::File { .. })));
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }

    #[tokio::test]
    async fn a_backup_that_is_not_whole_restores_nothing() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (old_config, new_config) = (config(old.path()), config(new.path()));
        App::open_store(&old_config).await.unwrap();
        let file = old.path().join("backup");
        write(&old_config, &file, false).unwrap();
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(restore(&new_config, &file), Err(BackupError::Damaged { .. })));
        // One byte of the database changed, inside a sound archive.
        let mut plain = zstd::decode_all(whole.as_slice()).unwrap();
        let at = plain.windows(13).position(|window| window == b"SQLite format").unwrap();
        plain[at + 40] ^= 1;
        std::fs::write(&file, zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap();
        let error = restore(&new_config, &file).unwrap_err();
        assert!(error.to_string().contains("central.db is not what was kept"), "{error}");
        assert!(!new.path().join("state").exists(), "something was written");
    }
}
