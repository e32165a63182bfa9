//! The kernel, its numbers, memory and security modules.

use std::collections::BTreeMap;
use std::path::Path;

use procfs::{Current, Meminfo};

use super::super::facts::{IdRange, KernelFacts, MemoryFacts, SecurityFacts};
use super::super::judge::SYSCTLS;

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

pub(super) fn look() -> KernelFacts {
    KernelFacts {
        hostname: read("/proc/sys/kernel/hostname").unwrap_or_default(),
        release: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        architecture: std::env::consts::ARCH.into(),
        command_line: read("/proc/cmdline").unwrap_or_default(),
        is_root: nix::unistd::geteuid().is_root(),
        // The file is there with psi=0, too, and cannot be read.
        has_psi: read("/proc/pressure/memory").is_some(),
    }
}

pub(super) fn sysctls() -> BTreeMap<&'static str, u64> {
    let value = |name: &'static str| {
        let text = read(&format!("/proc/sys/{}", name.replace('.', "/")))?;
        Some((name, text.parse().ok()?))
    };
    SYSCTLS.into_iter().filter_map(value).collect()
}

pub(super) fn memory() -> MemoryFacts {
    Meminfo::current()
        .map(|memory| MemoryFacts { total_bytes: memory.mem_total, swap_bytes: memory.swap_total })
        .unwrap_or_default()
}

pub(super) fn security() -> SecurityFacts {
    SecurityFacts {
        has_seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        has_apparmor: read("/sys/module/apparmor/parameters/enabled").is_some_and(|text| text == "Y"),
        is_selinux_enforcing: read("/sys/fs/selinux/enforce").is_some_and(|text| text == "1"),
    }
}

/// Lines of `/etc/subuid` and `/etc/subgid`: owner, first id, count.
pub(super) fn subordinate_ids() -> Vec<IdRange> {
    let files = ["/etc/subuid", "/etc/subgid"];
    files.into_iter().flat_map(|file| ranges(file, &read(file).unwrap_or_default())).collect()
}

fn ranges(file: &'static str, text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().filter(|owner| !owner.is_empty() && !owner.starts_with('#'))?.to_owned();
        Some(IdRange { file, owner, first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? })
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_read_and_comments_are_not() {
        let found = ranges("/etc/subuid", "# c\nanna:100000:65536\nbroken\n\nben:165536:x\n");
        assert_eq!(found, [IdRange { file: "/etc/subuid", owner: "anna".into(), first: 100_000, count: 65_536 }]);
    }

    #[test]
    fn the_numbers_of_this_kernel_are_read() {
        assert!(sysctls().get("kernel.pid_max").is_some_and(|&max| max >= 301));
        assert!(crate::host::limits::nofile_hard() > 0 && memory().total_bytes > 0);
    }
}
