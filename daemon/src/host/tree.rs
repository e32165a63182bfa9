//! How much disk a sandbox holds: the tree of what it changed, and files that
//! it removed while they are open.
//!
//! The tree is hostile and changes while it is read: every step is relative to
//! an open directory and follows no link.

use std::collections::HashSet;
use std::fs::{File, ReadDir};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use super::Error;

/// Deepest tree that is measured: far beyond what programs make, and two
/// descriptors a level.
const MAX_DEPTH: usize = 128;
/// Bytes of a block in `st_blocks`, whatever the file system: stat(2).
const BLOCK_BYTES: u64 = 512;

/// Bytes on disk of a tree; [`u64::MAX`] if it is too deep to be measured.
///
/// # Errors
/// When its top cannot be read; what vanishes meanwhile is not counted.
pub fn disk_bytes(top: &Path) -> Result<u64, Error> {
    let (dir, entries) = open(top).map_err(|e| Error::path("measure", top, e))?;
    let mut linked = HashSet::new();
    let mut total = 0_u64;
    let mut stack = vec![(dir, entries)];
    while let Some((dir, entries)) = stack.last_mut() {
        let Some(entry) = entries.next() else {
            stack.pop();
            continue;
        };
        // Both are asked relative to the open directory, links not followed.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.nlink() == 1 || metadata.is_dir() || linked.insert(metadata.ino()) {
            total = total.saturating_add(metadata.blocks().saturating_mul(BLOCK_BYTES));
        }
        if metadata.is_dir() {
            let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(entry.file_name());
            let Ok(below) = open(&path) else { continue };
            if stack.len() >= MAX_DEPTH {
                return Ok(u64::MAX);
            }
            stack.push(below);
        }
    }
    Ok(total)
}

/// A directory that is none by now, or a link, is refused.
fn open(path: &Path) -> std::io::Result<(File, ReadDir)> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let dir = File::options().read(true).custom_flags(flags).open(path)?;
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    Ok((dir, entries))
}

/// Bytes on disk of files that processes hold open or mapped and that have no
/// name any more: on the file system of `upper`, or on an overlay, whose files
/// show a device of nobody. Processes that end meanwhile are not counted.
#[must_use]
pub fn unlinked_bytes(process_ids: &[i32], upper: &Path) -> u64 {
    let device = upper.metadata().ok().map(|metadata| metadata.dev());
    let is_overlay = |path: &Path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
    let mut seen = HashSet::new();
    let mut total = 0_u64;
    for (pid, table) in process_ids.iter().flat_map(|pid| ["fd", "map_files"].map(|table| (pid, table))) {
        let entries = std::fs::read_dir(format!("/proc/{pid}/{table}")).into_iter().flatten().flatten();
        // Followed: the kernel's links lead to the open files themselves.
        for path in entries.map(|entry| entry.path()) {
            let Ok(metadata) = path.metadata() else { continue };
            let is_unlinked = metadata.is_file() && metadata.nlink() == 0;
            let is_on_disk = || device == Some(metadata.dev()) || is_overlay(&path);
            if is_unlinked && is_on_disk() && seen.insert((metadata.dev(), metadata.ino())) {
                total = total.saturating_add(metadata.blocks().saturating_mul(BLOCK_BYTES));
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_are_counted_once_and_links_are_not_followed() {
        let (top, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |path: &Path| std::fs::write(path, vec![1; 1 << 20]).unwrap();
        write(&outside.path().join("big"));
        std::os::unix::fs::symlink(outside.path(), top.path().join("link")).unwrap();
        std::fs::create_dir_all(top.path().join("a/b")).unwrap();
        write(&top.path().join("a/b/one"));
        std::fs::hard_link(top.path().join("a/b/one"), top.path().join("same")).unwrap();
        let bytes = disk_bytes(top.path()).unwrap();
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert!(disk_bytes(&top.path().join("nothing")).is_err());
    }

    #[test]
    fn a_tree_too_deep_to_be_measured_counts_as_the_largest() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("d/".repeat(MAX_DEPTH + 1))).unwrap();
        assert_eq!(disk_bytes(top.path()).unwrap(), u64::MAX);
    }

    #[test]
    fn a_removed_file_that_is_open_still_counts() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("hidden");
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let own = [i32::try_from(std::process::id()).unwrap()];
        std::fs::remove_file(&path).unwrap();
        assert!(unlinked_bytes(&own, top.path()) >= 1 << 20);
        drop(file);
        assert!(unlinked_bytes(&own, top.path()) < 1 << 20);
    }
}
