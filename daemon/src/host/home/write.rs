//! Making a tree anew, in a directory that nobody else sees yet.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, mkfifoat, symlinkat};

use super::{Meta, attributes, below, is_plain, relative};
use crate::host::Error;

/// Ids that exist inside a sandbox: others would be nobody's there.
const IDS: u32 = crate::host::namespaces::IDS_PER_SANDBOX;

/// A tree that is being made.
#[derive(Debug)]
pub struct NewHome {
    root: OwnedFd,
    path: PathBuf,
    /// Directories get their rights at the end: they may forbid to write.
    dirs: Vec<(PathBuf, Meta)>,
}

impl NewHome {
    /// Begins in the empty directory at `path`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn begin(path: &Path) -> Result<Self, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).map_err(|e| Error::path("open", path, e))?;
        Ok(Self { root, path: path.to_owned(), dirs: Vec::new() })
    }

    fn error(&self, operation: &'static str, path: &Path) -> impl Fn(Errno) -> Error + use<> {
        let path = self.path.join(path);
        move |error| Error::path(operation, path.clone(), error)
    }

    /// The directory that is to hold `path`, reached without a link, and the
    /// last part of it.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Error> {
        let error = self.error("make", path);
        let Some(name) = path.file_name().filter(|_| is_plain(path)) else { return Err(error(Errno::EINVAL)) };
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        let dir = openat2(&self.root, relative(parent), below(OFlag::O_PATH | OFlag::O_DIRECTORY)).map_err(error)?;
        Ok((dir, name))
    }

    /// Makes a directory; the tree itself has the empty path and is there.
    ///
    /// # Errors
    /// What the kernel refuses, and an owner that no sandbox knows.
    pub fn dir(&mut self, path: &Path, meta: Meta) -> Result<(), Error> {
        self.check_owner(path, &meta)?;
        if !path.as_os_str().is_empty() {
            let (dir, name) = self.parent(path)?;
            mkdirat(&dir, name, Mode::S_IRWXU).map_err(self.error("make directory", path))?;
        }
        self.dirs.push((path.to_owned(), meta));
        Ok(())
    }

    /// Makes a file of this size without content.
    ///
    /// # Errors
    /// What the kernel refuses, and an owner that no sandbox knows.
    pub fn file(&self, path: &Path, size: u64, meta: &Meta) -> Result<File, Error> {
        self.check_owner(path, meta)?;
        let (dir, name) = self.parent(path)?;
        let how = below(OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL).mode(Mode::S_IRUSR | Mode::S_IWUSR);
        let file = File::from(openat2(&dir, name, how).map_err(self.error("create", path))?);
        file.set_len(size).map_err(|e| Error::path("size", self.path.join(path), e))?;
        Ok(file)
    }

    /// Makes a link to `target`, which means nothing here.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn link(&self, path: &Path, target: &Path, meta: &Meta) -> Result<(), Error> {
        self.check_owner(path, meta)?;
        let (dir, name) = self.parent(path)?;
        symlinkat(target, &dir, name).map_err(self.error("make link", path))?;
        self.finish_in(&dir, name, path, meta, true)
    }

    /// Makes a FIFO.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn fifo(&self, path: &Path, meta: &Meta) -> Result<(), Error> {
        self.check_owner(path, meta)?;
        let (dir, name) = self.parent(path)?;
        mkfifoat(&dir, name, Mode::S_IRUSR).map_err(self.error("make FIFO", path))?;
        self.finish_in(&dir, name, path, meta, false)
    }

    /// Gives a file that was made one more name.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn hard_link(&self, path: &Path, to: &Path) -> Result<(), Error> {
        let (old_dir, old_name) = self.parent(to)?;
        let (dir, name) = self.parent(path)?;
        linkat(&old_dir, old_name, &dir, name, AtFlags::empty()).map_err(self.error("make hard link", path))
    }

    /// Gives a file its owner, rights and times, once its content is there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn finish_file(&self, path: &Path, meta: &Meta) -> Result<(), Error> {
        let (dir, name) = self.parent(path)?;
        self.finish_in(&dir, name, path, meta, false)
    }

    /// Gives the directories their owners, rights and times, those below
    /// first.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn finish(self) -> Result<(), Error> {
        for (path, meta) in self.dirs.iter().rev() {
            if path.as_os_str().is_empty() {
                self.finish_in(&self.root, OsStr::new("."), path, meta, false)?;
            } else {
                let (dir, name) = self.parent(path)?;
                self.finish_in(&dir, name, path, meta, false)?;
            }
        }
        Ok(())
    }

    fn check_owner(&self, path: &Path, meta: &Meta) -> Result<(), Error> {
        if meta.uid < IDS && meta.gid < IDS {
            return Ok(());
        }
        let (path, Meta { uid, gid, .. }) = (self.path.join(path), meta);
        Err(Error::Unfit(format!("{} belongs to {uid}:{gid}, and sandboxes have the ids below {IDS}", path.display())))
    }

    fn finish_in(&self, dir: &OwnedFd, name: &OsStr, path: &Path, meta: &Meta, is_link: bool) -> Result<(), Error> {
        let error = self.error("give owner, rights and times to", path);
        let (owner, group) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        fchownat(dir, name, Some(owner), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(&error)?;
        if !is_link {
            // After the owner, which takes set-id bits away. No link is there:
            // it was made by this call.
            let mode = Mode::from_bits_truncate(meta.mode);
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink).map_err(&error)?;
            attributes::write(dir, Path::new(name), &meta.attributes).map_err(&error)?;
        }
        let time = TimeSpec::new(meta.mtime_ns.div_euclid(1_000_000_000), meta.mtime_ns.rem_euclid(1_000_000_000));
        utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(&error)
    }
}
