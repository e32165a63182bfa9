//! What the kernel counted for a cgroup.

use std::path::Path;

use roost_proto::model::{Pressure, Usage};

use super::{Cgroups, MOUNT, Version, read_key, read_u64};
use crate::host::{Error, pressure};

impl Cgroups {
    /// What a sandbox uses now; `/dev/shm` is not part of the answer.
    ///
    /// # Errors
    /// When the cgroup is not there.
    pub fn usage(&self, name: &str) -> Result<Usage, Error> {
        let path = self.relative(name);
        let memory = read_u64(&self.version.file("memory", &path, "memory.usage_in_bytes", "memory.current"))?;
        let pids = read_u64(&self.version.file("pids", &path, "pids.current", "pids.current"))?;
        let cpu_us = match self.version {
            Version::V1 => read_u64(&self.version.file("cpuacct", &path, "cpuacct.usage", ""))? / 1000,
            Version::V2 => read_key(&self.version.file("", &path, "", "cpu.stat"), "usage_usec")?,
        };
        let pids = u32::try_from(pids).unwrap_or(u32::MAX);
        Ok(Usage { memory_bytes: memory, cpu_us, shm_bytes: 0, pids, disk_bytes: None, pressure: self.pressure(name) })
    }

    /// Time lost by waiting inside a cgroup: v2 measures it, v1 does not.
    fn pressure(&self, name: &str) -> Option<Pressure> {
        match self.version {
            Version::V1 => None,
            Version::V2 => pressure::of_cgroup(&Path::new(MOUNT).join(self.relative(name))),
        }
    }

    /// Process ids of a cgroup and those below it.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn process_ids(&self, name: &str) -> Result<Vec<i32>, Error> {
        Ok(self.pids(name)?.into_iter().map(nix::unistd::Pid::as_raw).collect())
    }
}
