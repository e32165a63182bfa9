//! The CAs of central as files, and how one takes the place of another.
//!
//! ```text
//!   ca.key, ca.crt                        one CA
//!        │ rotate
//!        ▼
//!   ca.*, next.key, next.crt              both are trusted, the next one signs
//!        │ retire                         nodes, the present one signs central
//!        ▼
//!   ca.* (what was next)                  one CA
//! ```
//!
//! A certificate is written after its key: with it, a CA exists. A retirement
//! is decided by the file `retire`; whoever opens the directory next carries
//! it to its end, so that no crash leaves a key without its certificate. All
//! steps hold the lock of the directory.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::authority::{Authority, generate};
use super::{CaError, damaged, file_error, write_private};

/// Files of the present CA and, during a rotation, of the next one.
const PRESENT: [&str; 2] = ["ca.key", "ca.crt"];
const NEXT: [&str; 2] = ["next.key", "next.crt"];
/// Exists while a decided retirement is not finished.
const RETIRE: &str = "retire";
const LOCK: &str = "lock";

/// The CAs that are trusted now.
#[derive(Debug)]
pub struct Authorities {
    serving: Authority,
    next: Option<Authority>,
}

impl Authorities {
    /// Opens the CAs in `dir`, or makes one where there is none.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn open_or_create(dir: &Path) -> Result<Self, CaError> {
        let _lock = lock(dir)?;
        finish_retirement(dir)?;
        let [key, certificate] = PRESENT.map(|name| dir.join(name));
        if !key.exists() && !certificate.exists() {
            create(dir, PRESENT)?;
            tracing::info!(dir = %dir.display(), "certificate authority created");
        }
        Self::read(dir)
    }

    /// The files of every CA in `dir`, as a backup keeps them: name and content.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn files(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, CaError> {
        let _lock = lock(dir)?;
        finish_retirement(dir)?;
        let has_next = dir.join(NEXT[1]).exists();
        let names = PRESENT.into_iter().chain(NEXT.into_iter().filter(|_| has_next));
        let read = |name: &'static str| {
            let path = dir.join(name);
            let content = std::fs::read(&path).map_err(|source| file_error("read", &path, source))?;
            Ok((name, content))
        };
        names.map(read).collect()
    }

    /// Puts the files of a backup into a directory that has none or the same,
    /// and opens them.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn put_files(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<Self, CaError> {
        let _lock = lock(dir)?;
        // As everywhere: a certificate after its key.
        for name in PRESENT.iter().chain(&NEXT) {
            if let Some((_, content)) = files.iter().find(|(found, _)| found == name) {
                write_private(&dir.join(name), content)?;
            }
        }
        Self::read(dir)
    }

    /// Whether there is a CA, or part of one, in `dir`.
    #[must_use]
    pub fn has_any(dir: &Path) -> bool {
        [PRESENT, NEXT].as_flattened().iter().any(|name| dir.join(name).symlink_metadata().is_ok())
    }

    /// Whether these are the files of a CA, or of two.
    ///
    /// # Errors
    /// [`CaError::Damaged`] with what is missing or wrong.
    pub fn parse_files(files: &[(String, Vec<u8>)]) -> Result<(), CaError> {
        let text = |name: &str| {
            let missing = || damaged(Path::new(name), std::io::Error::other("it is missing"));
            let (_, content) = files.iter().find(|(found, _)| found == name).ok_or_else(missing)?;
            String::from_utf8(content.clone()).map_err(|error| damaged(Path::new(name), error))
        };
        let has_next = files.iter().any(|(name, _)| NEXT.contains(&name.as_str()));
        for [key, certificate] in [PRESENT, NEXT].into_iter().take(1 + usize::from(has_next)) {
            Authority::parse(&text(key)?, text(certificate)?, (Path::new(key), Path::new(certificate)))?;
        }
        Ok(())
    }

    /// Makes the next CA.
    ///
    /// # Errors
    /// [`CaError::UnderWay`] when there is one already; [`CaError::File`].
    pub fn rotate(dir: &Path) -> Result<Self, CaError> {
        let _lock = lock(dir)?;
        finish_retirement(dir)?;
        let before = Self::read(dir)?;
        if before.next.is_some() {
            return Err(CaError::UnderWay);
        }
        create(dir, NEXT)?;
        Self::read(dir)
    }

    /// Puts the next CA in the place of the present one, whose key is gone
    /// then.
    ///
    /// # Errors
    /// [`CaError::NoRotation`] when there is no next one; [`CaError::File`].
    pub fn retire(dir: &Path) -> Result<Self, CaError> {
        let _lock = lock(dir)?;
        finish_retirement(dir)?;
        if Self::read(dir)?.next.is_none() {
            return Err(CaError::NoRotation);
        }
        write_private(&dir.join(RETIRE), b"")?;
        finish_retirement(dir)?;
        Self::read(dir)
    }

    fn read(dir: &Path) -> Result<Self, CaError> {
        let open = |[key, certificate]: [&str; 2]| Authority::open(&dir.join(key), &dir.join(certificate));
        let next = dir.join(NEXT[1]).exists().then(|| open(NEXT)).transpose()?;
        Ok(Self { serving: open(PRESENT)?, next })
    }

    /// The CA that signs central's own certificate, and by whose fingerprint
    /// new nodes know central.
    #[must_use]
    pub fn serving(&self) -> &Authority {
        &self.serving
    }

    /// The CA that is to take its place.
    #[must_use]
    pub fn next(&self) -> Option<&Authority> {
        self.next.as_ref()
    }

    /// The CA that signs certificates of nodes. A node that has one of the
    /// next CA was given both to trust with it.
    #[must_use]
    pub fn issuing(&self) -> &Authority {
        self.next.as_ref().unwrap_or(&self.serving)
    }

    /// Every CA that is trusted.
    pub fn trusted(&self) -> impl Iterator<Item = &Authority> {
        std::iter::once(&self.serving).chain(&self.next)
    }

    /// The certificates of every trusted CA, in PEM.
    #[must_use]
    pub fn trust_pem(&self) -> String {
        self.trusted().map(Authority::ca_pem).collect()
    }
}

/// The CAs of a running central: read anew when another process changed them.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    present: watch::Sender<Arc<Authorities>>,
}

impl Keeper {
    /// Keeps what was opened in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, opened: Authorities) -> Self {
        Self { dir, present: watch::Sender::new(Arc::new(opened)) }
    }

    /// The CAs as they are now.
    #[must_use]
    pub fn present(&self) -> Arc<Authorities> {
        self.present.borrow().clone()
    }

    /// Wakes when they change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Authorities>> {
        self.present.subscribe()
    }

    /// Changes with the files of the CAs; costs a look at a few directory entries.
    #[must_use]
    pub fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for name in [PRESENT, NEXT].as_flattened() {
            let entry = std::fs::metadata(self.dir.join(name)).ok();
            entry.map(|entry| (entry.len(), entry.modified().ok())).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Reads the files again and tells whoever waits. Blocks for the disk.
    ///
    /// # Errors
    /// See [`CaError`]; what was read before stays.
    pub fn reload(&self) -> Result<(), CaError> {
        let read = Authorities::open_or_create(&self.dir)?;
        self.present.send_replace(Arc::new(read));
        Ok(())
    }
}

fn create(dir: &Path, [key_name, certificate_name]: [&str; 2]) -> Result<(), CaError> {
    let (key_pem, ca_pem) = generate()?;
    write_private(&dir.join(key_name), key_pem.as_bytes())?;
    write_private(&dir.join(certificate_name), ca_pem.as_bytes())
}

fn finish_retirement(dir: &Path) -> Result<(), CaError> {
    let mark = dir.join(RETIRE);
    if !mark.exists() {
        return Ok(());
    }
    for (from, to) in NEXT.iter().zip(PRESENT).map(|(from, to)| (dir.join(from), dir.join(to))) {
        if from.exists() {
            std::fs::rename(&from, &to).map_err(|source| file_error("rename", &from, source))?;
        }
    }
    std::fs::remove_file(&mark).map_err(|source| file_error("remove", &mark, source))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| file_error("write", dir, source))
}

/// The lock of the directory, which is made where there is none.
fn lock(dir: &Path) -> Result<File, CaError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| file_error("make", dir, source))?;
    let path = dir.join(LOCK);
    let open = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let locked = open.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| file_error("lock", &path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_private_and_the_ca_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        let first = Authorities::open_or_create(&ca).unwrap();
        let mode = std::fs::metadata(ca.join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Authorities::open_or_create(&ca).unwrap();
        assert_eq!(again.serving().fingerprint(), first.serving().fingerprint());
    }

    #[test]
    fn a_lost_key_is_not_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        Authorities::open_or_create(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Authorities::open_or_create(dir.path()), Err(CaError::File { .. })));
    }

    #[test]
    fn a_rotation_passes_through_both_and_ends_with_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let old = Authorities::open_or_create(dir.path()).unwrap().serving().key_id().to_owned();
        assert!(matches!(Authorities::retire(dir.path()), Err(CaError::NoRotation)));
        let both = Authorities::rotate(dir.path()).unwrap();
        assert_eq!((both.serving().key_id(), both.trusted().count()), (old.as_str(), 2));
        let new = both.issuing().key_id().to_owned();
        assert_ne!(new, old);
        assert!(matches!(Authorities::rotate(dir.path()), Err(CaError::UnderWay)));
        let one = Authorities::retire(dir.path()).unwrap();
        assert_eq!((one.serving().key_id(), one.trusted().count()), (new.as_str(), 1));
    }

    /// Whatever of a retirement was done before a crash, the next look at the
    /// directory ends it.
    #[test]
    fn a_retirement_that_was_cut_off_is_finished_by_whoever_comes_next() {
        for renames in 0..=2 {
            let dir = tempfile::tempdir().unwrap();
            Authorities::open_or_create(dir.path()).unwrap();
            let new = Authorities::rotate(dir.path()).unwrap().issuing().key_id().to_owned();
            std::fs::write(dir.path().join(RETIRE), b"").unwrap();
            for (from, to) in NEXT.iter().zip(PRESENT).take(renames) {
                std::fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
            }
            let opened = Authorities::open_or_create(dir.path()).unwrap();
            assert_eq!((opened.serving().key_id(), opened.trusted().count()), (new.as_str(), 1), "{renames}");
        }
    }
}
