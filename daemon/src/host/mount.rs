//! Mounting: tmpfs, bind, idmapped clones, propagation, removal.
//!
//! All mounts of the daemon lie under one root with shared propagation, so
//! that containerd sees them from its own mount namespace.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Error, c_path};

/// Options of a tmpfs.
#[derive(Debug, Clone, Copy)]
pub struct Tmpfs {
    /// Most bytes that it holds.
    pub size_bytes: u64,
    /// Mode of its root directory.
    pub mode: u32,
    /// Owner of its root directory, as the host counts.
    pub uid: u32,
    /// Group of its root directory, as the host counts.
    pub gid: u32,
}

/// Mounts a tmpfs; the directory must exist.
///
/// # Errors
/// What the kernel refuses.
pub fn mount_tmpfs(target: &Path, options: Tmpfs) -> Result<(), Error> {
    let Tmpfs { size_bytes, mode, uid, gid } = options;
    let data = format!("size={size_bytes},mode={mode:o},uid={uid},gid={gid},huge=never");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let attempt = |data: &str| mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(data));
    // Kernels without transparent huge pages refuse the `huge` option.
    attempt(&data)
        .or_else(|_| attempt(data.trim_end_matches(",huge=never")))
        .map_err(|e| Error::path("mount tmpfs on", target, e))
}

/// Changes the size of a tmpfs that is in use, also where it is bound to other
/// places; false if more than that is in it.
///
/// # Errors
/// What the kernel refuses for another reason.
pub fn resize_tmpfs(target: &Path, size_bytes: u64) -> Result<bool, Error> {
    // A remount without them would clear the flags of this mount.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let used = super::disk::space(target)?.used_bytes;
    let data = format!("size={size_bytes}");
    match mount(None::<&str>, target, None::<&str>, flags, Some(data.as_str())) {
        Ok(()) => Ok(true),
        // mm/shmem.c says EINVAL to a size below what is in use.
        Err(nix::Error::EINVAL) if used > size_bytes => Ok(false),
        Err(e) => Err(Error::path("resize tmpfs on", target, e)),
    }
}

/// Makes `target` show `source`.
///
/// # Errors
/// What the kernel refuses.
pub fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| Error::path("bind mount on", target, e))
}

/// Removes the topmost mount on `target`; nothing mounted there is success.
///
/// The mount vanishes at once from the tree, its users keep what they opened.
///
/// # Errors
/// What the kernel refuses.
pub fn unmount(target: &Path) -> Result<(), Error> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(e) => Err(Error::path("unmount", target, e)),
    }
}

/// Mount points at or below `root`, in mount order.
///
/// # Errors
/// When the mount table cannot be read.
pub fn mounts_under(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let table = mount_table()?;
    Ok(table.into_iter().map(|m| m.mount_point).filter(|p| p.starts_with(root)).collect())
}

fn mount_table() -> Result<Vec<procfs::process::MountInfo>, Error> {
    let read = || procfs::process::Process::myself()?.mountinfo();
    let table = read().map_err(|e| Error::call("read the mount table", std::io::Error::other(e)))?;
    Ok(table.into_iter().collect())
}

/// Whether mounts made under `path` are passed on to other mount namespaces.
///
/// # Errors
/// When the mount table cannot be read.
pub fn is_shared(path: &Path) -> Result<bool, Error> {
    // Later mounts cover earlier ones: the last that holds the path counts.
    let holder = mount_table()?.into_iter().rfind(|m| path.starts_with(&m.mount_point));
    let is_shared = |field: &_| matches!(field, procfs::process::MountOptFields::Shared(_));
    Ok(holder.is_some_and(|m| m.opt_fields.iter().any(is_shared)))
}

/// Whether both processes live in one mount namespace.
///
/// # Errors
/// When either cannot be read.
pub fn same_mount_namespace(pid: u32) -> Result<bool, Error> {
    let read = |path: PathBuf| std::fs::read_link(&path).map_err(|e| Error::path("read", path, e));
    Ok(read("/proc/self/ns/mnt".into())? == read(format!("/proc/{pid}/ns/mnt").into())?)
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_IDMAP`, include/uapi/linux/mount.h.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// `MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_NOSUID` and `MOUNT_ATTR_NODEV`,
/// include/uapi/linux/mount.h.
const MOUNT_ATTR_RDONLY: u64 = 0x0000_0001;
const MOUNT_ATTR_NOSUID: u64 = 0x0000_0002;
const MOUNT_ATTR_NODEV: u64 = 0x0000_0004;

/// Clones the mount of `source` with the id mapping of a user namespace and
/// attaches the clone at `target`, read-only.
///
/// Files keep their owners on disk; through the clone, owner 0 is the root of
/// that namespace. Needs Linux 5.12 (5.19 as an overlay's lower directory).
///
/// # Errors
/// What the kernel refuses, e.g. a file system without idmapped mounts.
pub fn attach_idmapped(source: &Path, target: &Path, user_namespace: BorrowedFd<'_>) -> Result<(), Error> {
    move_mount(&clone_idmapped(source, user_namespace, MOUNT_ATTR_RDONLY, 0)?, target)
}

/// A detached clone of the directory `source` with the id mapping of a user
/// namespace, for data: without devices and set-user-id programs, and deaf to
/// what is mounted elsewhere.
///
/// # Errors
/// What the kernel refuses, e.g. a file system without idmapped mounts.
pub(super) fn clone_data(source: &Path, user_namespace: BorrowedFd<'_>, read_only: bool) -> Result<OwnedFd, Error> {
    let read_only = if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | read_only;
    clone_idmapped(source, user_namespace, attributes, libc::MS_PRIVATE)
}

fn clone_idmapped(
    source: &Path,
    user_namespace: BorrowedFd<'_>,
    attributes: u64,
    propagation: u64,
) -> Result<OwnedFd, Error> {
    let clone = open_tree(source)?;
    let userns_fd =
        u64::try_from(user_namespace.as_raw_fd()).map_err(|_| Error::path("id-map", source, nix::Error::EBADF))?;
    let attr = MountAttr { attr_set: MOUNT_ATTR_IDMAP | attributes, attr_clr: 0, propagation, userns_fd };
    // SAFETY: the descriptor is open, the path is an empty C string, and the
    // kernel reads exactly the size of the struct that it is given.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if rc == 0 { Ok(clone) } else { Err(Error::path("id-map", source, std::io::Error::last_os_error())) }
}

/// `open_tree(2)` with a detached clone as the result.
fn open_tree(source: &Path) -> Result<OwnedFd, Error> {
    let path = c_path(source)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a valid C string; the result is checked before use.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    match i32::try_from(fd) {
        // SAFETY: a non-negative result is a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Error::path("clone the mount of", source, std::io::Error::last_os_error())),
    }
}

/// `move_mount(2)` of a detached mount to a path.
fn move_mount(detached: &OwnedFd, target: &Path) -> Result<(), Error> {
    let path = c_path(target)?;
    // SAFETY: both C strings are valid and the descriptor is open.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            detached.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if rc == 0 { Ok(()) } else { Err(Error::path("attach a mount on", target, std::io::Error::last_os_error())) }
}
