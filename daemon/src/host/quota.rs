//! Project quota, as ext4 and XFS have it: the kernel bounds what the files of
//! a directory tree take, removed ones that are still open included.
//!
//! A tree is marked with the number of a project, which everything made in it
//! inherits. Only a process of the host's own user namespace can change the
//! mark, and overlayfs writes without the right to exceed a quota.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;

use super::Error;

/// `Q_XGETQSTATV` for project quotas, from linux/dqblk_xfs.h and
/// linux/quota.h. XFS's own command; ext4 answers it too.
const GET_PROJECT_STATE: libc::c_uint = ((('X' as u32) << 8 | 8) << 8) | PROJECT_QUOTA;
/// `PRJQUOTA`.
const PROJECT_QUOTA: libc::c_uint = 2;
/// `FS_QSTATV_VERSION1`.
const STATE_VERSION: i8 = 1;
/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced.
const PROJECTS_ENFORCED: u16 = 1 << 5;

/// `struct fs_quota_statv` of linux/dqblk_xfs.h; only its head is read.
#[repr(C)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u64; 20],
}

/// `Q_XSETQLIM` and `Q_XGETQUOTA` for project quotas, from linux/dqblk_xfs.h;
/// ext4 answers both.
const SET_LIMIT: libc::c_uint = ((('X' as u32) << 8 | 4) << 8) | PROJECT_QUOTA;
const GET_QUOTA: libc::c_uint = ((('X' as u32) << 8 | 3) << 8) | PROJECT_QUOTA;
/// `FS_DQUOT_VERSION`, and `FS_PROJ_QUOTA` among the flags of a quota.
const QUOTA_VERSION: i8 = 1;
const PROJECT_FLAG: i8 = 2;
/// `FS_DQ_IHARD | FS_DQ_BHARD`: both hard limits are set.
const HARD_LIMITS: u16 = 1 << 1 | 1 << 3;
/// Bytes of a block in a quota, whatever the file system.
const QUOTA_BLOCK_BYTES: u64 = 512;
/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`, from linux/fs.h.
const GET_ATTRIBUTES: libc::c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: libc::c_ulong = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made in the directory gets its project.
const INHERIT_PROJECT: u32 = 0x200;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `struct fs_disk_quota` of linux/dqblk_xfs.h.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    field_mask: u16,
    id: u32,
    blocks_hard: u64,
    blocks_soft: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    blocks: u64,
    inodes: u64,
    rest: [u64; 7],
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| Error::path("open", path, e))
}

fn quota_call<T>(dir: &File, command: libc::c_uint, id: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and `argument` is a structure of the
    // layout and size that the kernel reads or writes for `command`.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, dir.as_raw_fd(), command, id, std::ptr::from_mut(argument)) };
    Errno::result(result).map(drop)
}

fn attributes(dir: &File, command: libc::c_ulong, attributes: &mut Attributes) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and the kernel reads or writes exactly
    // the structure of these two commands.
    let result = unsafe { libc::ioctl(dir.as_raw_fd(), command as _, std::ptr::from_mut(attributes)) };
    Errno::result(result).map(drop)
}

/// Whether limits of projects are enforced on the file system at `path`.
/// False where there is no quota at all, or it only counts.
///
/// # Errors
/// That the path cannot be opened, or an unexpected refusal of the kernel.
pub fn enforces_projects(path: &Path) -> Result<bool, Error> {
    let dir = open(path)?;
    let mut state = State { version: STATE_VERSION, pad: 0, flags: 0, rest: [0; 20] };
    match quota_call(&dir, GET_PROJECT_STATE, 0, &mut state) {
        Ok(()) => Ok(state.flags & PROJECTS_ENFORCED != 0),
        // No quota in the kernel, in the file system, or turned on.
        Err(Errno::ENOSYS | Errno::ESRCH | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(false),
        Err(error) => Err(Error::path("ask for the project quota of", path, error)),
    }
}

/// Marks a directory: what is made in it from now on counts for `project`.
///
/// # Errors
/// What the kernel refuses.
pub fn mark(dir: &Path, project: u32) -> Result<(), Error> {
    let file = open(dir)?;
    let mut held = Attributes::default();
    let marked = attributes(&file, GET_ATTRIBUTES, &mut held).and_then(|()| {
        held.project = project;
        held.flags |= INHERIT_PROJECT;
        attributes(&file, SET_ATTRIBUTES, &mut held)
    });
    marked.map_err(|e| Error::path("set the project of", dir, e))
}

/// The project of a directory; 0 = none.
///
/// # Errors
/// That the path cannot be opened, or an unexpected refusal of the kernel.
pub fn project_of(dir: &Path) -> Result<u32, Error> {
    let mut held = Attributes::default();
    match attributes(&open(dir)?, GET_ATTRIBUTES, &mut held) {
        Ok(()) => Ok(held.project),
        // A file system without such attributes.
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => Ok(0),
        Err(error) => Err(Error::path("ask for the project of", dir, error)),
    }
}

/// Sets what a project may take on the file system of `path`: bytes and
/// inodes; 0 = no limit. A limit below what is in use refuses only more.
///
/// # Errors
/// What the kernel refuses.
pub fn set_limit(path: &Path, project: u32, bytes: u64, inodes: u64) -> Result<(), Error> {
    let mut quota = DiskQuota {
        version: QUOTA_VERSION,
        flags: PROJECT_FLAG,
        field_mask: HARD_LIMITS,
        id: project,
        blocks_hard: bytes / QUOTA_BLOCK_BYTES,
        inodes_hard: inodes,
        ..DiskQuota::default()
    };
    quota_call(&open(path)?, SET_LIMIT, project, &mut quota)
        .map_err(|e| Error::path("set the project quota below", path, e))
}

/// What a project may take and takes; 0 = no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In bytes.
    pub limit_bytes: u64,
    /// In bytes.
    pub used_bytes: u64,
    /// Most files and directories.
    pub inodes_limit: u64,
    /// Files and directories.
    pub inodes_used: u64,
}

/// What a project may take and takes on the file system of `path`.
///
/// # Errors
/// What the kernel refuses.
pub fn usage(path: &Path, project: u32) -> Result<Usage, Error> {
    let mut quota = DiskQuota::default();
    match quota_call(&open(path)?, GET_QUOTA, project, &mut quota) {
        Ok(()) => Ok(Usage {
            limit_bytes: quota.blocks_hard * QUOTA_BLOCK_BYTES,
            used_bytes: quota.blocks * QUOTA_BLOCK_BYTES,
            inodes_limit: quota.inodes_hard,
            inodes_used: quota.inodes,
        }),
        // XFS: nothing was ever counted for it.
        Err(Errno::ENOENT) => Ok(Usage::default()),
        Err(error) => Err(Error::path("ask for the project quota below", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options with which the file system at `path` is mounted.
    fn mount_options(path: &Path) -> String {
        let output = std::process::Command::new("findmnt").args(["-no", "OPTIONS", "-T"]).arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn projects_are_enforced_where_the_mount_says_so_and_nowhere_else() {
        let data = std::env::var_os("ROOST_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        for path in [Path::new(&data), Path::new("/proc"), Path::new("/")] {
            let options = mount_options(path);
            let expected = options.trim().split(',').any(|o| o == "prjquota" || o == "pquota");
            assert_eq!(enforces_projects(path).unwrap(), expected, "{}: {options}", path.display());
        }
    }

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Attributes>(), size_of::<DiskQuota>(), size_of::<State>()), (28, 112, 168));
    }

    #[test]
    fn a_directory_without_a_mark_has_no_project() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(project_of(dir.path()).unwrap(), 0);
        assert_eq!(project_of(Path::new("/proc")).unwrap(), 0);
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error() {
        assert!(enforces_projects(Path::new("/nowhere")).is_err());
    }
}
