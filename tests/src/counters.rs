//! What the kernel counted for a cgroup, on v1 and v2 alike.

use crate::{Result, cgroup};

/// One cgroup of a test node.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// The cgroup `name` below `parent`.
    #[must_use]
    pub fn new(parent: &str, name: &str) -> Self {
        Self { path: format!("{parent}/{name}").trim_end_matches('/').to_owned() }
    }

    fn number(&self, controller: &str, v1: &str, v2: &str) -> Result<u64> {
        cgroup::read_u64(&self.path, controller, v1, v2)
    }

    fn event(&self, controller: &str, v1: &str, v2: &str, key: &str) -> Result<u64> {
        let keys = cgroup::read_keys(&self.path, controller, v1, v2)?;
        keys.get(key).copied().ok_or_else(|| format!("no {key} in {keys:?}").into())
    }

    /// Memory charged to it, in bytes.
    ///
    /// # Errors
    /// When it is not there; so for all of these.
    pub fn memory_bytes(&self) -> Result<u64> {
        self.number("memory", "memory.usage_in_bytes", "memory.current")
    }

    /// The most that was ever charged to it, in bytes.
    ///
    /// # Errors
    /// As above, and on kernels of v2 before 5.19.
    pub fn memory_peak_bytes(&self) -> Result<u64> {
        self.number("memory", "memory.max_usage_in_bytes", "memory.peak")
    }

    /// Its memory limit, in bytes.
    ///
    /// # Errors
    /// As above, and when it has none.
    pub fn memory_limit_bytes(&self) -> Result<u64> {
        self.number("memory", "memory.limit_in_bytes", "memory.max")
    }

    /// Processes of a sandbox that were killed for want of memory. v1 counts
    /// them only where they ran, v2 above that as well.
    ///
    /// # Errors
    /// As above.
    pub fn oom_kills(&self) -> Result<u64> {
        let count = |of: &Self| of.event("memory", "memory.oom_control", "memory.events", "oom_kill");
        let own = count(self)?;
        let below = ["display", "workload"].map(|name| Self { path: format!("{}/{name}", self.path) });
        Ok(below.iter().filter_map(|of| count(of).ok()).sum::<u64>().max(own))
    }

    /// Processes and threads in it.
    ///
    /// # Errors
    /// As above.
    pub fn pids(&self) -> Result<u64> {
        self.number("pids", "pids.current", "pids.current")
    }

    /// Its limit of processes.
    ///
    /// # Errors
    /// As above.
    pub fn pids_limit(&self) -> Result<u64> {
        self.number("pids", "pids.max", "pids.max")
    }

    /// CPU time that it used, in microseconds.
    ///
    /// # Errors
    /// As above.
    pub fn cpu_us(&self) -> Result<u64> {
        if cgroup::is_v2() {
            self.event("cpu", "", "cpu.stat", "usage_usec")
        } else {
            Ok(self.number("cpuacct", "cpuacct.usage", "")? / 1000)
        }
    }

    /// Its CPU quota per 100 ms, in microseconds.
    ///
    /// # Errors
    /// As above, and when it has none.
    pub fn cpu_quota_us(&self) -> Result<u64> {
        let text = cgroup::read(&self.path, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
        Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// Periods in which its quota held it back.
    ///
    /// # Errors
    /// As above.
    pub fn throttled_periods(&self) -> Result<u64> {
        self.event("cpu", "cpu.stat", "cpu.stat", "nr_throttled")
    }

    /// Ids of the processes in it and below it.
    #[must_use]
    pub fn process_ids(&self) -> Vec<u32> {
        crate::traces::cgroup_processes(&self.path)
    }
}
