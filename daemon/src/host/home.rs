//! Trees of files with everything that belongs to them: owners, modes, times,
//! extended attributes, links, hard links and holes.
//!
//! A tree may be hostile, and change while it is read: nothing is ever
//! reached through a link, and no name leads out of the tree.

mod attributes;
mod scan;
mod write;

pub use scan::{Home, data_segments, sync_file_system};
pub use write::NewHome;

use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};

/// What every entry has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner, as it stands on the disk.
    pub uid: u32,
    /// Group, as it stands on the disk.
    pub gid: u32,
    /// Time of the last change of its content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Extended attributes of users, and access lists.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// What tells that an entry is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number on its file system.
    pub inode: u64,
    /// In bytes.
    pub size: u64,
    /// As in [`Meta`].
    pub mtime_ns: i64,
    /// Time of the last change of anything, in nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file.
    File,
    /// A link to this text.
    Link(PathBuf),
    /// A FIFO.
    Fifo,
    /// A socket: it means nothing without its process.
    Socket,
    /// A device: sandboxes cannot make one.
    Device,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Below the tree; empty for the tree itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// What belongs to it.
    pub meta: Meta,
    /// What tells that it is as it was.
    pub stamp: Stamp,
    /// Names that it has.
    pub links: u64,
}

/// How everything below a tree is opened.
fn below(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV)
}

/// The path as the kernel takes it below a tree: the tree itself is `.`.
fn relative(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Whether a path stays in its tree by its names alone.
#[must_use]
pub fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests;
