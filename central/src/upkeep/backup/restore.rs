//! From a backup to the state of a central.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::spool::{Counted, Digested, Spool};
use super::{BackupError, CA_PREFIX, DATABASE, Entry, MANIFEST, Manifest, STANDARD, VERSION, file};
use crate::ca::Authorities;
use crate::config::Config;
use crate::secret::sha256_hex;
use crate::store::copy::{OnProgress, Stage};

/// Largest manifest and file of a CA: a backup has a handful of small files
/// beside the database.
const SMALL_MAX_BYTES: u64 = 1 << 20;
/// Files that a backup may have, in their order: both CAs and the database.
const NAMES: [&str; 5] = ["ca/ca.key", "ca/ca.crt", "ca/next.key", "ca/next.crt", DATABASE];
/// Bytes that are moved at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Files of a CA and their content.
type CaFiles = Vec<(String, Vec<u8>)>;

/// Makes the state of a central from the backup in `input`; `-` is standard
/// input. Everything is checked before anything is changed: the file is read
/// whole first, its database is imported in one transaction, and the CA is put
/// in its place before that commits. A restore that was cut off can be begun
/// again. `force` as with [`crate::store::Database::import`].
///
/// # Errors
/// See [`BackupError`]; then the state is as it was.
pub async fn restore(
    config: &Config,
    input: &Path,
    force: bool,
    on_progress: OnProgress,
) -> Result<Manifest, BackupError> {
    let database = config.database()?;
    let spool = Spool::beside(&config.state_dir)?;
    let (manifest, ca) = read(open(input)?, &spool, &on_progress)?;
    Authorities::parse_files(&ca)?;
    let dir = config.ca_dir();
    if Authorities::has_any(&dir) && !is_same(&dir, &ca)? {
        return Err(BackupError::OtherCa { path: dir });
    }
    if !manifest.has_database() {
        Authorities::put_files(&dir, &ca)?;
        return Ok(manifest);
    }
    let put = move || Ok(Authorities::put_files(&dir, &ca).map(drop)?);
    database.import_with(spool.path(), force, on_progress, put).await?;
    Ok(manifest)
}

/// Whether a directory holds these files of a CA and no others.
fn is_same(dir: &Path, ca: &CaFiles) -> Result<bool, BackupError> {
    let present = Authorities::files(dir)?;
    let is_in = |(name, content): &(&str, Vec<u8>)| ca.iter().any(|(n, c)| n == name && c == content);
    Ok(present.len() == ca.len() && present.iter().all(is_in))
}

/// Opens what is to be restored.
fn open(input: &Path) -> Result<Box<dyn Read>, BackupError> {
    if input == Path::new(STANDARD) {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(input).map_err(|source| file("read", input, source))?))
}

/// Reads a backup whole and checks it against its manifest; the database goes
/// into the spool.
fn read(input: impl Read, spool: &Spool, on_progress: &OnProgress) -> Result<(Manifest, CaFiles), BackupError> {
    let mut tar = tar::Archive::new(zstd::Decoder::new(input).map_err(|error| unreadable(&error))?);
    let mut entries = tar.entries().map_err(|error| unreadable(&error))?;
    let first = entries.next().ok_or_else(|| damaged("it is empty"))?.map_err(|error| unreadable(&error))?;
    if first.path().map_err(|error| unreadable(&error))?.as_ref() != Path::new(MANIFEST) {
        return Err(damaged("it does not begin with its manifest"));
    }
    let manifest = manifest(&small(first)?)?;
    let mut ca = CaFiles::new();
    for expected in &manifest.files {
        let name = expected.name.as_str();
        let entry =
            entries.next().ok_or_else(|| damaged(format!("{name} is missing")))?.map_err(|error| unreadable(&error))?;
        if entry.path().map_err(|error| unreadable(&error))?.as_ref() != Path::new(name)
            || !entry.header().entry_type().is_file()
        {
            return Err(damaged(format!("{name} is not at its place")));
        }
        match name.strip_prefix(CA_PREFIX) {
            Some(plain) => {
                let content = small(entry)?;
                expected.matches(content.len() as u64, &sha256_hex(&content))?;
                ca.push((plain.to_owned(), content));
            }
            None => unpack(entry, expected, spool, on_progress)?,
        }
    }
    if entries.next().is_some() {
        return Err(damaged("it has more entries than its manifest lists"));
    }
    Ok((manifest, ca))
}

/// Moves the export of the database to the disk.
fn unpack(entry: impl Read, expected: &Entry, spool: &Spool, on_progress: &OnProgress) -> Result<(), BackupError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = spool.path();
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut out = BufWriter::new(made.map_err(|source| file("create", path, source))?);
    let on_bytes = |done| on_progress(Stage::Unpack, done, expected.bytes);
    // One byte more shows what is longer than it should be.
    let entry = Counted::new(entry.take(expected.bytes.saturating_add(1)), on_bytes);
    let mut entry = Digested::new(BufReader::with_capacity(BUFFER_BYTES, entry));
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let read = entry.read(&mut buffer).map_err(|error| unreadable(&error))?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        out.write_all(&buffer[..read]).map_err(|source| file("write", path, source))?;
    }
    out.flush().map_err(|source| file("write", path, source))?;
    expected.matches(bytes, &entry.sha256())
}

/// A small entry, whole.
fn small(entry: impl Read) -> Result<Vec<u8>, BackupError> {
    let mut content = Vec::new();
    let read = entry.take(SMALL_MAX_BYTES + 1).read_to_end(&mut content).map_err(|error| unreadable(&error))?;
    if read as u64 > SMALL_MAX_BYTES {
        return Err(damaged(format!("an entry is longer than {SMALL_MAX_BYTES} bytes")));
    }
    Ok(content)
}

impl Entry {
    fn matches(&self, bytes: u64, sha256: &str) -> Result<(), BackupError> {
        if self.bytes == bytes && self.sha256 == sha256 {
            return Ok(());
        }
        Err(damaged(format!("{} is not what was kept (SHA-256)", self.name)))
    }
}

/// Reads the manifest; its version comes first, as another one may have fields
/// that are not known here.
fn manifest(text: &[u8]) -> Result<Manifest, BackupError> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| damaged(format!("its manifest is no JSON ({error})")))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(found) => return Err(BackupError::OtherLayout { found }),
        None => return Err(damaged("its manifest has no version")),
    }
    let manifest: Manifest =
        serde_json::from_value(value).map_err(|error| damaged(format!("its manifest is not understood ({error})")))?;
    // In their order, so that none comes twice.
    let mut names = NAMES.iter();
    match manifest.files.iter().find(|entry| !names.any(|name| *name == entry.name)) {
        Some(entry) => Err(damaged(format!("it lists {:?}, which has no place there", entry.name))),
        None => Ok(manifest),
    }
}

fn unreadable(error: &io::Error) -> BackupError {
    damaged(format!("it cannot be read ({error})"))
}

fn damaged(problem: impl Into<String>) -> BackupError {
    BackupError::Damaged { problem: problem.into() }
}
