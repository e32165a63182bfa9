//! Rules about the kernel itself.

use super::super::facts::{HostFacts, Trial};
use super::{Finding, version};

/// Oldest kernel with id-mapped layers below an overlay.
const MIN_KERNEL: (u32, u32) = (5, 19);
/// Fewest namespaces of a kind that one id must be allowed: a sandbox makes
/// one of each, a browser in it a few per tab.
const MIN_NAMESPACES: u64 = 1000;

pub(super) fn root(facts: &HostFacts) -> Finding {
    if facts.kernel.is_root {
        return Finding::ok("yes");
    }
    Finding::fail("no: half of the checks could not be made", "run it as root: sudo roost doctor")
}

pub(super) fn kernel(facts: &HostFacts) -> Finding {
    let release = &facts.kernel.release;
    let found = format!("{release} {}", facts.kernel.architecture);
    match version(release) {
        Some(known) if known < MIN_KERNEL => Finding::fail(
            found,
            "install Linux 5.19 or newer (Debian 12 has 6.1): id-mapped layers below an overlay are not there before",
        ),
        Some(_) => Finding::ok(found),
        None => Finding::warn(found, "the release has no version that is known; Linux 5.19 or newer is needed"),
    }
}

pub(super) fn namespaces(facts: &HostFacts) -> Finding {
    const KINDS: [&str; 5] = [
        "user.max_user_namespaces",
        "user.max_net_namespaces",
        "user.max_ipc_namespaces",
        "user.max_mnt_namespaces",
        "user.max_pid_namespaces",
    ];
    let lowest = KINDS.iter().filter_map(|name| Some((facts.sysctls.get(name)?, *name))).min();
    match (&facts.trials.namespaces, lowest) {
        (Trial::Fails(error), lowest) => Finding::fail(
            format!("cannot be made: {error}"),
            match lowest {
                Some((0, name)) => format!("sysctl -w {name}=100000, and the same line in /etc/sysctl.d/90-roost.conf"),
                _ => "allow user namespaces to root: a container or a security module around this host refuses them"
                    .to_owned(),
            },
        ),
        (Trial::Skipped(why), _) => Finding::warn(format!("not tried: {why}"), "run it as root"),
        (Trial::Works, Some((&lowest, name))) if lowest < MIN_NAMESPACES => Finding::warn(
            format!("user, net, ipc, uts; {name} = {lowest}"),
            format!("sysctl -w {name}=100000, and the same line in /etc/sysctl.d/90-roost.conf"),
        ),
        (Trial::Works, _) => nested(facts),
    }
}

/// Whether programs in a sandbox may make user namespaces of their own.
fn nested(facts: &HostFacts) -> Finding {
    let is = |name: &str, value: u64| facts.sysctls.get(name) == Some(&value);
    for (name, bad, good) in
        [("kernel.unprivileged_userns_clone", 0, 1), ("kernel.apparmor_restrict_unprivileged_userns", 1, 0)]
    {
        if is(name, bad) {
            return Finding::warn(
                format!("made for sandboxes, not by browsers in them: {name} = {bad}"),
                format!("for isolation.nested_user_namespaces: sysctl -w {name}={good}, and a line in /etc/sysctl.d"),
            );
        }
    }
    Finding::ok("user, net, ipc and uts; nested ones, too")
}

pub(super) fn overlay(facts: &HostFacts) -> Finding {
    match &facts.trials.overlay {
        Trial::Works => Finding::ok("mounts"),
        Trial::Skipped(why) => Finding::warn(format!("not tried: {why}"), "run it as root"),
        Trial::Fails(error) => Finding::fail(
            format!("does not mount: {error}"),
            "modprobe overlay, and a line \"overlay\" in /etc/modules-load.d/roost.conf; `root` must lie on ext4, xfs or btrfs",
        ),
    }
}

pub(super) fn idmapped_overlay(facts: &HostFacts) -> Finding {
    match &facts.trials.idmapped_overlay {
        Trial::Works => Finding::ok("mounts, and a mapped id writes to it"),
        Trial::Skipped(why) => Finding::warn(format!("not tried: {why}"), "it is tried once what is above works"),
        Trial::Fails(error) => Finding::fail(
            format!("does not work: {error}"),
            "put `root` on ext4, xfs or btrfs, and containerd's root as well; Linux 5.19 or newer",
        ),
    }
}

pub(super) fn seccomp(facts: &HostFacts) -> Finding {
    if facts.security.has_seccomp {
        return Finding::ok("filters system calls");
    }
    Finding::fail(
        "not in the kernel",
        "use a kernel with CONFIG_SECCOMP_FILTER: every sandbox is started with a filter",
    )
}

pub(super) fn security_modules(facts: &HostFacts) -> Finding {
    let security = &facts.security;
    if security.is_selinux_enforcing {
        return Finding::warn(
            "SELinux enforces",
            "not tested: if sandboxes do not start, see `ausearch -m avc -ts recent`, and `setenforce 0` to compare",
        );
    }
    Finding::ok(if security.has_apparmor { "AppArmor is on" } else { "none" })
}

pub(super) fn kernel_log(facts: &HostFacts) -> Finding {
    if facts.devices.has_kernel_log {
        return Finding::ok("/dev/kmsg can be read");
    }
    Finding::warn(
        "/dev/kmsg cannot be read",
        "give /dev/kmsg to the daemon (in a pod: privileged): the victim of a full memory is named only there",
    )
}

pub(super) fn time(facts: &HostFacts) -> Finding {
    match facts.is_clock_synchronised {
        Some(true) => Finding::ok("synchronised"),
        Some(false) => Finding::warn(
            "the clock is not synchronised",
            "apt-get install chrony, or timedatectl set-ntp true: certificates and leases depend on it",
        ),
        None => Finding::warn("the kernel does not say", "see `timedatectl`: certificates and leases depend on it"),
    }
}
