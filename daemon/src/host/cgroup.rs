//! Cgroups of sandboxes, on v1 and v2 hosts alike.
//!
//! One parent cgroup per sandbox holds the limits; runc makes one child per
//! container below it. cgroups-rs makes cgroups and switches controllers on;
//! limits are written and samples read directly, because the library drops
//! errors of single limits and a thousand sandboxes are sampled at once.

mod cap;
mod freeze;
mod limits;
mod usage;

mod oom;

use std::path::{Path, PathBuf};

use cgroups_rs::fs::cgroup_builder::CgroupBuilder;
use cgroups_rs::fs::hierarchies;
use roost_proto::model::{NodeCap, Resources};

use super::Error;
pub use limits::{InUse, LimitsSet};

/// Where the controllers are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers that a sandbox's parent cgroup needs.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];

/// Which cgroup interface carries this host's controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller (a hybrid host too: its unified mount
    /// has no controllers).
    V1,
    /// The unified hierarchy.
    V2,
}

impl Version {
    /// What this host has.
    #[must_use]
    pub fn detect() -> Self {
        if hierarchies::is_cgroup2_unified_mode() { Self::V2 } else { Self::V1 }
    }

    /// `v1` or `v2`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// Directories of a cgroup path: one per hierarchy on v1, one on v2.
    fn dirs(self, path: &str) -> Vec<PathBuf> {
        match self {
            Self::V2 => vec![Path::new(MOUNT).join(path)],
            Self::V1 => {
                let hierarchies = std::fs::read_dir(MOUNT)
                    .map(|entries| entries.flatten().map(|e| e.path().join(path)).filter(|p| p.is_dir()).collect());
                hierarchies.unwrap_or_default()
            }
        }
    }

    fn file(self, controller: &str, path: &str, v1: &str, v2: &str) -> PathBuf {
        match self {
            Self::V1 => Path::new(MOUNT).join(controller).join(path).join(v1),
            Self::V2 => Path::new(MOUNT).join(path).join(v2),
        }
    }
}

/// The cgroups of this daemon's sandboxes.
#[derive(Debug, Clone)]
pub struct Cgroups {
    version: Version,
    parent: String,
    /// What the kernel lets all of them use together, once it is set.
    cap: Option<NodeCap>,
}

fn cgroup_error(operation: &'static str, path: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Cgroup { operation, path: path.into(), source: Box::new(error) }
}

impl Cgroups {
    /// Cgroups below `parent`, a relative path such as `roost`.
    #[must_use]
    pub fn new(parent: &str) -> Self {
        Self { version: Version::detect(), parent: parent.trim_matches('/').to_owned(), cap: None }
    }

    /// Which interface is used.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Path of a cgroup below the parent, as the OCI spec takes it.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("/{}/{name}", self.parent)
    }

    fn relative(&self, name: &str) -> String {
        format!("{}/{name}", self.parent)
    }

    fn builder(&self, name: &str) -> CgroupBuilder {
        let builder = CgroupBuilder::new(&self.relative(name));
        match self.version {
            Version::V1 => builder.set_specified_controllers(CONTROLLERS.map(String::from).to_vec()),
            Version::V2 => builder,
        }
    }

    /// Makes a cgroup without limits, e.g. for the shims.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn create_plain(&self, name: &str) -> Result<(), Error> {
        let built = self.builder(name).build(hierarchies::auto());
        built.map(drop).map_err(|e| cgroup_error("create", name, e))
    }

    /// Makes the parent cgroup of a sandbox with its limits.
    ///
    /// # Errors
    /// What the kernel refuses; a sandbox without its limit must not start.
    pub fn create(&self, name: &str, resources: &Resources) -> Result<(), Error> {
        self.create_plain(name)?;
        let set = self.set_limits(name, resources)?;
        match set.refused.first() {
            None => Ok(()),
            Some(refused) => Err(Error::Unfit(format!("cgroup {name} cannot be limited: {refused}"))),
        }
    }

    /// Removes a cgroup and the empty ones below it; none there is success.
    ///
    /// # Errors
    /// When a process is still in it.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        for dir in self.version.dirs(&self.relative(name)) {
            remove_bottom_up(&dir)?;
        }
        Ok(())
    }

    /// Removes the parent itself, if nothing is below it any more.
    ///
    /// # Errors
    /// When something is.
    pub fn remove_parent(&self) -> Result<(), Error> {
        for dir in self.version.dirs(&self.parent) {
            remove_bottom_up(&dir)?;
        }
        Ok(())
    }

    /// Names of the cgroups right below the parent, in any hierarchy.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let mut names = std::collections::BTreeSet::new();
        for dir in self.version.dirs(&self.parent) {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let dirs = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            names.extend(dirs.filter_map(|e| e.file_name().into_string().ok()));
        }
        names.into_iter().collect()
    }

    /// Ends every process of a cgroup and those below it. On v2 the kernel
    /// does it in one step, also to processes that are just being made; on v1
    /// those may escape, so the caller looks again.
    ///
    /// # Errors
    /// When the kernel refuses, or the list of processes cannot be read.
    pub fn kill(&self, name: &str) -> Result<(), Error> {
        if self.version == Version::V2 {
            let file = self.version.file("", &self.relative(name), "", "cgroup.kill");
            return match std::fs::write(&file, "1") {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::path("write", file, e)),
                _ => Ok(()),
            };
        }
        for pid in self.pids(name)? {
            let result = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            if let Err(e) = result
                && e != nix::Error::ESRCH
            {
                return Err(Error::call("kill a process of a cgroup", e));
            }
        }
        Ok(())
    }

    /// Processes of a cgroup and those below it.
    fn pids(&self, name: &str) -> Result<Vec<nix::unistd::Pid>, Error> {
        let mut pids = Vec::new();
        collect_pids(&self.version.file("pids", &self.relative(name), "", ""), &mut pids)?;
        Ok(pids)
    }
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::path("read", path, e))
}

fn parse_u64(path: &Path, text: &str) -> Result<u64, Error> {
    text.trim().parse().map_err(|e| Error::path("parse", path, std::io::Error::other(e)))
}

fn read_u64(path: &Path) -> Result<u64, Error> {
    parse_u64(path, &read_text(path)?)
}

/// A value of a file of `key value` lines.
fn read_key(path: &Path, key: &str) -> Result<u64, Error> {
    let text = read_text(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let missing = || Error::path("find the usage in", path, std::io::ErrorKind::InvalidData);
    parse_u64(path, value.ok_or_else(missing)?)
}

/// Writes a value; a file that is not there means that its controller is off.
fn write_value(path: &Path, value: &str) -> Result<(), Error> {
    std::fs::write(path, value).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::Unfit(format!(
            "{} is not there: are the cpu, memory and pids controllers enabled for the cgroups of the sandboxes?",
            path.display()
        )),
        _ => Error::path("write", path, e),
    })
}

fn sub_dirs(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn remove_bottom_up(dir: &Path) -> Result<(), Error> {
    for child in sub_dirs(dir) {
        remove_bottom_up(&child)?;
    }
    super::files::remove_dir(dir)
}

fn collect_pids(dir: &Path, pids: &mut Vec<nix::unistd::Pid>) -> Result<(), Error> {
    let text = match read_text(&dir.join("cgroup.procs")) {
        Err(Error::Path { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    // 0 stands for a process of another PID namespace: as a target it would
    // mean our own process group.
    let own = text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0);
    pids.extend(own.map(nix::unistd::Pid::from_raw));
    for child in sub_dirs(dir) {
        collect_pids(&child, pids)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unique() -> Cgroups {
        Cgroups::new(
            &format!("roost-test-{}-{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], ""),
        )
    }

    #[test]
    fn limits_reach_the_kernel_and_removal_leaves_nothing() {
        let cgroups = unique();
        let resources =
            Resources { memory_limit_bytes: 256 << 20, pids_limit: 77, cpu_limit_millis: 500, ..Resources::default() };
        cgroups.create("sbx", &resources).unwrap();
        let path = cgroups.relative("sbx");
        let file = |controller, v1, v2| read_text(&cgroups.version.file(controller, &path, v1, v2)).unwrap();
        assert_eq!(file("memory", "memory.limit_in_bytes", "memory.max").trim(), (256 << 20).to_string());
        assert_eq!(file("pids", "pids.max", "pids.max").trim(), "77");
        assert!(file("cpu", "cpu.cfs_quota_us", "cpu.max").trim().starts_with("50000"));
        assert_eq!(cgroups.list(), ["sbx"]);
        cgroups.remove("sbx").unwrap();
        assert_eq!(cgroups.list(), Vec::<String>::new());
        cgroups.remove_parent().unwrap();
        assert_eq!(cgroups.version.dirs(&cgroups.parent).iter().filter(|d| d.exists()).count(), 0);
    }

    #[test]
    fn a_process_in_the_cgroup_is_counted_and_killed() {
        let cgroups = unique();
        cgroups.create("sbx", &Resources::default()).unwrap();
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        for controller in CONTROLLERS {
            let procs = cgroups.version.file(controller, &cgroups.relative("sbx"), "cgroup.procs", "cgroup.procs");
            std::fs::write(procs, sleeper.id().to_string()).unwrap();
        }
        assert_eq!(cgroups.usage("sbx").unwrap().pids, 1);
        cgroups.kill("sbx").unwrap();
        assert!(!sleeper.wait().unwrap().success());
        cgroups.remove("sbx").unwrap();
        cgroups.remove_parent().unwrap();
    }
}
