//! Where an archive is unpacked: the rules of `cp`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::TreeError;
use super::name::wants_directory;

/// Where an archive is unpacked.
#[derive(Debug)]
pub struct Target {
    /// The directory that names are relative to.
    pub(super) dir: OwnedFd,
    /// Its path, for people.
    pub(super) path: PathBuf,
    /// New name of the one top entry.
    pub(super) rename: Option<OsString>,
}

impl Target {
    /// Finds where to unpack. Without `may_rename` the path must be a
    /// directory. With it the one top entry of the archive gets the path,
    /// unless that is a directory: then it is laid into it. `open` opens a
    /// directory, `O_PATH` is enough, and may follow links.
    ///
    /// # Errors
    /// What is missing, or no directory.
    pub fn find(
        path: &Path,
        may_rename: bool,
        open: impl Fn(&Path) -> nix::Result<OwnedFd>,
    ) -> Result<Self, TreeError> {
        let error = |path: &Path, error| match error {
            Errno::ENOENT => TreeError::NotFound(path.into()),
            Errno::ENOTDIR => TreeError::NotADirectory(path.into()),
            error => TreeError::path("open directory", path, error),
        };
        let failed = match open(path) {
            Ok(dir) => return Ok(Self { dir, path: path.into(), rename: None }),
            Err(failed) => failed,
        };
        let is_free = matches!(failed, Errno::ENOENT | Errno::ENOTDIR);
        match (path.file_name(), path.parent()) {
            (Some(name), Some(above)) if may_rename && is_free && !wants_directory(path) => {
                let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
                let dir = open(above).map_err(|e| error(above, e))?;
                Ok(Self { dir, path: above.into(), rename: Some(name.into()) })
            }
            _ => Err(error(path, failed)),
        }
    }
}
