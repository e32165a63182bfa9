//! Rules about cgroups, memory and disk.

use super::super::facts::{HostFacts, Trial};
use super::{Finding, gib};
use crate::host::cgroup::Version;

/// Controllers that every sandbox needs.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Below this much room beyond the reserve, sandboxes and images do not fit,
/// in bytes.
const LITTLE_SPACE_BYTES: u64 = 10 << 30;
/// Inodes of one image with a desktop, and as many for its sandboxes.
const LITTLE_INODES: u64 = 500_000;
/// File systems that carry the writable side of an overlay, and id-mapped
/// mounts.
const GOOD_FILE_SYSTEMS: [&str; 5] = ["ext4", "xfs", "btrfs", "tmpfs", "zfs"];

pub(super) fn controllers(facts: &HostFacts) -> Finding {
    let cgroup = &facts.cgroup;
    let missing: Vec<_> =
        CONTROLLERS.into_iter().filter(|name| !cgroup.controllers.iter().any(|have| have == name)).collect();
    let found = format!("cgroup {}: {}", cgroup.version.as_str(), cgroup.controllers.join(" "));
    if missing.is_empty() {
        return Finding::ok(found);
    }
    let command_line = &facts.kernel.command_line;
    let advice = if missing.contains(&"memory") && command_line.contains("cgroup_disable=memory") {
        "remove cgroup_disable=memory from the kernel command line (/etc/default/grub, update-grub, reboot)".to_owned()
    } else if cgroup.version == Version::V2 {
        format!(
            "echo '+{}' > /sys/fs/cgroup/cgroup.subtree_control (in a pod: privileged, with the host's cgroup namespace)",
            missing.join(" +")
        )
    } else {
        "boot with systemd.unified_cgroup_hierarchy=1, or mount the controllers under /sys/fs/cgroup".to_owned()
    };
    Finding::fail(format!("{found}; without {}", missing.join(", ")), advice)
}

pub(super) fn cgroup_limits(facts: &HostFacts) -> Finding {
    match &facts.trials.cgroup {
        Trial::Works => Finding::ok("memory and process limits hold"),
        Trial::Skipped(why) => Finding::warn(format!("not tried: {why}"), "run it as root, with all controllers"),
        Trial::Fails(error) => Finding::fail(
            format!("cannot be set: {error}"),
            "the daemon must be able to write below /sys/fs/cgroup (in a pod: privileged, cgroup of the host)",
        ),
    }
}

pub(super) fn pressure(facts: &HostFacts) -> Finding {
    if facts.kernel.has_psi {
        return Finding::ok("/proc/pressure is there");
    }
    Finding::warn(
        "no pressure stall information",
        "boot with psi=1 (CONFIG_PSI): a node under pressure is noticed by its free memory only",
    )
}

pub(super) fn swap(facts: &HostFacts) -> Finding {
    match (facts.memory.swap_bytes, facts.cgroup.has_swap_limit) {
        (0, _) => Finding::ok("none"),
        (bytes, true) => Finding::ok(format!("{}; sandboxes are kept from it", gib(bytes))),
        (bytes, false) => Finding::warn(
            format!("{}, and the kernel cannot limit it for a cgroup", gib(bytes)),
            "boot with swapaccount=1, or swapoff -a: a sandbox can use more than its memory limit",
        ),
    }
}

pub(super) fn file_system(facts: &HostFacts) -> Finding {
    let storage = &facts.storage;
    let found = format!("{} at {}", storage.kind, storage.path.display());
    if storage.kind == "overlay" || !GOOD_FILE_SYSTEMS.contains(&storage.kind.as_str()) {
        let advice = "put `root` on ext4, xfs or btrfs (in a pod: a hostPath): changed files of sandboxes lie there";
        return if matches!(facts.trials.idmapped_overlay, Trial::Works) {
            Finding::warn(format!("{found}: not tested"), advice)
        } else {
            Finding::fail(found, advice)
        };
    }
    if storage.options.iter().any(|option| option == "ro") {
        return Finding::fail(format!("{found}, read-only"), "mount it writable");
    }
    if storage.kind == "tmpfs" {
        return Finding::warn(found, "put `root` on a disk: a reboot loses every sandbox and the node's identity");
    }
    Finding::ok(found)
}

pub(super) fn space(facts: &HostFacts) -> Finding {
    let storage = &facts.storage;
    let found = match storage.inodes {
        0 => format!("{} of {} free", gib(storage.free_bytes), gib(storage.size_bytes)),
        _ => format!(
            "{} of {} and {} inodes free",
            gib(storage.free_bytes),
            gib(storage.size_bytes),
            storage.free_inodes
        ),
    };
    let path = storage.path.display();
    if storage.free_bytes < facts.subject.reserved_disk_bytes {
        return Finding::fail(
            found,
            format!(
                "free some: the reserve of {} (reserved.disk_bytes) is not there at {path}",
                gib(facts.subject.reserved_disk_bytes)
            ),
        );
    }
    if storage.free_bytes < facts.subject.reserved_disk_bytes.saturating_add(LITTLE_SPACE_BYTES) {
        return Finding::warn(
            found,
            format!("free some at {path}: images and sandboxes want 10 GiB beyond the reserve"),
        );
    }
    if storage.inodes > 0 && storage.free_inodes < LITTLE_INODES {
        return Finding::warn(
            found,
            format!("remove small files at {path}, or make the file system anew with more inodes"),
        );
    }
    Finding::ok(found)
}

/// What the kernel enforces counts: a mount option alone may only count, or
/// be of another kind.
pub(super) fn quota(facts: &HostFacts) -> Finding {
    match facts.storage.has_project_quota {
        Some(true) => Finding::ok(format!("{} project quota", facts.storage.kind)),
        _ if !facts.devices.has_loop => Finding::warn(
            "neither project quota nor loop devices",
            "mount the file system of `root` with prjquota, or modprobe loop: disk limits cannot be held",
        ),
        _ if !facts.programs.contains_key("mkfs.ext4") => Finding::warn(
            "no project quota, and mkfs.ext4 is not installed",
            "apt-get install e2fsprogs: disk limits cannot be held",
        ),
        _ => Finding::ok("loop-mounted file systems"),
    }
}
