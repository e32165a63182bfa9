//! `memory`: what an idle desktop holds, everything counted, each page once.
//!
//! - Processes of the display, the workload and the shim: proportional set
//!   size, which shares a page among those who map it.
//! - tmpfs pages that nobody maps, e.g. of the framebuffer: what the
//!   sandbox's cgroup is charged with less what its processes map.
//! - Kernel memory charged to the cgroups of sandboxes and shims.
//! - containerd and daemon, divided by the number of sandboxes.
//!
//! As a check from outside, `available_drop_mib` tells by how much the
//! machine's free memory fell.

use std::collections::BTreeSet;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, traces};
use tokio::time::sleep;

use crate::cgroup::{self, Role};
use crate::node::{delete, fill, with_node};
use crate::proc::{self, count, mib};
use crate::progress::say;
use crate::report::Report;

/// Idle desktops.
const SANDBOXES: usize = 20;
/// Rest after the last start.
const REST: Duration = Duration::from_secs(5);

/// What all sandboxes of a node hold together, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    display: u64,
    workload: u64,
    shim: u64,
    /// tmpfs pages that no process maps.
    unmapped: u64,
    /// Kernel memory; none where the kernel does not tell.
    kernel: Option<u64>,
    /// containerd and daemon.
    shared: u64,
    /// Programs that run in the workloads.
    programs: BTreeSet<String>,
}

impl Usage {
    fn total(&self) -> u64 {
        self.display + self.workload + self.shim + self.unmapped + self.kernel.unwrap_or_default() + self.shared
    }

    /// Adds one sandbox.
    fn add(&mut self, parent: &str, id: &SandboxId) -> Result<()> {
        let workload_pids = cgroup::pids(parent, id.as_str(), Role::Workload)?;
        let display = proc::pss_of_all(&cgroup::pids(parent, id.as_str(), Role::Display)?)?;
        let workload = proc::pss_of_all(&workload_pids)?;
        let charged = cgroup::shmem_bytes(&format!("{parent}/{id}"))?;
        self.display += display.total_bytes;
        self.workload += workload.total_bytes;
        // The charge is counted in batches per core: it may lag a few pages.
        self.unmapped += charged.saturating_sub(display.shmem_bytes + workload.shmem_bytes);
        self.shim += proc::pss(shim_pid(id)?)?.total_bytes;
        for pid in workload_pids {
            self.programs.insert(proc::program(pid)?);
        }
        Ok(())
    }
}

/// The process that supervises both containers of a sandbox.
fn shim_pid(id: &SandboxId) -> Result<u32> {
    let processes = traces::processes_with(&format!("-id {id}-"));
    let shims: Vec<u32> =
        processes.iter().filter(|(_, line)| line.contains("-address ")).map(|(pid, _)| *pid).collect();
    match shims[..] {
        [pid] => Ok(pid),
        _ => Err(format!("{id} has {} shims, expected one", shims.len()).into()),
    }
}

/// The process of the node's own containerd.
fn containerd_pid(node: &TestNode) -> Result<u32> {
    let config = node.root.join("c/config.toml").display().to_string();
    let found = traces::processes_with(&config);
    found.first().map(|(pid, _)| *pid).ok_or_else(|| "containerd is not found by its command line".into())
}

/// Reads what these sandboxes of a node hold.
///
/// # Errors
/// When a process ends meanwhile.
pub(crate) fn usage(node: &TestNode, ids: &[SandboxId]) -> Result<Usage> {
    let parent = node.cgroup_parent();
    let mut usage = Usage { kernel: cgroup::kernel_bytes(&parent), ..Usage::default() };
    for id in ids {
        usage.add(&parent, id)?;
    }
    usage.shared = proc::pss_of_all(&[node.daemon.pid(), containerd_pid(node)?])?.total_bytes;
    Ok(usage)
}

/// Measures idle `fluxbox` desktops.
///
/// # Errors
/// When a sandbox does not become Ready, or a process ends meanwhile.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(SANDBOXES);
    with_node(report.bench(), async |node| {
        // The first start fills the page cache and the daemons' heaps.
        delete(&node.client, &node.client.create_ready(&spec("fluxbox")?).await?).await?;
        sleep(REST).await;
        let before_mib = mib(proc::available_bytes()?);
        let ids = fill(report.bench(), node, n).await?;
        say(report.bench(), "resting for 5 s");
        sleep(REST).await;
        let drop_mib = before_mib - mib(proc::available_bytes()?);
        print(report, n, &usage(node, &ids)?, drop_mib)
    })
    .await
}

/// Reports what `n` sandboxes hold together, each part divided by `n`.
///
/// # Errors
/// When the report cannot be written.
pub(crate) fn print(report: &Report, n: usize, usage: &Usage, available_drop_mib: f64) -> Result<()> {
    let each = |metric: &str, bytes: u64, note: &str| report.figure(metric, mib(bytes) / count(n), "MiB", n, note);
    let kernel_note = if usage.kernel.is_some() { "and kernel memory" } else { "kernel memory NOT: unreadable here" };
    let note = format!(
        "{n} idle fluxbox desktops, at rest: PSS of display, workload, shim, containerd and roostd, \
         tmpfs pages that nobody maps, {kernel_note}"
    );
    each("per_sandbox_mib", usage.total(), &note)?;
    each("display_mib", usage.display, "PSS of the display container, with the mapped framebuffer")?;
    let programs = usage.programs.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    each("wm_mib", usage.workload, &format!("PSS of the workload container, which runs: {programs}"))?;
    each("shim_mib", usage.shim, "PSS of the one shim of both containers")?;
    each("daemon_share_mib", usage.shared, "PSS of containerd and roostd, divided by n")?;
    each("tmpfs_unmapped_mib", usage.unmapped, "charged to the cgroup and mapped by no process of the sandbox")?;
    if let Some(kernel) = usage.kernel {
        each("kernel_mib", kernel, "charged to the cgroups of sandboxes and shims, reclaimable caches included")?;
    }
    let note = "check from outside, not part of the sum: fall of MemAvailable; a quiet machine is needed";
    report.figure("available_drop_mib", available_drop_mib / count(n), "MiB", n, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_holds_every_part_once() {
        let usage = Usage {
            display: 1,
            workload: 10,
            shim: 100,
            unmapped: 1_000,
            kernel: Some(10_000),
            shared: 100_000,
            programs: BTreeSet::new(),
        };
        assert_eq!(usage.total(), 111_111);
    }

    #[test]
    fn a_sandbox_without_a_shim_is_an_error() {
        assert!(shim_pid(&SandboxId::random()).is_err());
    }
}
