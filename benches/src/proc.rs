//! What processes and the machine use, from `/proc`.

use procfs::process::Process;
use procfs::{Current, CurrentSI, KernelStats, Meminfo};
use roost_tests::Result;

/// Bytes of one MiB.
const MIB_BYTES: f64 = 1_048_576.0;

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "figures have three digits")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB_BYTES
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}

/// Memory of processes by proportional set size, in bytes: a page that k
/// processes map counts 1/k for each of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pss {
    /// All of it.
    pub(crate) total_bytes: u64,
    /// The part that lies in shared memory and tmpfs files.
    pub(crate) shmem_bytes: u64,
}

impl std::iter::Sum for Pss {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            total_bytes: sum.total_bytes + part.total_bytes,
            shmem_bytes: sum.shmem_bytes + part.shmem_bytes,
        })
    }
}

fn process(pid: u32) -> Result<Process> {
    Process::new(i32::try_from(pid)?).map_err(|e| format!("process {pid}: {e}").into())
}

/// Memory of one process.
///
/// # Errors
/// When it is gone or the kernel does not tell.
pub(crate) fn pss(pid: u32) -> Result<Pss> {
    let rollup = process(pid)?.smaps_rollup().map_err(|e| format!("smaps_rollup of {pid}: {e}"))?;
    let maps = rollup.memory_map_rollup.0;
    let value = |key: &str| {
        let map = maps.first().map(|map| &map.extension.map);
        map.and_then(|map| map.get(key)).copied().ok_or_else(|| format!("smaps_rollup of {pid} has no {key}"))
    };
    Ok(Pss { total_bytes: value("Pss")?, shmem_bytes: value("Pss_Shmem")? })
}

/// Memory of several processes.
///
/// # Errors
/// As [`pss`].
pub(crate) fn pss_of_all(pids: &[u32]) -> Result<Pss> {
    pids.iter().map(|&pid| pss(pid)).sum()
}

/// The name of a process's program.
///
/// # Errors
/// When it is gone.
pub(crate) fn program(pid: u32) -> Result<String> {
    Ok(process(pid)?.stat()?.comm)
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// When it is gone or has none.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64> {
    let rss_kib = process(pid)?.status()?.vmrss.ok_or_else(|| format!("process {pid} has no memory"))?;
    Ok(rss_kib * 1024)
}

/// CPU time that a process used so far with all its threads, in milliseconds;
/// the kernel counts in steps of 10.
///
/// # Errors
/// When it is gone.
pub(crate) fn cpu_ms(pid: u32) -> Result<u64> {
    let stat = process(pid)?.stat()?;
    Ok((stat.utime + stat.stime) * 1000 / procfs::ticks_per_second())
}

/// CPU time that the machine spent on anything so far, over all cores, in
/// milliseconds. Time that the hypervisor took is not part of it.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn machine_cpu_ms() -> Result<u64> {
    let total = KernelStats::current()?.total;
    let interrupts = total.irq_ms().unwrap_or_default() + total.softirq_ms().unwrap_or_default();
    Ok(total.user_ms() + total.nice_ms() + total.system_ms() + interrupts)
}

/// Memory that programs could still take, in bytes.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn available_bytes() -> Result<u64> {
    Ok(Meminfo::current()?.mem_available.ok_or("the kernel does not tell MemAvailable")?)
}

/// Cores that this process may use.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn cores() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

/// What this machine is, in a few words.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn machine() -> Result<String> {
    let memory_gib = mib(Meminfo::current()?.mem_total) / 1024.0;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpu = procfs::CpuInfo::current()?;
    let model = cpu.model_name(0).unwrap_or("unknown CPU").to_owned();
    Ok(format!("{} cores ({model}), {memory_gib:.1} GiB, Linux {}", cores()?, kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_appears_in_the_figures_of_its_process() {
        let own = std::process::id();
        let before = pss(own).unwrap();
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = pss(own).unwrap();
        assert!(after.total_bytes - before.total_bytes > 60 << 20, "{before:?} {after:?}");
        assert!(rss_bytes(own).unwrap() > touched.len() as u64);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_and_not_a_zero() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(pss(child.id()).is_err());
        assert!(cpu_ms(child.id()).is_err());
    }
}
