//! Extended attributes. Those of users and access lists are kept; the others
//! are the host's.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// What is kept begins so.
const KEPT: [&str; 2] = ["user.", "system.posix_acl_"];
/// Largest list of names and largest value, in bytes: linux/limits.h.
const MAX_BYTES: usize = 64 << 10;

/// Whether an attribute belongs to the user's files.
pub(super) fn is_kept(name: &str) -> bool {
    KEPT.iter().any(|prefix| name.starts_with(prefix))
}

/// A path that leads to an entry of an open directory, and no further: the
/// calls that are used do not follow a link in its last part.
fn path_in(dir: &impl AsFd, name: &Path) -> Result<CString, Errno> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_os_str().as_bytes());
    CString::new(path).map_err(|_| Errno::EINVAL)
}

/// The attributes of an entry of an open directory.
pub(super) fn read(dir: &impl AsFd, name: &Path) -> Result<Vec<(String, Vec<u8>)>, Errno> {
    let path = path_in(dir, name)?;
    let mut names = vec![0_u8; MAX_BYTES];
    // SAFETY: the path is a C string, and the kernel writes at most the length
    // of the buffer.
    let len = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let len = match Errno::result(len) {
        Ok(len) => usize::try_from(len).map_err(|_| Errno::EINVAL)?,
        // A file system without them.
        Err(Errno::EOPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    let kept = names[..len].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    let kept = kept.filter(|name| is_kept(name)).map(|name| Ok((name.to_owned(), value(&path, name)?)));
    kept.collect()
}

fn value(path: &CString, name: &str) -> Result<Vec<u8>, Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let mut value = vec![0_u8; MAX_BYTES];
    // SAFETY: path and name are C strings, and the kernel writes at most the
    // length of the buffer.
    let len = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(Errno::result(len)?).map_err(|_| Errno::EINVAL)?);
    Ok(value)
}

/// Gives an entry of an open directory attributes; the host's own are refused.
pub(super) fn write(dir: &impl AsFd, name: &Path, attributes: &[(String, Vec<u8>)]) -> Result<(), Errno> {
    for (attribute, value) in attributes {
        if !is_kept(attribute) {
            return Err(Errno::EPERM);
        }
        let path = path_in(dir, name)?;
        let attribute = CString::new(attribute.as_str()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: path and name are C strings; the kernel reads exactly the
        // length of the value.
        let rc = unsafe { libc::lsetxattr(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        Errno::result(rc)?;
    }
    Ok(())
}
