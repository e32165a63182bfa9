//! The process that a claim is brought to, and what was brought to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use roost_proto::id::{ClaimId, SandboxId};
use serde::{Deserialize, Serialize};

use super::{BindError, Bound};
use crate::containerd::{ContainerId, Role};
use crate::host::process::Process;
use crate::host::{Error, files};
use crate::sandbox::Node;

/// First processes of workloads, as containerd told when it made them: asking
/// it for one takes longer than a whole claim should.
#[derive(Debug, Default)]
pub struct WorkloadPids(Mutex<HashMap<SandboxId, u32>>);

impl WorkloadPids {
    /// Keeps what was told.
    pub fn keep(&self, id: &SandboxId, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), pid);
    }

    /// Forgets a sandbox.
    pub fn forget(&self, id: &SandboxId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn get(&self, id: &SandboxId) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }
}

/// The first process of a sandbox's workload.
///
/// # Errors
/// [`BindError::NotRunning`], or that it cannot be asked for.
pub async fn workload(node: &Node, id: &SandboxId) -> Result<Process, BindError> {
    let namespaces = node.layout.sandbox(id).namespaces();
    if let Some(pid) = node.workload_pids.get(id)
        && let Some(process) = Process::of(pid, &namespaces)?
    {
        return Ok(process);
    }
    let task = node.client.get_task(&ContainerId::new(id, Role::Workload)).await?;
    let pid = task.map(|task| task.pid).filter(|pid| *pid != 0).ok_or(BindError::NotRunning)?;
    let process = Process::of(pid, &namespaces)?.ok_or(BindError::NotRunning)?;
    node.workload_pids.keep(id, pid);
    Ok(process)
}

/// That a claim is bound, written beside what was laid out: it lives as long
/// as the workload that has it, so that no disk is waited for.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Receipt {
    claim_id: ClaimId,
    pid: u32,
    started_at_ticks: u64,
    hook_exit_code: Option<i32>,
}

fn receipt(dir: &Path) -> PathBuf {
    dir.join("bound")
}

/// Notes that the claim is bound to this process.
pub(super) fn note_bound(dir: &Path, claim_id: &ClaimId, process: &Process, bound: &Bound) -> Result<(), Error> {
    let note = Receipt {
        claim_id: claim_id.clone(),
        pid: process.pid(),
        started_at_ticks: process.started_at_ticks()?,
        hook_exit_code: bound.hook_exit_code,
    };
    let text = serde_json::json!(note).to_string();
    // Of the daemon's alone: the sandbox sees the directory.
    files::replace(&receipt(dir), text.as_bytes(), 0o400, (0, 0))
}

/// What was bound to this process before, by a daemon that was killed since.
pub(super) fn bound_before(dir: &Path, claim_id: &ClaimId, process: &Process) -> Result<Option<Bound>, Error> {
    let path = receipt(dir);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::path("read", path, error)),
    };
    let Ok(note) = serde_json::from_slice::<Receipt>(&text) else { return Ok(None) };
    let is_it = note.claim_id == *claim_id
        && note.pid == process.pid()
        && note.started_at_ticks == process.started_at_ticks()?;
    Ok(is_it.then(|| Bound { hook_exit_code: note.hook_exit_code, ..Bound::default() }))
}
