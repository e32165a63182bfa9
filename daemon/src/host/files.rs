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

/// Checks that everybody may pass through a directory and those above it: to
/// the ids of a sandbox, the way to its root file system belongs to strangers.
///
/// # Errors
/// The directory that is closed, and how to open it.
pub fn require_traversable(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    for ancestor in dir.ancestors() {
        let mode = std::fs::metadata(ancestor).map_err(|e| Error::path("look at", ancestor, e))?.permissions().mode();
        if mode & 0o001 == 0 {
            let path = ancestor.display();
            return Err(Error::Unfit(format!(
                "{path} is closed to others (mode {:o}) and sandboxes must pass through it: chmod o+x {path}, or choose \
                 another root",
                mode & 0o7777
            )));
        }
    }
    Ok(())
}

/// Gives a path to an owner; a link itself, never what it points to.
///
/// # Errors
/// What the kernel refuses.
pub fn chown(path: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(|e| Error::path("chown", path, e))
}

/// Gives a directory to an owner if it is empty and root's still: nobody has
/// used it yet.
///
/// # Errors
/// What the kernel refuses.
pub fn adopt_empty_dir(path: &Path, owner: (u32, u32)) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let facts = path.symlink_metadata().map_err(|e| Error::path("look at", path, e))?;
    let mut entries = std::fs::read_dir(path).map_err(|e| Error::path("read", path, e))?;
    if facts.uid() == 0 && facts.gid() == 0 && entries.next().is_none() {
        return chown(path, owner.0, owner.1);
    }
    Ok(())
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

/// Removes a tree without following links; none there is success. No process
/// may change it meanwhile.
///
/// The tree may be hostile: deeper than any stack or table of descriptors. So
/// each directory is moved up to the top before it is looked into, and neither
/// recursion nor path length grows with the depth. Something mounted in the
/// tree makes this fail, and is not entered.
///
/// # Errors
/// What the kernel refuses.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    let is_dir = match path.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.map_err(|e| Error::path("look at", path, e))?.is_dir(),
    };
    if !is_dir {
        return std::fs::remove_file(path).map_err(|e| Error::path("remove", path, e));
    }
    let mut moved = 0_u64;
    // Until a pass finds nothing: entries may be skipped while others move.
    while remove_files_of(path, |sub| flatten(path, sub, &mut moved))? {}
    remove_dir(path)
}

/// Empties a directory two levels below which everything is moved to `top`.
fn flatten(top: &Path, dir: &Path, moved: &mut u64) -> Result<(), Error> {
    let mut lift = |sub: &Path| {
        *moved += 1;
        let target = top.join(format!(".roost-removed-{:016x}-{moved}", rand::random::<u64>()));
        std::fs::rename(sub, target).map_err(|e| Error::path("move", sub, e))
    };
    while remove_files_of(dir, &mut lift)? {}
    remove_dir(dir)
}

/// Removes the files of a directory and hands its directories to `sub`; false
/// if it was empty.
fn remove_files_of(dir: &Path, mut sub: impl FnMut(&Path) -> Result<(), Error>) -> Result<bool, Error> {
    let mut found = false;
    for entry in std::fs::read_dir(dir).map_err(|e| Error::path("read", dir, e))? {
        let entry = entry.map_err(|e| Error::path("read", dir, e))?;
        let path = entry.path();
        found = true;
        if entry.file_type().map_err(|e| Error::path("look at", &path, e))?.is_dir() {
            sub(&path)?;
        } else {
            std::fs::remove_file(&path).map_err(|e| Error::path("remove", &path, e))?;
        }
    }
    Ok(found)
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

/// Puts a file with this content, mode and owner (uid, gid) in the place of
/// what is there, whole or not at all: readers see the old one or the new one.
/// The directory must be the daemon's own.
///
/// # Errors
/// When the system refuses.
pub fn replace(path: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    write(&new, content, mode)?;
    chown(&new, owner.0, owner.1)?;
    std::fs::rename(&new, path).map_err(|e| Error::path("replace", path, e))
}

/// Makes a FIFO with this mode and owner (uid, gid), unless it is there.
///
/// # Errors
/// When the system refuses.
pub fn create_fifo(path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), Error> {
    match nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(mode)) {
        Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(Error::path("make FIFO", path, error)),
        Ok(()) => chown(path, owner.0, owner.1),
    }
}

/// Gives a file that is there other content, in place: for files that are
/// mounted somewhere by themselves.
///
/// # Errors
/// When the system refuses, and when there is no such file.
pub fn rewrite(path: &Path, content: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().write(true).truncate(true).open(path);
    file.and_then(|mut file| file.write_all(content)).map_err(|e| Error::path("rewrite", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_without_following_links() {
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        let kept = top.path().join("kept");
        std::fs::write(&kept, "").unwrap();
        // Built from the inside out: a path of this depth cannot be named.
        std::fs::create_dir(&tree).unwrap();
        for _ in 0..5_000 {
            let outer = top.path().join("outer");
            std::fs::create_dir(&outer).unwrap();
            std::os::unix::fs::symlink(&kept, outer.join("link")).unwrap();
            std::fs::rename(&tree, outer.join("d")).unwrap();
            std::fs::rename(&outer, &tree).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named_with_the_fix() {
        let top = tempfile::tempdir().unwrap();
        let below = top.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        set_mode(top.path(), 0o711).unwrap();
        require_traversable(&below).unwrap();
        set_mode(&top.path().join("a"), 0o700).unwrap();
        let error = require_traversable(&below).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod o+x {}/a", top.path().display())), "{error}");
    }
}
