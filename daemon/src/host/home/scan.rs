//! Reading a tree.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Whence, lseek};

use super::{Found, Kind, Meta, Stamp, attributes, below, relative};
use crate::host::Error;

/// An open tree.
#[derive(Debug)]
pub struct Home {
    root: OwnedFd,
    path: PathBuf,
}

impl Home {
    /// Opens the tree at `path`, a directory of the daemon's own.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).map_err(|e| Error::path("open", path, e))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Hands every entry to `visit`, a directory before what is in it and the
    /// names of each in their order. What vanishes meanwhile is left out.
    ///
    /// # Errors
    /// What the kernel refuses, and the first that `visit` returns.
    pub fn walk<E: From<Error>>(&self, visit: &mut dyn FnMut(Found) -> Result<(), E>) -> Result<(), E> {
        let error = |path: &Path| {
            let path = self.path.join(path);
            move |e: Errno| E::from(Error::path("read", path.clone(), e))
        };
        let facts = fstat(&self.root).map_err(error(Path::new("")))?;
        let own = attributes::read(&self.root, Path::new(".")).map_err(error(Path::new("")))?;
        visit(found(PathBuf::new(), &facts, Kind::Dir, own))?;
        let mut pending = vec![PathBuf::new()];
        while let Some(dir_path) = pending.pop() {
            let dir = match openat2(&self.root, relative(&dir_path), below(OFlag::O_RDONLY | OFlag::O_DIRECTORY)) {
                Ok(dir) => dir,
                Err(error) if is_gone(error) => continue,
                Err(e) => return Err(error(&dir_path)(e)),
            };
            let mut below_it = Vec::new();
            for name in names(&dir).map_err(error(&dir_path))? {
                let path = dir_path.join(&name);
                let entry = match look(&dir, &name, path.clone()) {
                    Ok(entry) => entry,
                    Err(error) if is_gone(error) => continue,
                    Err(e) => return Err(error(&path)(e)),
                };
                if entry.kind == Kind::Dir {
                    below_it.push(path);
                }
                visit(entry)?;
            }
            // The first of them comes next.
            pending.extend(below_it.into_iter().rev());
        }
        Ok(())
    }

    /// Opens a file of the tree for reading; none if it is no file any more.
    ///
    /// # Errors
    /// What the kernel refuses for another reason.
    pub fn file(&self, path: &Path) -> Result<Option<File>, Error> {
        let how = |extra| below(OFlag::O_RDONLY | OFlag::O_NONBLOCK | extra);
        let opened = openat2(&self.root, path, how(OFlag::O_NOATIME));
        let opened =
            opened.or_else(|e| if e == Errno::EPERM { openat2(&self.root, path, how(OFlag::empty())) } else { Err(e) });
        let file = match opened {
            Ok(file) => File::from(file),
            Err(error) if is_gone(error) => return Ok(None),
            Err(e) => return Err(Error::path("open", self.path.join(path), e)),
        };
        let facts = file.metadata().map_err(|e| Error::path("look at", self.path.join(path), e))?;
        Ok(facts.is_file().then_some(file))
    }
}

/// Gone, or something else in its place.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO)
}

/// The names in an open directory, in their order.
fn names(dir: &OwnedFd) -> Result<Vec<PathBuf>, Errno> {
    let to_errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    // The descriptor itself: no name is looked up again.
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).map_err(to_errno)?;
    let names = entries.map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(to_errno)?;
    names.sort();
    Ok(names)
}

fn look(dir: &OwnedFd, name: &Path, path: PathBuf) -> Result<Found, Errno> {
    let facts = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = match SFlag::from_bits_truncate(facts.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Kind::Dir,
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFLNK => Kind::Link(readlinkat(dir, name)?.into()),
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        _ => Kind::Device,
    };
    let attributes = match kind {
        Kind::Dir | Kind::File => attributes::read(dir, name)?,
        _ => Vec::new(),
    };
    Ok(found(path, &facts, kind, attributes))
}

fn found(path: PathBuf, facts: &FileStat, kind: Kind, attributes: Vec<(String, Vec<u8>)>) -> Found {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    let mtime_ns = nanoseconds(facts.st_mtime, facts.st_mtime_nsec);
    Found {
        path,
        kind,
        meta: Meta { mode: facts.st_mode & 0o7777, uid: facts.st_uid, gid: facts.st_gid, mtime_ns, attributes },
        stamp: Stamp {
            inode: facts.st_ino,
            size: u64::try_from(facts.st_size).unwrap_or_default(),
            mtime_ns,
            ctime_ns: nanoseconds(facts.st_ctime, facts.st_ctime_nsec),
        },
        links: facts.st_nlink,
    }
}

/// Where a file has data, as offset and length: the rest are holes.
///
/// # Errors
/// What the kernel refuses.
pub fn data_segments(file: &File, size: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let size = i64::try_from(size).map_err(std::io::Error::other)?;
    let (mut segments, mut end) = (Vec::new(), 0);
    while end < size {
        let begin = match lseek(file, end, Whence::SeekData) {
            Ok(begin) => begin,
            // Nothing but a hole follows.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        end = match lseek(file, begin, Whence::SeekHole) {
            Ok(end) => end.min(size),
            // It was cut short meanwhile.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if begin < end {
            let offset = u64::try_from(begin).map_err(std::io::Error::other)?;
            segments.push((offset, u64::try_from(end - begin).map_err(std::io::Error::other)?));
        }
    }
    Ok(segments)
}

/// Writes everything of the file system at `path` to its disk. Afterwards the
/// kernel notes the time of the next change of every file, also of one that a
/// program has mapped.
///
/// # Errors
/// What the kernel refuses.
pub fn sync_file_system(path: &Path) -> Result<(), Error> {
    let dir = File::open(path).map_err(|e| Error::path("open", path, e))?;
    // SAFETY: the descriptor is open.
    let rc = unsafe { libc::syncfs(dir.as_fd().as_raw_fd()) };
    Errno::result(rc).map(drop).map_err(|e| Error::path("sync the file system of", path, e))
}
