//! Rules about limits of the host, for as many sandboxes as are asked for.

use super::super::facts::{HostFacts, IdRange};
use super::Finding;
use crate::host::cgroup::Version;
use crate::host::limits::NOFILE_HARD;
use crate::host::namespaces::IDS_PER_SANDBOX;

/// Processes and threads of a sandbox, as limits of the host count them: an
/// idle desktop with its shim takes 25, a browser with a few tabs 60 and more.
const THREADS_PER_SANDBOX: u64 = 64;
/// Open files of a sandbox, likewise.
const FILES_PER_SANDBOX: u64 = 512;
/// The kernel's own default of `vm.max_map_count`.
const MIN_MAP_COUNT: u64 = 65_530;
/// Keys that the containers of one sandbox hold with some programs run in
/// them: the kernel's default, counted for each id on its own.
const MIN_KEYS: u64 = 200;

/// A number below `/proc/sys` that must not be lower.
struct Floor {
    name: &'static str,
    least: u64,
}

/// Judges some floors at once: what there is, and the lines that mend it.
fn floors(facts: &HostFacts, floors: &[Floor], why: &str) -> Finding {
    let known = |floor: &&Floor| facts.sysctls.contains_key(floor.name);
    let value = |floor: &Floor| facts.sysctls.get(floor.name).copied().unwrap_or(u64::MAX);
    let show = |floor: &Floor| format!("{} = {}", floor.name, value(floor));
    let low: Vec<_> = floors.iter().filter(known).filter(|floor| value(floor) < floor.least).collect();
    if low.is_empty() {
        return Finding::ok(floors.iter().filter(known).map(show).collect::<Vec<_>>().join(", "));
    }
    let settings: Vec<_> = low.iter().map(|floor| format!("{}={}", floor.name, floor.least)).collect();
    Finding::warn(
        low.iter().map(|floor| show(floor)).collect::<Vec<_>>().join(", "),
        format!(
            "sysctl -w {}, and the same in /etc/sysctl.d/90-roost.conf: {why} {} sandboxes",
            settings.join(" "),
            facts.subject.sandboxes
        ),
    )
}

pub(super) fn open_files(facts: &HostFacts) -> Finding {
    let nr_open = facts.sysctls.get("fs.nr_open").copied().unwrap_or(u64::MAX);
    if nr_open < NOFILE_HARD {
        return Finding::fail(
            format!("fs.nr_open = {nr_open}"),
            format!("sysctl -w fs.nr_open={NOFILE_HARD}: containers are given that many and do not start otherwise"),
        );
    }
    // A socket, a log and some pipes each, of the daemon itself.
    let own = 1024 + 8 * u64::from(facts.subject.sandboxes);
    if facts.nofile_hard < own {
        return Finding::warn(
            format!("this process may open {}", facts.nofile_hard),
            format!("LimitNOFILE={} in the unit of roostd (ulimit -Hn)", own.max(65_536)),
        );
    }
    let least = 100_000 + FILES_PER_SANDBOX * u64::from(facts.subject.sandboxes);
    floors(facts, &[Floor { name: "fs.file-max", least }], "files of")
}

pub(super) fn processes(facts: &HostFacts) -> Finding {
    let threads = 4096 + THREADS_PER_SANDBOX * u64::from(facts.subject.sandboxes);
    let list = [
        Floor { name: "kernel.pid_max", least: threads },
        Floor { name: "kernel.threads-max", least: threads },
        Floor { name: "vm.max_map_count", least: MIN_MAP_COUNT },
    ];
    floors(facts, &list, "64 threads each in")
}

pub(super) fn keys_and_inotify(facts: &HostFacts) -> Finding {
    let sandboxes = u64::from(facts.subject.sandboxes);
    // On v2 a shim, which is root's, watches the memory events of each of its
    // two containers. What a sandbox itself uses is counted for its own ids.
    let shims = if facts.cgroup.version == Version::V2 { 2 * sandboxes } else { 0 };
    let list = [
        Floor { name: "fs.inotify.max_user_instances", least: 128 + shims },
        Floor { name: "fs.inotify.max_user_watches", least: 8192 + shims },
        Floor { name: "kernel.keys.maxkeys", least: MIN_KEYS },
        // Two neighbours for each sandbox that has a network.
        Floor { name: "net.ipv4.neigh.default.gc_thresh3", least: 1024.max(2 * sandboxes) },
    ];
    floors(facts, &list, "watches and neighbours of")
}

pub(super) fn ids(facts: &HostFacts) -> Finding {
    let subject = &facts.subject;
    let first = u64::from(subject.first_id);
    let end = first + u64::from(subject.sandboxes) * u64::from(IDS_PER_SANDBOX);
    if end > u64::from(u32::MAX) {
        let room = (u64::from(u32::MAX) - first) / u64::from(IDS_PER_SANDBOX);
        return Finding::fail(
            format!("from {first} on there is room for {room} sandboxes"),
            "lower sandboxes.first_id or sandboxes.max in roostd.toml: each sandbox takes 65 536 ids",
        );
    }
    let overlaps = |range: &&IdRange| range.first < end && first < range.first.saturating_add(range.count);
    match facts.subordinate_ids.iter().find(overlaps) {
        Some(range) => Finding::warn(
            format!("{} gives {} ids from {} on to {}", range.file, range.count, range.first, range.owner),
            format!(
                "set sandboxes.first_id in roostd.toml to a multiple of 65 536 beyond it, or take the line out of {}",
                range.file
            ),
        ),
        None => Finding::ok(format!("{first} to {} are nobody else's", end - 1)),
    }
}
