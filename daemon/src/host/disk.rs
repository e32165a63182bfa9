//! Room on a file system.

use std::path::Path;

use super::Error;

/// What a file system has, as a process without privileges may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// In bytes.
    pub free_bytes: u64,
    /// What programs use of it, in bytes.
    pub used_bytes: u64,
    /// None where the file system makes inodes as it needs them.
    pub inodes_free: Option<u64>,
    /// All inodes; 0 where they are not counted.
    pub inodes: u64,
}

/// Takes room on the disk for `bytes` beyond the end of a file, whose length
/// stays. Nothing is done where the file system cannot.
///
/// # Errors
/// That there is no room.
pub fn reserve_behind(file: &std::fs::File, bytes: u64) -> std::io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let offset = |bytes: u64| i64::try_from(bytes).map_err(|_| std::io::Error::from(nix::Error::EFBIG));
    let end = file.metadata()?.len();
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset(end)?, offset(bytes)?) {
        Ok(()) | Err(nix::Error::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Room on the file system that holds `path`.
///
/// # Errors
/// When nothing is there.
pub fn space(path: &Path) -> Result<DiskSpace, Error> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|e| Error::path("ask for the free space of", path, e))?;
    Ok(DiskSpace {
        total_bytes: stat.blocks().saturating_mul(stat.fragment_size()),
        free_bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
        used_bytes: stat.blocks().saturating_sub(stat.blocks_free()).saturating_mul(stat.fragment_size()),
        inodes_free: (stat.files() > 0).then(|| stat.files_available()),
        inodes: stat.files(),
    })
}
