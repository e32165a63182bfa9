//! Reads a tree into an archive.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, ReadDir};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statfs::fstatfs;
use tar::{Builder, EntryType, Header};

use super::file::fill;
use super::{MAX_DEPTH, PIECE_BYTES, TreeError};
use crate::model::CopyReport;

/// Files with several names that are remembered, so that the names stay one
/// file; beyond that each name is a file of its own.
const HARD_LINKS_MAX: usize = 1 << 16;
/// Longest target of a link that a plain header holds.
const PLAIN_LINK_MAX_BYTES: usize = 100;
/// Who owns what nobody in the tree's range of ids owns.
const NOBODY: u32 = 65_534;
/// File systems that are the kernel's own words: statfs(2).
const KERNEL_FILE_SYSTEMS: [i64; 8] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7363_6673, // securityfs
];

/// Writes trees into one archive.
pub struct Packer<W: Write> {
    archive: Builder<W>,
    first_id: u32,
    hard_links: HashMap<(u64, u64), PathBuf>,
    report: CopyReport,
}

impl<W: Write> std::fmt::Debug for Packer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("report", &self.report).finish_non_exhaustive()
    }
}

/// A directory that is being read.
struct Level {
    dir: OwnedFd,
    entries: ReadDir,
    name: PathBuf,
    device: u64,
}

impl<W: Write> Packer<W> {
    /// An archive without an entry. `first_id` is what id 0 of the tree is
    /// here.
    pub fn new(out: W, first_id: u32) -> Self {
        let (archive, hard_links) = (Builder::new(out), HashMap::new());
        Self { archive, first_id, hard_links, report: CopyReport::default() }
    }

    /// Adds what `top` is (`O_PATH` is enough), under a name.
    ///
    /// # Errors
    /// When the archive cannot be written. What cannot be read is in the
    /// report.
    pub fn add(&mut self, top: BorrowedFd<'_>, name: &Path) -> Result<(), TreeError> {
        let mut levels: Vec<Level> = self.entry(top, name, None)?.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            let Some(next) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let next = match next {
                Ok(next) => next.file_name(),
                Err(error) => {
                    self.report.problem(&level.name, format!("cannot be read to its end: {error}"));
                    levels.pop();
                    continue;
                }
            };
            let (path, device) = (level.name.join(&next), level.device);
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let node = match openat(&level.dir, next.as_os_str(), flags, Mode::empty()) {
                // Removed since it was listed.
                Err(nix::Error::ENOENT) => continue,
                Err(error) => {
                    self.report.problem(&path, error.desc());
                    continue;
                }
                Ok(node) => node,
            };
            if let Some(below) = self.entry(node.as_fd(), &path, Some(device))? {
                if levels.len() >= MAX_DEPTH {
                    self.report.problem(&path, "what is in it lies too deep");
                } else {
                    levels.push(below);
                }
            }
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<(CopyReport, W), TreeError> {
        let out = self.archive.into_inner().map_err(TreeError::Output)?;
        Ok((self.report, out))
    }

    /// Adds one thing; a directory's content is still to be added.
    fn entry(&mut self, node: BorrowedFd<'_>, name: &Path, above: Option<u64>) -> Result<Option<Level>, TreeError> {
        let facts = match fstat(node) {
            Ok(facts) => facts,
            Err(error) => {
                self.report.problem(name, error.desc());
                return Ok(None);
            }
        };
        match facts.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.file(node, &facts, name)?,
            libc::S_IFLNK => self.link(node, &facts, name)?,
            libc::S_IFDIR => return self.directory(node, &facts, name, above),
            libc::S_IFIFO => self.report.problem(name, "is a FIFO, left out"),
            libc::S_IFSOCK => self.report.problem(name, "is a socket, left out"),
            _ => self.report.problem(name, "is a device, left out"),
        }
        Ok(None)
    }

    fn directory(
        &mut self,
        node: BorrowedFd<'_>,
        facts: &FileStat,
        name: &Path,
        above: Option<u64>,
    ) -> Result<Option<Level>, TreeError> {
        let is_mount = above.is_some_and(|device| device != facts.st_dev);
        if is_mount && is_kernels(node) {
            self.report.problem(name, "is a file system of the kernel, left out");
            return Ok(None);
        }
        let mut header = self.header(facts, EntryType::Directory);
        self.archive.append_data(&mut header, name, io::empty()).map_err(TreeError::Output)?;
        self.report.directories += 1;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = openat(node, ".", flags, Mode::empty()).map_err(io::Error::from);
        let opened = opened.and_then(|dir| Ok((std::fs::read_dir(own_path(dir.as_fd()))?, dir)));
        match opened {
            Ok((entries, dir)) => Ok(Some(Level { dir, entries, name: name.into(), device: facts.st_dev })),
            Err(error) => {
                self.report.problem(name, format!("cannot be read: {error}"));
                Ok(None)
            }
        }
    }

    fn file(&mut self, node: BorrowedFd<'_>, facts: &FileStat, name: &Path) -> Result<(), TreeError> {
        if facts.st_nlink > 1 {
            let id = (facts.st_dev, facts.st_ino);
            if let Some(first) = self.hard_links.get(&id) {
                let mut header = self.header(facts, EntryType::Link);
                self.archive.append_link(&mut header, name, first).map_err(TreeError::Output)?;
                self.report.links += 1;
                return Ok(());
            }
            if self.hard_links.len() < HARD_LINKS_MAX {
                self.hard_links.insert(id, name.into());
            }
        }
        let begun = open_content(node);
        let (mut content, size) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.hard_links.remove(&(facts.st_dev, facts.st_ino));
                self.report.problem(name, format!("cannot be read: {error}"));
                return Ok(());
            }
        };
        let mut header = self.header(facts, EntryType::Regular);
        header.set_size(size);
        let reader = BufReader::with_capacity(PIECE_BYTES, &mut content);
        self.archive.append_data(&mut header, name, reader).map_err(TreeError::Output)?;
        self.report.files += 1;
        self.report.bytes += size;
        if let Some(fault) = content.fault {
            self.report.problem(name, fault);
        }
        Ok(())
    }

    fn link(&mut self, node: BorrowedFd<'_>, facts: &FileStat, name: &Path) -> Result<(), TreeError> {
        let to = match readlinkat(node, "") {
            Ok(to) => to,
            Err(error) => {
                self.report.problem(name, error.desc());
                return Ok(());
            }
        };
        let mut header = self.header(facts, EntryType::Symlink);
        let added = if to.len() <= PLAIN_LINK_MAX_BYTES {
            // Literally: as a path, it would be put in order.
            let set = header.set_link_name_literal(to.as_bytes());
            set.and_then(|()| self.archive.append_data(&mut header, name, io::empty()))
        } else {
            self.archive.append_link(&mut header, name, Path::new(OsStr::new(&to)))
        };
        added.map_err(TreeError::Output)?;
        self.report.links += 1;
        Ok(())
    }

    fn header(&self, facts: &FileStat, kind: EntryType) -> Header {
        let id = |id: u32| u64::from(id.checked_sub(self.first_id).unwrap_or(NOBODY));
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(facts.st_mode & 0o7777);
        header.set_uid(id(facts.st_uid));
        header.set_gid(id(facts.st_gid));
        header.set_mtime(u64::try_from(facts.st_mtime).unwrap_or(0));
        header.set_size(0);
        header
    }
}

/// The path by which this process reaches what it has open.
fn own_path(file: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

fn is_kernels(dir: BorrowedFd<'_>) -> bool {
    // What cannot be asked is looked into as anything else.
    fstatfs(dir).is_ok_and(|fs| KERNEL_FILE_SYSTEMS.contains(&fs.filesystem_type().0))
}

/// Opens a file for reading, and how large it counts. The size of a small one
/// is what it holds, whatever it says of itself: the kernel's say 0.
fn open_content(node: BorrowedFd<'_>) -> io::Result<(Content, u64)> {
    // The file is regular, and this is that very file.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut file = File::from(open(&own_path(node), flags, Mode::empty())?);
    let mut head = vec![0; PIECE_BYTES];
    let bytes = fill(&mut file, &mut head)?;
    head.truncate(bytes);
    let size = if bytes < PIECE_BYTES { bytes as u64 } else { file.metadata()?.len().max(bytes as u64) };
    Ok((Content { head: io::Cursor::new(head), file, left: size, fault: None }, size))
}

/// Exactly as many bytes of a file as were announced: more are not looked at,
/// missing ones are zeros.
struct Content {
    head: io::Cursor<Vec<u8>>,
    file: File,
    left: u64,
    fault: Option<&'static str>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let mut bytes = self.head.read(buffer)?;
        if bytes == 0 && self.fault.is_none() {
            match self.file.read(buffer) {
                Ok(0) => self.fault = Some("became shorter while it was read: its end is zeros"),
                Ok(read) => bytes = read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(_) => self.fault = Some("cannot be read to its end: its end is zeros"),
            }
        }
        if bytes == 0 {
            buffer.fill(0);
            bytes = buffer.len();
        }
        self.left -= bytes as u64;
        Ok(bytes)
    }
}
