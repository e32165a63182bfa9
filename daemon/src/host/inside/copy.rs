//! Copies trees into a running container and out of it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat2};
use roost_proto::model::CopyReport;
use roost_proto::tree::{PIECE_BYTES, Packer, Rules, Target, TreeError, unpack};

use super::{as_user, in_root};
use crate::host::Error;

/// Why a copy fails.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The tree or the archive.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The host.
    #[error(transparent)]
    Host(#[from] Error),
}

/// The inside of a container, as its user sees it.
#[derive(Debug)]
pub struct Inside {
    /// Its root directory.
    pub root: OwnedFd,
    /// What id 0 inside is outside.
    pub first_id: u32,
    /// Its user, as counted inside.
    pub uid: u32,
    /// Its user's group, as counted inside.
    pub gid: u32,
}

impl Inside {
    /// Unpacks an archive at a path; see [`Target::find`]. `found` is called
    /// once that is known to be there, `step` as the work goes on.
    ///
    /// # Errors
    /// See [`CopyError`]; what was written before stays, in whole files.
    pub fn write(
        &self,
        path: &Path,
        may_rename: bool,
        from: impl Read + Send,
        step: &mut (dyn FnMut(&CopyReport) + Send),
    ) -> Result<CopyReport, CopyError> {
        self.as_user(|| {
            let target = Target::find(path, may_rename, |dir| self.open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY))?;
            step(&CopyReport::default());
            let rules = Rules { set_id_of: Some(self.uid.into()) };
            Ok(unpack(from, &target, rules, step)?)
        })
    }

    /// Packs what is at a path; `found` is called once that is known to be
    /// there. A link in the path's own place is followed if asked.
    ///
    /// # Errors
    /// See [`CopyError`]; what cannot be read is in the report.
    pub fn read(
        &self,
        path: &Path,
        follow_link: bool,
        to: impl Write + Send,
        found: &mut (dyn FnMut() + Send),
    ) -> Result<CopyReport, CopyError> {
        let failed = |error| match error {
            Errno::ENOENT => TreeError::NotFound(path.into()),
            Errno::ENOTDIR => TreeError::NotADirectory(path.into()),
            error => TreeError::Path { operation: "open", path: path.into(), source: error.into() },
        };
        self.as_user(|| {
            let nofollow = if follow_link { OFlag::empty() } else { OFlag::O_NOFOLLOW };
            let top = self.open(path, OFlag::O_PATH | nofollow).map_err(failed)?;
            found();
            let to = std::io::BufWriter::with_capacity(PIECE_BYTES, to);
            let mut packer = Packer::new(to, self.first_id);
            packer.add(top.as_fd(), name_in_archive(path))?;
            let (report, mut to) = packer.finish()?;
            to.flush().map_err(TreeError::Output)?;
            Ok(report)
        })
    }

    fn as_user<T: Send>(&self, work: impl FnOnce() -> Result<T, CopyError> + Send) -> Result<T, CopyError> {
        as_user(self.first_id + self.uid, self.first_id + self.gid, work)
    }

    /// Opens a path below the root. Links lead to places of the container.
    fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        // A path that ends in a slash names a directory, and `Path` forgets it.
        let is_dir = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).ends_with(b"/");
        let inside = match (inside.as_os_str().is_empty(), is_dir) {
            (true, _) => Path::new(".").to_path_buf(),
            (false, true) => inside.join(""),
            (false, false) => inside.to_path_buf(),
        };
        openat2(self.root.as_fd(), &inside, in_root(flags))
    }
}

/// What the top of a path's archive is called.
fn name_in_archive(path: &Path) -> &Path {
    let is_content = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).ends_with(b"/.");
    match path.components().next_back() {
        Some(Component::Normal(name)) if !is_content => Path::new(name),
        _ => Path::new("."),
    }
}
