//! Names of an archive.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{MAX_DEPTH, TreeError};

/// A name as its parts, `.` left out; none for the top itself.
///
/// # Errors
/// What could lead out of the tree.
pub(super) fn parts(name: &[u8]) -> Result<Vec<OsString>, TreeError> {
    let refused = |reason| Err(TreeError::refused(shown(name), reason));
    if name.first() == Some(&b'/') {
        return refused("its name is absolute");
    }
    if name.contains(&0) {
        return refused("its name has a zero byte");
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return refused("its name has `..`"),
            part => parts.push(OsString::from_vec(part.to_vec())),
        }
    }
    if parts.len() > MAX_DEPTH {
        return refused("it lies too deep");
    }
    Ok(parts)
}

/// A name for people.
pub(super) fn shown(name: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(name))
}

/// Whether a path names a directory by its form alone.
pub(super) fn wants_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"."
}
