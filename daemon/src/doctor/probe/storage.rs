//! The file system of the root.

use std::path::Path;

use procfs::process::{MountInfo, Process};

use super::super::facts::StorageFacts;
use crate::host::{disk, quota};

/// What carries `path`, which must exist.
pub(super) fn look(path: &Path) -> StorageFacts {
    let mount = mount_of(path);
    let options = |mount: &MountInfo| {
        let all = mount.mount_options.iter().chain(&mount.super_options);
        all.map(|(name, value)| value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")))
            .collect()
    };
    let mut facts = StorageFacts {
        path: path.to_owned(),
        kind: mount.as_ref().map_or_else(|| "unknown".to_owned(), |mount| mount.fs_type.clone()),
        options: mount.as_ref().map(options).unwrap_or_default(),
        has_project_quota: quota::enforces_projects(path).ok(),
        ..StorageFacts::default()
    };
    if let Ok(space) = disk::space(path) {
        (facts.free_bytes, facts.size_bytes) = (space.free_bytes, space.total_bytes);
        (facts.free_inodes, facts.inodes) = (space.inodes_free.unwrap_or_default(), space.inodes);
    }
    facts
}

/// The mount that a path lies on: the last of those that hold it, as later
/// ones cover earlier ones.
fn mount_of(path: &Path) -> Option<MountInfo> {
    let path = path.canonicalize().ok()?;
    let table = Process::myself().and_then(|own| own.mountinfo()).ok()?;
    let holders = table.into_iter().filter(|mount| path.starts_with(&mount.mount_point));
    // The longest path wins; of equals the later.
    holders.max_by_key(|mount| mount.mount_point.as_os_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_quota_is_known_where_the_tests_lie() {
        let data = std::env::var_os("ROOST_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let facts = look(Path::new(&data));
        let is_on = facts.options.iter().any(|option| option == "prjquota" || option == "pquota");
        assert_eq!(facts.has_project_quota, Some(is_on), "{facts:?}");
    }

    #[test]
    fn proc_lies_on_proc_and_the_root_has_room() {
        assert_eq!(look(Path::new("/proc/self")).kind, "proc");
        let root = look(Path::new("/"));
        assert!(root.size_bytes > 0 && root.free_bytes <= root.size_bytes && root.kind != "unknown", "{root:?}");
    }
}
