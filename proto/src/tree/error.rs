//! Why a copy ends.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Why a copy ends.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Nothing has this name.
    #[error("{} is not there", .0.display())]
    NotFound(PathBuf),
    /// A directory is wanted, and something else is there.
    #[error("{} is no directory", .0.display())]
    NotADirectory(PathBuf),
    /// The disk, or the part of it that may be used, is full.
    #[error("no room is left for {}", .0.display())]
    NoSpace(PathBuf),
    /// The archive asks for what is not done.
    #[error("{} is refused: {reason}", path.display())]
    Refused {
        /// Its name in the archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system refuses a step.
    #[error("cannot {operation} {}", path.display())]
    Path {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The bytes are no archive, or not all of one.
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    /// Whoever sends the archive is gone.
    #[error("the archive broke off")]
    Input(#[source] io::Error),
    /// Whoever takes the archive is gone.
    #[error("the archive cannot be handed on")]
    Output(#[source] io::Error),
}

impl TreeError {
    /// What a system call's error means for a path.
    pub(super) fn path(operation: &'static str, path: impl Into<PathBuf>, error: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), error.into());
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::NoSpace(path),
            _ => Self::Path { operation, path, source },
        }
    }

    /// A part of the archive that is not done.
    pub(super) fn refused(path: impl Into<PathBuf>, reason: &'static str) -> Self {
        Self::Refused { path: path.into(), reason }
    }
}
