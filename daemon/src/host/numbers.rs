//! What the kernel says of cgroups and of memory, word by word: for support
//! bundles, which people read. Nothing is interpreted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Error;

const MOUNT: &str = "/sys/fs/cgroup";
/// Files that hold no more than some lines, of v1 and v2.
const CGROUP_FILES: [&str; 21] = [
    "cgroup.events",
    "cpu.max",
    "cpu.pressure",
    "cpu.shares",
    "cpu.stat",
    "cpu.weight",
    "cpuacct.usage",
    "io.pressure",
    "memory.current",
    "memory.events",
    "memory.failcnt",
    "memory.limit_in_bytes",
    "memory.max",
    "memory.max_usage_in_bytes",
    "memory.oom_control",
    "memory.peak",
    "memory.pressure",
    "memory.swap.current",
    "memory.usage_in_bytes",
    "pids.current",
    "pids.max",
];
/// The kernel's log, one record a read.
const KERNEL_LOG: &str = "/dev/kmsg";
/// Longest record of it, in bytes.
const MAX_RECORD_BYTES: usize = 8192;
/// Most records that are looked at: the whole ring of an ordinary kernel.
const MAX_RECORDS: usize = 100_000;
/// Words of the records that a full memory leaves behind.
const OOM_WORDS: [&str; 4] = ["oom", "Out of memory", "out of memory", "Killed process"];

/// The files of one cgroup, by hierarchy and name; `path` is as the OCI spec
/// takes it, e.g. `/roost/sbx-…`.
#[must_use]
pub fn cgroup(path: &str) -> BTreeMap<String, String> {
    let relative = path.trim_start_matches('/');
    let mut found = BTreeMap::new();
    let hierarchies = ["", "cpu", "cpuacct", "memory", "pids"];
    for hierarchy in hierarchies {
        let dir = Path::new(MOUNT).join(hierarchy).join(relative);
        for name in CGROUP_FILES {
            if let Ok(text) = std::fs::read_to_string(dir.join(name)) {
                found.insert(name.to_owned(), text.trim_end().to_owned());
            }
        }
    }
    found
}

/// What the kernel's log says of a full memory, the latest `max` lines.
///
/// # Errors
/// When this process may not read it.
pub fn oom_lines(max: usize) -> Result<Vec<String>, Error> {
    let mut log = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(KERNEL_LOG)
        .map_err(|e| Error::path("open", KERNEL_LOG, e))?;
    let mut lines = std::collections::VecDeque::new();
    let mut record = [0; MAX_RECORD_BYTES];
    for _ in 0..MAX_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(&record[..length]);
                let line = text.lines().next().unwrap_or_default();
                if OOM_WORDS.iter().any(|word| line.contains(word)) {
                    lines.push_back(line.to_owned());
                }
                if lines.len() > max {
                    lines.pop_front();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Records were overwritten while we read: the next read goes on.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(error) => return Err(Error::path("read", KERNEL_LOG, error)),
        }
    }
    Ok(lines.into())
}
