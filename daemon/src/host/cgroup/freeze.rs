//! Holding the processes of a cgroup still.
//!
//! A cgroup stands still while it is frozen itself or one above it is: what
//! freezes a container and what freezes its whole sandbox do not thaw each
//! other. On v1 a process that is frozen does not even die: whoever kills
//! thaws first.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Cgroups, Version, read_text};
use crate::host::Error;

/// Between two looks at whether all processes stand still: most do within a
/// millisecond, and v1 tells nobody.
const LOOK_PERIOD: Duration = Duration::from_micros(500);

impl Cgroups {
    /// Makes every process of a cgroup and those below it stand still, and
    /// returns once they do. `name`: of a sandbox, or `<sandbox>/workload`.
    /// One that is frozen already stays so.
    ///
    /// # Errors
    /// There is no such cgroup, no freezer on this host, or a process did not
    /// stand still in time (one waits for a disk): it is thawed again then.
    pub fn freeze(&self, name: &str, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        loop {
            // v1 may miss a process that was just made: it is asked again
            // until the kernel says that all stand still.
            self.write_freezer(name, true)?.ok_or_else(|| missing(name, self.version))?;
            if self.is_frozen(name)? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.thaw(name)?;
                let late = std::io::Error::new(ErrorKind::TimedOut, format!("not all stood still in {timeout:?}"));
                return Err(Error::Cgroup { operation: "freeze", path: name.into(), source: Box::new(late) });
            }
            std::thread::sleep(LOOK_PERIOD);
        }
    }

    /// Lets the processes of a cgroup go on, unless one above it is frozen.
    /// None there, and one that is not frozen, is success.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn thaw(&self, name: &str) -> Result<(), Error> {
        self.write_freezer(name, false).map(drop)
    }

    /// Whether all processes of a cgroup stand still, whoever froze them.
    ///
    /// # Errors
    /// There is no such cgroup, or no freezer on this host.
    pub fn is_frozen(&self, name: &str) -> Result<bool, Error> {
        match self.version {
            Version::V1 => Ok(read_text(&self.freezer(name, "freezer.state"))?.trim() == "FROZEN"),
            Version::V2 => {
                let events = read_text(&self.freezer(name, "cgroup.events"))?;
                Ok(events.lines().any(|line| line == "frozen 1"))
            }
        }
    }

    fn freezer(&self, name: &str, file: &str) -> PathBuf {
        self.version.file("freezer", &self.relative(name), file, file)
    }

    /// None if there is no such cgroup.
    fn write_freezer(&self, name: &str, frozen: bool) -> Result<Option<()>, Error> {
        let (file, value) = match (self.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        let path = self.freezer(name, file);
        match std::fs::write(&path, value) {
            Ok(()) => Ok(Some(())),
            // The second is a cgroup that was removed while it was open.
            Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(Error::path("write", path, e)),
        }
    }
}

fn missing(name: &str, version: Version) -> Error {
    Error::Unfit(format!(
        "cgroup {name} cannot be frozen: it is not there, or this host has no {}",
        match version {
            Version::V1 => "freezer controller (mount it at /sys/fs/cgroup/freezer)",
            Version::V2 => "cgroup.freeze (Linux 5.2)",
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A cgroup with a freezer and one below it, with a process that counts.
    struct Counting {
        cgroups: Cgroups,
        child: std::process::Child,
        file: tempfile::NamedTempFile,
    }

    impl Counting {
        fn start() -> Self {
            let name = format!("roost-freeze-{}-{:?}", std::process::id(), std::thread::current().id());
            let cgroups = Cgroups::new(&name.replace(['(', ')'], ""));
            let inner = cgroups.version.file("freezer", &cgroups.relative("sbx/workload"), "", "");
            std::fs::create_dir_all(&inner).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            let script = format!("while :; do echo >>{}; done", file.path().display());
            let child = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
            std::fs::write(inner.join("cgroup.procs"), child.id().to_string()).unwrap();
            Self { cgroups, child, file }
        }

        fn len(&self) -> u64 {
            self.file.as_file().metadata().unwrap().len()
        }

        fn goes_on(&self) -> bool {
            let before = self.len();
            (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                self.len() > before
            })
        }

        fn stands_still(&self) -> bool {
            let before = self.len();
            std::thread::sleep(Duration::from_millis(50));
            self.len() == before
        }
    }

    impl Drop for Counting {
        fn drop(&mut self) {
            self.cgroups.thaw("sbx").unwrap();
            self.cgroups.thaw("sbx/workload").unwrap();
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            let removed = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                self.cgroups.remove("sbx").is_ok()
            });
            assert!(removed);
            self.cgroups.remove_parent().unwrap();
        }
    }

    #[test]
    fn a_frozen_process_stands_still_until_it_is_thawed() {
        let counting = Counting::start();
        assert!(counting.goes_on());
        counting.cgroups.freeze("sbx/workload", SOON).unwrap();
        assert!(counting.cgroups.is_frozen("sbx/workload").unwrap() && counting.stands_still());
        counting.cgroups.freeze("sbx/workload", SOON).unwrap();
        counting.cgroups.thaw("sbx/workload").unwrap();
        assert!(!counting.cgroups.is_frozen("sbx/workload").unwrap() && counting.goes_on());
        counting.cgroups.thaw("sbx/workload").unwrap();
    }

    #[test]
    fn who_freezes_a_sandbox_and_who_freezes_its_workload_do_not_thaw_each_other() {
        let counting = Counting::start();
        counting.cgroups.freeze("sbx", SOON).unwrap();
        counting.cgroups.freeze("sbx/workload", SOON).unwrap();
        counting.cgroups.thaw("sbx/workload").unwrap();
        assert!(counting.stands_still(), "the sandbox is frozen still");
        counting.cgroups.freeze("sbx/workload", SOON).unwrap();
        counting.cgroups.thaw("sbx").unwrap();
        assert!(counting.stands_still(), "the workload is frozen still");
        counting.cgroups.thaw("sbx/workload").unwrap();
        assert!(counting.goes_on());
    }

    #[test]
    fn what_is_not_there_cannot_be_frozen_and_needs_no_thaw() {
        let cgroups = Cgroups::new("roost-freeze-nowhere");
        let error = cgroups.freeze("sbx", SOON).unwrap_err().to_string();
        assert!(error.contains("sbx cannot be frozen"), "{error}");
        cgroups.thaw("sbx").unwrap();
    }
}
