//! What sandboxes leave on a host: to compare before and after, and to clear
//! away after a failed test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Mount points at or below a path, in mount order.
#[must_use]
pub fn mounts_under(root: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(root)).collect()
}

/// Directories of a cgroup in every hierarchy.
fn cgroup_dirs(parent: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path().join(parent));
    hierarchies.chain([base.join(parent)]).filter(|dir| dir.is_dir()).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), found);
        }
    }
    found.push(dir.to_owned());
}

/// Cgroups below a parent, relative to it, over all hierarchies.
#[must_use]
pub fn cgroups_below(parent: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for base in cgroup_dirs(parent) {
        let mut found = Vec::new();
        walk(&base, &mut found);
        let relative = found.iter().filter_map(|dir| dir.strip_prefix(&base).ok());
        names.extend(relative.map(|r| r.display().to_string()).filter(|r| !r.is_empty()));
    }
    names
}

/// Ids of the processes of a cgroup and those below it, each once.
#[must_use]
pub fn cgroup_processes(parent: &str) -> Vec<u32> {
    let mut found = Vec::new();
    cgroup_dirs(parent).iter().for_each(|base| walk(base, &mut found));
    let texts = found.iter().filter_map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).ok());
    let pids: BTreeSet<u32> =
        texts.flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>()).collect();
    pids.into_iter().collect()
}

/// Kills every process of a cgroup and those below it; on v1 what stands still
/// does not die.
pub fn kill_cgroup(parent: &str) {
    let mut dirs = Vec::new();
    cgroup_dirs(parent).iter().for_each(|base| walk(base, &mut dirs));
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        for path in dirs.iter().map(|dir| dir.join(file)).filter(|path| path.exists()) {
            let _gone = std::fs::write(path, value);
        }
    }
    for pid in cgroup_processes(parent).into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
        let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Removes a cgroup and those below it, as soon as they are empty.
pub fn remove_cgroup(parent: &str) {
    for _ in 0..100 {
        let mut found = Vec::new();
        cgroup_dirs(parent).iter().for_each(|base| walk(base, &mut found));
        if found.is_empty() {
            return;
        }
        // Deepest first, as `walk` lists them.
        found.iter().for_each(|dir| drop(std::fs::remove_dir(dir)));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    eprintln!("harness: cgroup {parent} stays");
}

/// Command lines that contain a text, with their process ids.
#[must_use]
pub fn processes_with(text: &str) -> Vec<(u32, String)> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        line.contains(text).then_some((pid, line))
    })
    .filter(|(pid, _)| *pid != std::process::id())
    .collect()
}
