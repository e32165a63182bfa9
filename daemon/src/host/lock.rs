//! One daemon per root directory.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::Error;

/// Held for the life of the daemon; the kernel lets go of it at any end.
#[derive(Debug)]
pub struct RootLock {
    _file: Flock<File>,
}

impl RootLock {
    /// Takes the lock of a root directory.
    ///
    /// # Errors
    /// When another daemon holds it.
    pub fn take(root: &Path) -> Result<Self, Error> {
        let path = root.join("lock");
        let file = File::create(&path).map_err(|e| Error::path("create", &path, e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, nix::Error::EWOULDBLOCK)) => Err(Error::Unfit(format!(
                "another roostd runs on {}: stop it, or give this one another root",
                root.display()
            ))),
            Err((_, error)) => Err(Error::path("lock", path, error)),
        }
    }
}
