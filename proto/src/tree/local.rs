//! Trees of this machine, whose owner names them: there the usual rules hold,
//! and links on the way are followed.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{Target, TreeError};

fn open_path(path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC | flags, Mode::empty())
}

/// Opens what is to be packed. A link is opened itself, or followed.
///
/// # Errors
/// When it is not there, or may not be reached.
pub fn open_top(path: &Path, follow_link: bool) -> Result<OwnedFd, TreeError> {
    let flags = if follow_link { OFlag::empty() } else { OFlag::O_NOFOLLOW };
    open_path(path, flags).map_err(|error| match error {
        Errno::ENOENT => TreeError::NotFound(path.into()),
        Errno::ENOTDIR => TreeError::NotADirectory(path.into()),
        error => TreeError::path("open", path, error),
    })
}

impl Target {
    /// As [`Target::find`], on this machine.
    ///
    /// # Errors
    /// As there.
    pub fn local(path: &Path, may_rename: bool) -> Result<Self, TreeError> {
        Self::find(path, may_rename, |dir| open_path(dir, OFlag::O_DIRECTORY))
    }
}
