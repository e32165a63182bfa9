//! Places at which a test makes the daemon stumble.
//!
//! A point is one line of code with a name of [`POINTS`]. Nothing happens
//! there unless `<root>/fault` says so, one line each:
//!
//! ```text
//! create.rootfs kill          SIGKILL to the daemon itself
//! claim.durable delay=200     the thread stands still, in milliseconds
//! delete.files error 2        the third pass fails as a refusal of the host
//! pool.put abort              as a panic that nothing catches
//! ```
//!
//! The number says how many passes come before, counted since the file has this
//! content; each line counts once, and is noted in `<root>/fault.hit` before it
//! happens. The file is read at every pass, so that a test arms a daemon that
//! runs.
//!
//! Only builds with debug assertions have any of this: in a release build a
//! point is an empty function (docs/adr/0024-fault-points-in-debug-builds.md).

/// Every point, as `<what is done>.<what is over>`.
pub const POINTS: [&str; 66] = [
    // A request for a new sandbox, until its driver has it.
    "create.accepted",
    "create.durable",
    "create.driven",
    // A start, stage by stage.
    "create.namespaces",
    "create.cgroup",
    "create.shared",
    "create.storage",
    "create.layers",
    "create.rootfs",
    "create.cookie",
    "create.containers",
    "create.display_task",
    "create.display_started",
    "create.workload_task",
    "create.display_up",
    "create.workload",
    "create.first_frame",
    "create.ready",
    "create.kept",
    // A workload that is made again.
    "again.removed",
    "again.container",
    "again.task",
    "backoff.kept",
    // A claim.
    "claim.chosen",
    "claim.durable",
    "claim.told",
    "claim.begun",
    "claim.secrets",
    "claim.env",
    "claim.laid_out",
    "claim.files",
    "claim.hostname",
    "claim.hooked",
    "claim.noted",
    "claim.answered",
    "claim.kept",
    // Changes of a wish.
    "request.durable",
    // A stop, and the first half of a delete.
    "stop.terminated",
    "stop.killed",
    "stop.task",
    "stop.containers",
    "stop.cgroup",
    "stop.rootfs",
    "stop.claim",
    "stop.namespaces",
    "stop.unmounted",
    "stop.homes",
    "stop.closed",
    "stop.kept",
    // A delete.
    "delete.claim",
    "delete.storage",
    "delete.files",
    "delete.logs",
    "delete.forgotten",
    // Pools.
    "pool.put",
    "pool.removed",
    // The ledger.
    "ledger.begun",
    "ledger.written",
    "ledger.flushed",
    "ledger.synced",
    // A daemon that begins.
    "adopt.ledger",
    "adopt.surveyed",
    "adopt.recovered",
    "adopt.restored",
    "reap.stopped",
    "reap.removed",
];

pub use armed::{arm, pass, point};

#[cfg(debug_assertions)]
mod armed {
    use std::collections::HashMap;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use super::POINTS;
    use crate::host::Error;

    /// The file that says what happens; unset where nobody asks.
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    /// What the file said last, and how often each point was passed since.
    static PASSES: Mutex<Option<(String, HashMap<&'static str, u32>)>> = Mutex::new(None);

    /// What a line asks for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        Abort,
        Error,
        Delay(u64),
    }

    /// From now on the file is asked at each point.
    pub fn arm(file: PathBuf) {
        tracing::debug!(file = %file.display(), "fault points are compiled in");
        if FILE.set(file).is_err() {
            tracing::debug!("fault points have a file already");
        }
    }

    /// A point that may fail.
    ///
    /// # Errors
    /// What the file asks for.
    pub fn point(name: &'static str) -> Result<(), Error> {
        debug_assert!(POINTS.contains(&name), "{name} is not in the list of fault points");
        let Some(file) = FILE.get() else { return Ok(()) };
        let Ok(text) = std::fs::read_to_string(file) else { return Ok(()) };
        let before = {
            let mut passes = PASSES.lock().unwrap_or_else(PoisonError::into_inner);
            let (said, counts) = passes.get_or_insert_default();
            if *said != text {
                (*said, *counts) = (text.clone(), HashMap::new());
            }
            let count = counts.entry(name).or_default();
            *count += 1;
            *count - 1
        };
        match text.lines().find_map(|line| read(line, name, before)) {
            None => Ok(()),
            Some(action) => happen(file, name, action),
        }
    }

    /// A point where nothing can fail: an error is passed over.
    pub fn pass(name: &'static str) {
        if let Err(error) = point(name) {
            tracing::debug!(%error, "nothing can fail here");
        }
    }

    /// What a line says of this pass of a point.
    pub(super) fn read(line: &str, name: &str, before: u32) -> Option<Action> {
        let mut words = line.split_whitespace();
        if words.next() != Some(name) {
            return None;
        }
        let word = words.next()?;
        let action = match word.split_once('=').unwrap_or((word, "")) {
            ("kill", "") => Action::Kill,
            ("abort", "") => Action::Abort,
            ("error", "") => Action::Error,
            ("delay", ms) => Action::Delay(ms.parse().ok()?),
            _ => return None,
        };
        let at: u32 = words.next().map_or(Some(0), |number| number.parse().ok())?;
        (at == before).then_some(action)
    }

    fn happen(file: &Path, name: &str, action: Action) -> Result<(), Error> {
        let hit = file.with_extension("hit");
        let noted = std::fs::OpenOptions::new().create(true).append(true).open(&hit);
        if let Err(error) = noted.and_then(|mut hit| writeln!(hit, "{name}")) {
            tracing::warn!(%error, name, "a fault could not be noted");
        }
        tracing::warn!(name, ?action, "fault");
        match action {
            Action::Kill => {
                let own = nix::unistd::Pid::this();
                nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL).map_err(|e| Error::call("kill", e))
            }
            Action::Abort => std::process::abort(),
            Action::Error => Err(Error::call("pass a fault point", std::io::Error::other(name.to_owned()))),
            Action::Delay(ms) => {
                std::thread::sleep(Duration::from_millis(ms));
                Ok(())
            }
        }
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    use std::path::PathBuf;

    use crate::host::Error;

    /// Nothing.
    pub fn arm(_file: PathBuf) {}

    /// Nothing.
    ///
    /// # Errors
    /// None.
    #[inline(always)]
    pub const fn point(_name: &'static str) -> Result<(), Error> {
        Ok(())
    }

    /// Nothing.
    #[inline(always)]
    pub const fn pass(_name: &'static str) {}
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::collections::BTreeSet;

    use super::armed::{Action, read};
    use super::*;

    #[test]
    fn each_point_has_a_name_of_its_own_and_one_line_in_the_code() {
        assert_eq!(POINTS.iter().collect::<BTreeSet<_>>().len(), POINTS.len());
        let mut code = String::new();
        let mut dirs = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => dirs.push(path),
                    path if path.ends_with("host/fault.rs") => {}
                    path if path.extension().is_some_and(|e| e == "rs") => {
                        code.push_str(&std::fs::read_to_string(path).unwrap());
                    }
                    _ => {}
                }
            }
        }
        for point in POINTS {
            let lines = ["point", "pass"].map(|call| code.matches(&format!("fault::{call}(\"{point}\")")).count());
            assert_eq!(lines.iter().sum::<usize>(), 1, "{point}");
        }
    }

    #[test]
    fn a_line_counts_for_one_pass_of_one_point() {
        assert_eq!(read("create.rootfs kill", "create.rootfs", 0), Some(Action::Kill));
        assert_eq!(read("create.rootfs kill", "create.rootfs", 1), None);
        assert_eq!(read("create.rootfs error 2", "create.rootfs", 2), Some(Action::Error));
        assert_eq!(read("create.rootfs delay=70", "create.rootfs", 0), Some(Action::Delay(70)));
        assert_eq!(read("create.rootfs kill", "create.ready", 0), None);
        assert_eq!(read("create.rootfs dance", "create.rootfs", 0), None);
    }

    #[test]
    fn without_a_file_every_point_is_passed() {
        for point in POINTS {
            super::point(point).unwrap();
        }
    }
}
