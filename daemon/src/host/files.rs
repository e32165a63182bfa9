//! Small files and directories, with the owner and mode they need.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Error;

/// Makes a directory; one that exists is success.
///
/// # Errors
/// What the kernel refuses.
pub fn create_dir(path: &Path, mode: u32) -> Result<(), Error> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|e| Error::path("create directory", path, e)),
    }
}

/// Makes a directory that belongs to ids of a sandbox.
///
/// # Errors
/// What the kernel refuses.
pub fn create_owned_dir(path: &Path, mode: u32, uid: u32, gid: u32) -> Result<(), Error> {
    create_dir(path, mode)?;
    chown(path, uid, gid)
}

/// Sets the mode of a path.
///
/// # Errors
/// What the kernel refuses.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| Error::path("chmod", path, e))
}

/// Gives a path to an owner; a link itself, never what it points to.
///
/// # Errors
/// What the kernel refuses.
pub fn chown(path: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(|e| Error::path("chown", path, e))
}

/// Removes an empty directory; none there is success.
///
/// # Errors
/// What the kernel refuses.
pub fn remove_dir(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map_err(|e| Error::path("remove directory", path, e)),
    }
}

/// Removes a tree without following links; none there is success. Nothing
/// may be mounted below it.
///
/// # Errors
/// What the kernel refuses.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map_err(|e| Error::path("remove", path, e)),
    }
}

/// Writes a new file; an older one is replaced, a link there is not followed.
///
/// # Errors
/// What the kernel refuses.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    use std::io::Write;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::path("replace", path, e)),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|e| Error::path("create", path, e))?;
    file.write_all(content).map_err(|e| Error::path("write", path, e))
}

/// Bytes in use on the file system mounted at `path`.
///
/// # Errors
/// When nothing is there.
pub fn used_bytes(path: &Path) -> Result<u64, Error> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|e| Error::path("ask for the usage of", path, e))?;
    Ok(stat.blocks().saturating_sub(stat.blocks_free()).saturating_mul(stat.fragment_size()))
}
