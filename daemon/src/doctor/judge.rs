//! Verdicts from facts. Pure: every rule is a function of [`HostFacts`] alone.

mod limits;
mod resources;
mod runtime;
mod system;

use roost_proto::model::{Check, Verdict};

use super::facts::HostFacts;

/// What one rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    verdict: Verdict,
    found: String,
    advice: String,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    fn warn(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, found: found.into(), advice: advice.into() }
    }

    fn fail(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, found: found.into(), advice: advice.into() }
    }
}

type Rule = fn(&HostFacts) -> Finding;

/// Every check, in the order in which people read them: area, name, rule.
const RULES: [(&str, &str, Rule); 29] = [
    ("kernel", "root", system::root),
    ("kernel", "kernel", system::kernel),
    ("kernel", "namespaces", system::namespaces),
    ("kernel", "overlay", system::overlay),
    ("kernel", "idmapped-overlay", system::idmapped_overlay),
    ("kernel", "seccomp", system::seccomp),
    ("kernel", "security-modules", system::security_modules),
    ("kernel", "kernel-log", system::kernel_log),
    ("kernel", "time", system::time),
    ("cgroup", "controllers", resources::controllers),
    ("cgroup", "limits", resources::cgroup_limits),
    ("cgroup", "pressure", resources::pressure),
    ("cgroup", "swap", resources::swap),
    ("runtime", "containerd", runtime::containerd),
    ("runtime", "snapshotter", runtime::snapshotter),
    ("runtime", "oci-runtime", runtime::oci_runtime),
    ("runtime", "other-runtimes", runtime::other_runtimes),
    ("runtime", "mounts", runtime::propagation),
    ("storage", "file-system", resources::file_system),
    ("storage", "space", resources::space),
    ("storage", "quota", resources::quota),
    ("limits", "open-files", limits::open_files),
    ("limits", "processes", limits::processes),
    ("limits", "keys-and-inotify", limits::keys_and_inotify),
    ("limits", "ids", limits::ids),
    ("network", "ports", runtime::ports),
    ("network", "nftables", runtime::nftables),
    ("devices", "kvm", runtime::kvm),
    ("devices", "gpu", runtime::gpu),
];

/// Applies every rule.
#[must_use]
pub fn checks(facts: &HostFacts) -> Vec<Check> {
    let check = |(area, name, rule): &(&str, &str, Rule)| {
        let Finding { verdict, found, advice } = rule(facts);
        Check { area: (*area).to_owned(), name: (*name).to_owned(), verdict, found, advice }
    };
    RULES.iter().map(check).collect()
}

/// Numbers below `/proc/sys` that a rule reads.
pub(super) const SYSCTLS: [&str; 16] = [
    "fs.file-max",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.nr_open",
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.keys.maxkeys",
    "kernel.pid_max",
    "kernel.threads-max",
    "kernel.unprivileged_userns_clone",
    "net.ipv4.neigh.default.gc_thresh3",
    "user.max_ipc_namespaces",
    "user.max_mnt_namespaces",
    "user.max_net_namespaces",
    "user.max_pid_namespaces",
    "user.max_user_namespaces",
    "vm.max_map_count",
];

/// The first two numbers of a version, e.g. of `1.6.20~ds1`.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next().unwrap_or(0)))
}

/// Bytes as people say them, in GiB.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
pub(super) mod tests;
