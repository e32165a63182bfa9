//! What the node is and how loaded it is, read from procfs.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use procfs::{CpuInfo, Current, LoadAverage, Meminfo, ProcError};
use roost_proto::model::{NodeFacts, NodeLoad};

use crate::host::{disk, pressure};

/// Why the node could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A file of procfs cannot be read.
    #[error("cannot read the node's {fact} from procfs")]
    Procfs {
        /// What was asked for.
        fact: &'static str,
        /// Why.
        #[source]
        source: ProcError,
    },
    /// The kernel does not say how much memory programs can get.
    #[error("the kernel does not report MemAvailable: Linux 3.14 or newer is needed")]
    NoAvailableMemory,
    /// The kernel does not tell its name.
    #[error("cannot read host name and kernel release")]
    Name(#[source] Errno),
    /// The file system cannot be asked.
    #[error("cannot read the free space of the file system at {path}", path = .path.display())]
    Disk {
        /// A path on it.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<crate::host::Error>,
    },
}

/// What does not change while the node is up. `cgroup_version` is `v1` or
/// `v2`; `containerd_version` is what containerd reports.
///
/// # Errors
/// See [`FactsError`].
pub fn node_facts(cgroup_version: &str, containerd_version: &str) -> Result<NodeFacts, FactsError> {
    let name = nix::sys::utsname::uname().map_err(FactsError::Name)?;
    let cpus = CpuInfo::current().map_err(procfs("processors"))?.num_cores();
    Ok(NodeFacts {
        hostname: name.nodename().to_string_lossy().into_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        architecture: std::env::consts::ARCH.into(),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_bytes: meminfo()?.mem_total,
        cgroup_version: cgroup_version.into(),
        containerd_version: containerd_version.into(),
        daemon_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: boot_id()?,
    })
}

/// Boot id of the kernel; changes with each boot.
///
/// # Errors
/// See [`FactsError`].
pub fn boot_id() -> Result<String, FactsError> {
    Ok(procfs::sys::kernel::random::boot_id().map_err(procfs("boot id"))?.trim().to_owned())
}

/// Load of the whole node; free disk space is that of the file system at
/// `root`, as a process without privileges may use it.
///
/// # Errors
/// See [`FactsError`].
pub fn node_load(root: &Path) -> Result<NodeLoad, FactsError> {
    let memory = meminfo()?;
    let available = memory.mem_available.ok_or(FactsError::NoAvailableMemory)?;
    let load = LoadAverage::current().map_err(procfs("load average"))?;
    let disk =
        disk::space(root).map_err(|source| FactsError::Disk { path: root.to_owned(), source: Box::new(source) })?;
    Ok(NodeLoad {
        memory_used_bytes: memory.mem_total.saturating_sub(available),
        memory_available_bytes: available,
        // A float to an integer saturates, and a load is never negative.
        load1_milli: (load.one * 1000.0).round() as u32,
        disk_free_bytes: disk.free_bytes,
        clock_offset_ms: None,
        disk_inodes_free: disk.inodes_free,
        pressure: pressure::of_node(),
    })
}

/// Memory that programs can still get, in bytes.
///
/// # Errors
/// See [`FactsError`].
pub fn memory_available_bytes() -> Result<u64, FactsError> {
    meminfo()?.mem_available.ok_or(FactsError::NoAvailableMemory)
}

/// Processes and threads that the kernel allows on the whole machine.
///
/// # Errors
/// See [`FactsError`].
pub fn pids_max() -> Result<u32, FactsError> {
    let pids = procfs::sys::kernel::pid_max().map_err(procfs("pid_max"))?;
    let threads = procfs::sys::kernel::threads_max().map_err(procfs("threads-max"))?;
    Ok(u32::try_from(pids).unwrap_or(u32::MAX).min(threads))
}

fn meminfo() -> Result<Meminfo, FactsError> {
    Meminfo::current().map_err(procfs("memory"))
}

fn procfs(fact: &'static str) -> impl FnOnce(ProcError) -> FactsError {
    move |source| FactsError::Procfs { fact, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_those_of_this_machine() {
        let facts = node_facts("v1", "1.6.20").unwrap();
        assert_eq!(facts.kernel, std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
        assert_eq!(facts.boot_id.len(), 36);
        assert!(facts.cpus >= 1 && facts.memory_bytes > 64 << 20 && !facts.hostname.is_empty(), "{facts:?}");
        assert_eq!((facts.cgroup_version.as_str(), facts.containerd_version.as_str()), ("v1", "1.6.20"));
    }

    #[test]
    fn used_and_available_memory_make_up_the_whole() {
        let load = node_load(Path::new("/")).unwrap();
        let total = node_facts("v2", "").unwrap().memory_bytes;
        assert_eq!(load.memory_used_bytes + load.memory_available_bytes, total);
        assert!(load.disk_free_bytes > 0);
    }

    #[test]
    fn a_root_that_is_not_there_is_named() {
        let error = node_load(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
