//! From backups to states, on both engines, and files that are none.

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::app::App;
use crate::config::Config;
use crate::secret::SecretHash;
use crate::store::postgres::tests::server::Server;
use crate::upkeep::{ca, token};

fn config(dir: &Path, store: &str) -> Config {
    let text = format!("state_dir = \"{}\"\n{store}", dir.join("state").display());
    Config::parse(&text, Path::new("test.toml")).unwrap()
}

fn postgres() -> String {
    format!("[store]\nurl = \"{}\"\n", Server::shared().database())
}

fn silent() -> OnProgress {
    Arc::new(|_, _, _| {})
}

async fn keep(config: &Config, out: &Path) -> Result<Kept, BackupError> {
    write(config, out, false, silent()).await
}

async fn bring_back(config: &Config, input: &Path) -> Result<Manifest, BackupError> {
    restore(config, input, false, silent()).await
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A central on each engine with a rotated CA, and the same restored on each.
#[tokio::test]
async fn a_backup_of_either_engine_is_restored_into_either_with_its_ca_and_tokens() {
    for from in [String::new(), postgres()] {
        let old = tempfile::tempdir().unwrap();
        let old_config = config(old.path(), &from);
        let secret = token::rotate(&old_config, std::time::Duration::ZERO).await.unwrap();
        let status = ca::rotate(&old_config).await.unwrap();
        let file = old.path().join("backup");
        let kept = keep(&old_config, &file).await.unwrap();
        assert_eq!(kept.files, 5, "two CAs and the database");
        assert!(kept.rows.unwrap() >= 2, "{kept:?}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(names(&old_config.state_dir).iter().all(|name| !name.ends_with(".spool")), "something is left");

        for to in [String::new(), postgres()] {
            let new = tempfile::tempdir().unwrap();
            let new_config = config(new.path(), &to);
            bring_back(&new_config, &file).await.unwrap();
            assert_eq!(ca::status(&new_config).await.unwrap(), status);
            let (store, _) = App::open_store(&new_config).await.unwrap();
            assert!(store.system().find_api_token(SecretHash::of(&secret), 1).await.unwrap().is_some());
            for name in names(&new_config.state_dir) {
                let mode = std::fs::metadata(new_config.state_dir.join(&name)).unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "{name} is open to others");
            }
        }
    }
}

#[tokio::test]
async fn neither_a_state_nor_a_file_is_overwritten() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mine, theirs) = (config(dir.path(), ""), config(other.path(), ""));
    App::open_store(&mine).await.unwrap();
    App::open_store(&theirs).await.unwrap();
    let file = dir.path().join("backup");
    keep(&mine, &file).await.unwrap();
    let refused = bring_back(&theirs, &file).await.unwrap_err();
    assert!(matches!(refused, BackupError::OtherCa { .. }), "{refused}");
    let refused = bring_back(&mine, &file).await.unwrap_err();
    assert!(matches!(refused, BackupError::Copy(CopyError::NotEmpty(_))), "{refused}");
    let before = std::fs::read(&file).unwrap();
    assert!(matches!(keep(&mine, &file).await, Err(BackupError::File { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let victim = dir.path().join("victim");
    symlink(&victim, dir.path().join("link")).unwrap();
    assert!(matches!(keep(&mine, &dir.path().join("link")).await, Err(BackupError::File { .. })));
    assert!(!victim.exists(), "a link was followed");
}

/// What lies there while the file is packed is what a process leaves that is
/// killed then: neither half a backup nor a copy of the database.
#[tokio::test]
async fn a_backup_that_is_killed_while_it_packs_leaves_nothing() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = config(dir.path(), "");
    App::open_store(&config).await.unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (state, target, found) = (config.state_dir.clone(), out.path().to_owned(), seen.clone());
    let look: OnProgress = Arc::new(move |stage, _, _| {
        if stage == Stage::Pack {
            let copies = names(&state).into_iter().filter(|name| name.contains(".spool"));
            found.lock().unwrap().push((copies.collect::<Vec<_>>(), names(&target)));
        }
    });
    write(&config, &out.path().join("backup"), false, look).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty(), "nothing was packed");
    assert!(seen.iter().all(|(copies, half)| copies.is_empty() && half.is_empty()), "{seen:?}");
    assert_eq!(names(out.path()), ["backup"]);
}

/// The CA is put in its place just before the database commits: what a crash in
/// between leaves is no obstacle.
#[tokio::test]
async fn a_restore_that_was_cut_off_after_the_ca_is_begun_again() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_config, new_config) = (config(old.path(), ""), config(new.path(), ""));
    App::open_store(&old_config).await.unwrap();
    let file = old.path().join("backup");
    keep(&old_config, &file).await.unwrap();
    let ca: Vec<_> = Authorities::files(&old_config.ca_dir()).unwrap();
    let ca: Vec<_> = ca.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
    Authorities::put_files(&new_config.ca_dir(), &ca).unwrap();
    bring_back(&new_config, &file).await.unwrap();
    App::open_store(&new_config).await.unwrap();
}

#[tokio::test]
async fn of_two_restores_at_once_one_is_done_and_the_other_is_refused() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_config, new_config) = (config(old.path(), ""), config(new.path(), ""));
    let secret = token::rotate(&old_config, std::time::Duration::ZERO).await.unwrap();
    let file = old.path().join("backup");
    keep(&old_config, &file).await.unwrap();
    let both = tokio::join!(bring_back(&new_config, &file), bring_back(&new_config, &file));
    assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
    let (store, _) = App::open_store(&new_config).await.unwrap();
    assert!(store.system().find_api_token(SecretHash::of(&secret), 1).await.unwrap().is_some());
}

/// The entries of a backup, changed and packed again.
fn repacked(file: &Path, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) {
    let mut tar = tar::Archive::new(zstd::Decoder::new(File::open(file).unwrap()).unwrap());
    let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        entries.push((name, content));
    }
    change(&mut entries);
    let mut tar = tar::Builder::new(zstd::Encoder::new(File::create(file).unwrap(), 1).unwrap());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        // As a hostile writer would: past the checks of the library.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

#[tokio::test]
async fn what_is_no_whole_backup_changes_nothing() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_config, new_config) = (config(old.path(), ""), config(new.path(), ""));
    App::open_store(&old_config).await.unwrap();
    let file = old.path().join("backup");
    keep(&old_config, &file).await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    let refused = async |what: &str, damage: &dyn Fn()| {
        std::fs::write(&file, &whole).unwrap();
        damage();
        let error = bring_back(&new_config, &file).await.unwrap_err();
        let text = crate::log::chain(&error);
        assert!(text.contains(what), "{what}: {text}");
        assert!(names(new.path()).is_empty(), "{what}: something was written: {:?}", names(new.path()));
    };
    let write = |bytes: &[u8]| std::fs::write(&file, bytes).unwrap();
    refused("damaged", &|| write(&whole[..whole.len() / 2])).await;
    refused("damaged", &|| write(&whole[..whole.len() - 20])).await;
    refused("damaged", &|| write(b"")).await;
    refused("damaged", &|| write(b"not a backup")).await;
    refused("store.roost is not what was kept", &|| repacked(&file, |e| e.last_mut().unwrap().1[60] ^= 1)).await;
    refused("ca.key is not what was kept", &|| repacked(&file, |e| e[1].1.push(b'\n'))).await;
    refused("store.roost is missing", &|| repacked(&file, |e| drop(e.pop()))).await;
    refused("not at its place", &|| repacked(&file, |e| e.swap(1, 2))).await;
    refused("more entries", &|| repacked(&file, |e| e.push(("../../evil".into(), b"x".to_vec())))).await;
    refused("begin with its manifest", &|| repacked(&file, |e| drop(e.remove(0)))).await;
    let in_manifest = |from: &str, to: &str| {
        repacked(&file, |e| e[0].1 = String::from_utf8(e[0].1.clone()).unwrap().replace(from, to).into_bytes());
    };
    refused("has no place there", &|| in_manifest("ca/ca.key", "ca/../../x")).await;
    refused("has no place there", &|| in_manifest("ca/ca.crt", "ca/ca.key")).await;
    refused("layout 9", &|| in_manifest("\"version\": 2", "\"version\": 9")).await;
    refused("not understood", &|| in_manifest("\"release\"", "\"colour\"")).await;
    refused("longer than", &|| repacked(&file, |e| e[0].1 = vec![b' '; 2 << 20])).await;
}

/// A CA that nobody could use is refused before the database is touched.
#[tokio::test]
async fn a_ca_with_a_foreign_key_is_refused_before_anything_is_changed() {
    let (old, other, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_config, other_config, new_config) =
        (config(old.path(), ""), config(other.path(), ""), config(new.path(), ""));
    App::open_store(&old_config).await.unwrap();
    App::open_store(&other_config).await.unwrap();
    std::fs::copy(other_config.ca_dir().join("ca.key"), old_config.ca_dir().join("ca.key")).unwrap();
    let file = old.path().join("backup");
    keep(&old_config, &file).await.unwrap();
    let error = bring_back(&new_config, &file).await.unwrap_err();
    assert!(crate::log::chain(&error).contains("not the key of the certificate"), "{}", crate::log::chain(&error));
    assert!(names(new.path()).is_empty());
}

#[tokio::test]
async fn a_backup_without_the_database_brings_the_ca_alone() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old_config, new_config) = (config(old.path(), ""), config(new.path(), ""));
    App::open_store(&old_config).await.unwrap();
    let file = old.path().join("backup");
    let kept = write(&old_config, &file, true, silent()).await.unwrap();
    assert_eq!((kept.files, kept.rows), (2, None));
    bring_back(&new_config, &file).await.unwrap();
    assert_eq!(names(&new_config.state_dir), ["ca"]);
    let key = |config: &Config| std::fs::read(config.ca_dir().join("ca.key")).unwrap();
    assert_eq!(key(&new_config), key(&old_config));
}

/// Whatever is written fails: the disk is full.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    App::open_store(&config).await.unwrap();
    let ca = Authorities::files(&config.ca_dir()).unwrap();
    let archive = Archive { created_at_unix_ms: 1, ca, store: None, on_progress: silent() };
    assert_eq!(archive.write(Full).map(drop).unwrap_err().kind(), io::ErrorKind::StorageFull);
}
