//! A file that lies beside the state for a while, and readers that count and
//! digest what passes through them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{BackupError, file};
use crate::secret::{Secret, hex};

/// A place in a directory that only its owner may enter; what lies there goes
/// away with this.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// The directory, where it was made for this.
    made: Option<PathBuf>,
}

impl Spool {
    /// A place in `dir`, which is made where there is none, and goes away again
    /// unless something else is put there.
    pub(super) fn beside(dir: &Path) -> Result<Self, BackupError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = (!dir.exists()).then(|| dir.to_owned());
        let make = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        make.map_err(|source| file("make", dir, source))?;
        let random = Secret::random("spool").hash().as_str().chars().take(16).collect::<String>();
        Ok(Self { path: dir.join(format!("{random}.spool")), made })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that was put there, open and without its name: a process that
    /// is killed leaves nothing.
    pub(super) fn open_and_forget(self) -> Result<File, BackupError> {
        File::open(&self.path).map_err(|source| file("read", &self.path, source))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "a copy of the database stays: remove it");
            }
            _ => {}
        }
        if let Some(dir) = &self.made {
            // Fails where a restore has filled it, as it should.
            drop(std::fs::remove_dir(dir));
        }
    }
}

/// Says how many bytes have passed, now and then.
pub(super) struct Counted<R, F> {
    inner: R,
    done: u64,
    told: u64,
    on_bytes: F,
}

/// Bytes between two words of progress.
const GRAIN: u64 = 1 << 20;

impl<R: Read, F: Fn(u64)> Counted<R, F> {
    pub(super) fn new(inner: R, on_bytes: F) -> Self {
        Self { inner, done: 0, told: 0, on_bytes }
    }
}

impl<R: Read, F: Fn(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        if read == 0 || self.done - self.told >= GRAIN {
            self.told = self.done;
            (self.on_bytes)(self.done);
        }
        Ok(read)
    }
}

/// Knows the SHA-256 of what has passed.
pub(super) struct Digested<R> {
    inner: R,
    digest: Sha256,
}

impl<R: Read> Digested<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, digest: Sha256::new() }
    }

    /// In lower-case hex.
    pub(super) fn sha256(self) -> String {
        hex(&self.digest.finalize())
    }
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}
