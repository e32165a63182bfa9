//! Undoing a start, wherever it stopped.
//!
//! Every function takes nothing for granted and may be called again: what is
//! gone already is success.

use std::time::Duration;

use nix::sys::signal::Signal;
use roost_proto::id::SandboxId;

use super::Node;
use super::claim::claimed;
use super::layout::SandboxDirs;
use super::remains::Remains;
use crate::containerd::{self, ContainerId, Role, TaskStatus};
use crate::host::{self, blocking, fault, files, mount, namespaces};
use crate::volume::checkpoint::frozen_cgroup;

/// How long a killed process may take to end: an exit frees its memory first.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the processes of a cgroup may take to vanish after their kill.
const CGROUP_ATTEMPTS: u32 = 100;
/// Between two tries to remove a cgroup.
const CGROUP_PERIOD: Duration = Duration::from_millis(10);

/// Why something of a sandbox is still there.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// containerd did not do it.
    #[error("a container could not be removed")]
    Containerd(#[from] containerd::Error),
    /// The host did not do it.
    #[error("something on the host could not be removed")]
    Host(#[from] host::Error),
}

/// Ends the sandbox's processes and takes away all that a start made; what
/// the workload wrote and the logs stay.
///
/// `grace`: between SIGTERM and SIGKILL for the workload.
///
/// # Errors
/// See [`TeardownError`]; call again later.
pub async fn stop(node: &Node, id: &SandboxId, grace: Duration) -> Result<(), TeardownError> {
    // What stands still hears no signal, and on v1 does not even die: somebody
    // paused it, or a checkpoint of a volume is taken.
    for cgroup in [id.to_string(), frozen_cgroup(id.as_str())] {
        node.cgroups.thaw(&cgroup)?;
    }
    if !grace.is_zero() {
        terminate(node, &ContainerId::new(id, Role::Workload), grace).await?;
    }
    fault::point("stop.terminated")?;
    let remove = |role| remove_container(node, ContainerId::new(id, role));
    let (display, workload) = tokio::join!(remove(Role::Display), remove(Role::Workload));
    let was_known = display? & workload?;
    fault::point("stop.containers")?;
    let (cgroups, dirs, name) = (node.cgroups.clone(), node.layout.sandbox(id), id.to_string());
    let (storage, homes, owner) = (node.storage.clone(), node.homes.clone(), id.clone());
    let remains = Remains::of(node, id);
    blocking(move || {
        if !was_known {
            remains.kill_shims()?;
        }
        remove_cgroup(&cgroups, &name)?;
        remains.remove_state()?;
        fault::point("stop.cgroup")?;
        unmount(&dirs)?;
        fault::point("stop.unmounted")?;
        homes.detach(&owner)?;
        fault::point("stop.homes")?;
        storage.close(&dirs.bounded())?;
        fault::point("stop.closed")
    })
    .await?;
    Ok(())
}

/// Takes away the workload's container and its processes; the display and
/// what the workload wrote stay. `grace`: as for [`stop`], where it still runs.
///
/// # Errors
/// See [`TeardownError`]; call again later.
pub async fn remove_workload(node: &Node, id: &SandboxId, grace: Duration) -> Result<(), TeardownError> {
    terminate(node, &ContainerId::new(id, Role::Workload), grace).await?;
    remove_container(node, ContainerId::new(id, Role::Workload)).await.map(drop)
}

/// Removes what [`stop`] left: files and logs.
///
/// # Errors
/// See [`TeardownError`]; call again later.
pub async fn remove_files(node: &Node, id: &SandboxId) -> Result<(), TeardownError> {
    node.workload_pids.forget(id);
    let (dirs, storage) = (node.layout.sandbox(id), node.storage.clone());
    blocking(move || {
        mount::unmount(&dirs.claim())?;
        fault::point("delete.claim")?;
        storage.release(&dirs.bounded())?;
        fault::point("delete.storage")?;
        files::remove_tree(dirs.dir())?;
        fault::point("delete.files")?;
        files::remove_tree(dirs.logs())?;
        fault::point("delete.logs")
    })
    .await?;
    Ok(())
}

/// Asks a workload to end, and waits for it.
async fn terminate(node: &Node, id: &ContainerId, grace: Duration) -> Result<(), TeardownError> {
    let running = node.client.get_task(id).await?.is_some_and(|task| task.status == TaskStatus::Running);
    if !running {
        return Ok(());
    }
    node.client.kill_task(id, Signal::SIGTERM, false).await?;
    match tokio::time::timeout(grace, node.client.wait_task(id)).await {
        Ok(result) => result.map(drop).map_err(Into::into),
        Err(_elapsed) => Ok(()),
    }
}

/// Kills and removes one container; whether containerd knew of its task. Its
/// first process takes the others of its PID namespace with it.
async fn remove_container(node: &Node, id: ContainerId) -> Result<bool, TeardownError> {
    let task = node.client.get_task(&id).await?;
    let was_known = task.is_some();
    if task.is_some_and(|task| !matches!(task.status, TaskStatus::Stopped(_))) {
        kill(node, &id).await?;
    }
    fault::point("stop.killed")?;
    // Also where containerd knows of none: one that was killed while it made
    // the task keeps a shim, which is in the way of the next task.
    node.client.delete_task(&id).await?;
    fault::point("stop.task")?;
    node.client.delete_container(&id).await?;
    Ok(was_known)
}

async fn kill(node: &Node, id: &ContainerId) -> Result<(), TeardownError> {
    match node.client.kill_task(id, Signal::SIGKILL, false).await {
        Ok(()) => {}
        // Ended by itself meanwhile: containerd has nothing to signal.
        Err(containerd::Error::Rpc { .. } | containerd::Error::Precondition { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let wait = || tokio::time::timeout(KILL_TIMEOUT, node.client.wait_task(id));
    if let Ok(result) = wait().await {
        return result.map(drop).map_err(Into::into);
    }
    // The runtime lost it: the kernel still knows every process.
    tracing::warn!(container = %id, "killing by cgroup");
    let (cgroups, name) = (node.cgroups.clone(), id.sandbox.to_string());
    blocking(move || cgroups.kill(&name)).await?;
    match wait().await {
        Ok(result) => result.map(drop).map_err(Into::into),
        Err(_elapsed) => Err(containerd::Error::Timeout { operation: "kill", object: id.to_string() }.into()),
    }
}

fn remove_cgroup(cgroups: &host::cgroup::Cgroups, name: &str) -> Result<(), host::Error> {
    let mut attempt = 0;
    loop {
        match cgroups.remove(name) {
            // A process that was killed is counted until the kernel reaped it.
            Err(_) if attempt < CGROUP_ATTEMPTS => {
                cgroups.kill(name)?;
                std::thread::sleep(CGROUP_PERIOD);
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Takes away the mounts, and the directories that held them. They are
/// removed as empty directories: if a mount were left, this fails rather than
/// delete what is mounted there.
fn unmount(dirs: &SandboxDirs) -> Result<(), host::Error> {
    let points = [dirs.rootfs(Role::Workload), dirs.rootfs(Role::Display), dirs.framebuffer(), dirs.shm()];
    for point in &points {
        mount::unmount(point)?;
        files::remove_dir(point)?;
    }
    fault::point("stop.rootfs")?;
    // What a claim brought stays as long as the sandbox: nobody else has it.
    if claimed(&dirs.claim()).is_none() {
        mount::unmount(&dirs.claim())?;
        files::remove_tree(&dirs.claim())?;
    }
    fault::point("stop.claim")?;
    unmount_stage(dirs)?;
    namespaces::remove(&dirs.namespaces())?;
    fault::point("stop.namespaces")?;
    files::remove_dir(&dirs.dir().join("rootfs"))?;
    for small in [dirs.display(), dirs.x11(), dirs.etc()] {
        files::remove_tree(&small)?;
    }
    Ok(())
}

/// Layer clones stay here only if a daemon was killed while it mounted.
fn unmount_stage(dirs: &SandboxDirs) -> Result<(), host::Error> {
    let stage = dirs.stage();
    for entry in std::fs::read_dir(&stage).into_iter().flatten().flatten() {
        mount::unmount(&entry.path())?;
        files::remove_dir(&entry.path())?;
    }
    files::remove_dir(&stage)
}
