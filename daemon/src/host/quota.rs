//! Whether a file system can bound what a directory tree takes: project
//! quota, as ext4 and XFS have it.

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

/// Whether limits of projects are enforced on the file system at `path`.
/// False where there is no quota at all, or it only counts.
///
/// # Errors
/// That the path cannot be opened, or an unexpected refusal of the kernel.
pub fn enforces_projects(path: &Path) -> Result<bool, Error> {
    let dir = File::open(path).map_err(|e| Error::path("open", path, e))?;
    let mut state = State { version: STATE_VERSION, pad: 0, flags: 0, rest: [0; 20] };
    // SAFETY: the descriptor is open, and `state` is writable and not smaller
    // than the kernel's structure of 160 bytes.
    let result = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, dir.as_raw_fd(), GET_PROJECT_STATE, 0, std::ptr::from_mut(&mut state))
    };
    match Errno::result(result) {
        Ok(_) => Ok(state.flags & PROJECTS_ENFORCED != 0),
        // No quota in the kernel, in the file system, or turned on.
        Err(Errno::ENOSYS | Errno::ESRCH | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(false),
        Err(error) => Err(Error::path("ask for the project quota of", path, error)),
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
    fn a_path_that_is_not_there_is_an_error() {
        assert!(enforces_projects(Path::new("/nowhere")).is_err());
    }
}
