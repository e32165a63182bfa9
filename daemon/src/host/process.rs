//! A process of a sandbox, held by its directory in procfs: what is read of it
//! cannot be of another one that got its number since.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat};

use super::Error;
use super::namespaces::{Kind, pin};

/// A process that was found to be of a sandbox.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    dir: OwnedFd,
}

impl Process {
    /// The process with this number, if it is there and lives in the user
    /// namespace that is pinned in `namespaces`.
    ///
    /// # Errors
    /// When the pin cannot be looked at, or the kernel refuses.
    pub fn of(pid: u32, namespaces: &Path) -> Result<Option<Self>, Error> {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let dir = match open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(dir) => dir,
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(error) => return Err(Error::path("open", path, error)),
        };
        let pin = pin(namespaces, Kind::User);
        let wanted = pin.metadata().map_err(|e| Error::path("look at", &pin, e))?;
        match fstatat(dir.as_fd(), "ns/user", nix::fcntl::AtFlags::empty()) {
            Ok(own) if (own.st_dev, own.st_ino) == (wanted.dev(), wanted.ino()) => Ok(Some(Self { pid, dir })),
            // Somebody else's, or it ended.
            Ok(_) | Err(nix::Error::ENOENT | nix::Error::ESRCH) => Ok(None),
            Err(error) => Err(Error::path("look at the namespaces of", path, error)),
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its root directory, to resolve paths below.
    ///
    /// # Errors
    /// When it ended.
    pub fn root(&self) -> Result<OwnedFd, Error> {
        openat(self.dir.as_fd(), "root", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| self.error("open the root of", e.into()))
    }

    /// When it was started, in clock ticks since the boot: tells it from
    /// another one with its number.
    ///
    /// # Errors
    /// When it ended.
    pub fn started_at_ticks(&self) -> Result<u64, Error> {
        let file = openat(self.dir.as_fd(), "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| self.error("open the state of", e.into()))?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).map_err(|e| self.error("read the state of", e))?;
        start_ticks(&text).ok_or_else(|| self.error("understand the state of", std::io::ErrorKind::InvalidData.into()))
    }

    fn error(&self, operation: &'static str, source: std::io::Error) -> Error {
        Error::path(operation, format!("/proc/{}", self.pid), source)
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the second may hold anything, also
/// spaces and parentheses.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::namespaces;

    #[test]
    fn a_process_of_the_host_is_not_taken_for_one_of_a_sandbox() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = root.path().join("ns");
        namespaces::create(&dir, 1_000_000, "sbx-test").unwrap();
        assert!(Process::of(std::process::id(), &dir).unwrap().is_none(), "its number was given to another one");
        assert!(Process::of(u32::MAX >> 2, &dir).unwrap().is_none(), "there is no such process");
        namespaces::remove(&dir).unwrap();
    }

    #[test]
    fn a_name_with_parentheses_hides_no_start_time() {
        let stat = "42 (a) b) R) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1000 10";
        assert_eq!(start_ticks(stat), Some(12345));
        assert_eq!(start_ticks("42"), None);
    }
}
