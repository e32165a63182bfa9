//! Processes and memory of sandboxes, by their cgroups, on v1 and v2.

use std::path::{Path, PathBuf};

use roost_tests::Result;

/// Where the controllers are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The containers of a sandbox, as their cgroups are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The X server.
    Display,
    /// Everything that the user's image runs.
    Workload,
}

impl Role {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Display, Self::Workload];

    fn as_str(self) -> &'static str {
        match self {
            Self::Display => "display",
            Self::Workload => "workload",
        }
    }
}

/// The directory of a cgroup where a controller has it: v1 has a hierarchy
/// per controller, v2 one for all.
fn dir(controller: &str, path: &str) -> PathBuf {
    let v1 = Path::new(MOUNT).join(controller).join(path);
    if v1.is_dir() { v1 } else { Path::new(MOUNT).join(path) }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()).into())
}

/// Process ids of one container, in order.
///
/// # Errors
/// When it does not run.
pub(crate) fn pids(parent: &str, sandbox_id: &str, role: Role) -> Result<Vec<u32>> {
    let path = dir("pids", &format!("{parent}/{sandbox_id}/{}", role.as_str())).join("cgroup.procs");
    let mut pids = read(&path)?.lines().map(str::parse).collect::<std::result::Result<Vec<u32>, _>>()?;
    if pids.is_empty() {
        return Err(format!("{} names no process", path.display()).into());
    }
    pids.sort_unstable();
    Ok(pids)
}

/// Shared memory and tmpfs pages charged to a cgroup and those below it, in
/// bytes.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn shmem_bytes(path: &str) -> Result<u64> {
    let stat = read(&dir("memory", path).join("memory.stat"))?;
    let found = value(&stat, "total_shmem").or_else(|| value(&stat, "shmem"));
    found.ok_or_else(|| format!("memory.stat of {path} has no shmem").into())
}

/// Kernel memory (slab, page tables, stacks, cgroups) charged to a cgroup and
/// those below it, in bytes; none where the kernel does not tell.
pub(crate) fn kernel_bytes(path: &str) -> Option<u64> {
    let dir = dir("memory", path);
    let v1 = std::fs::read_to_string(dir.join("memory.kmem.usage_in_bytes")).ok();
    let v2 = || value(&std::fs::read_to_string(dir.join("memory.stat")).ok()?, "kernel");
    v1.and_then(|text| text.trim().parse().ok()).or_else(v2)
}

/// A value of a text of `key value` lines.
fn value(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_whole_name() {
        let stat = "cache 1\nshmem 2\nshmem_thp 3\ntotal_shmem 4\n";
        assert_eq!(value(stat, "shmem"), Some(2));
        assert_eq!(value(stat, "total_shmem"), Some(4));
        assert_eq!(value(stat, "kernel"), None);
    }

    #[test]
    fn a_container_that_does_not_run_is_an_error() {
        assert!(pids("roost-none", "sbx-none", Role::Display).is_err());
    }
}
