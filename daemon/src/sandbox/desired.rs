//! What is wanted of a sandbox, and the pair that the outside sees.

use std::sync::Arc;

use roost_proto::id::{SandboxId, SandboxName, TenantId};
use roost_proto::model::{Observed, Resources, RunState, SandboxSpec};
use serde::{Deserialize, Serialize};

/// Who may change a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Listed in central's desired state; local callers only look.
    Central,
    /// Made over the unix socket; central does not know it.
    Local,
}

/// What is wanted of one sandbox: the content of its ledger record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Whose wish this is.
    pub id: SandboxId,
    /// Name for people.
    pub name: Option<SandboxName>,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who may change it.
    pub origin: Origin,
    /// Rises with every change of this wish.
    pub generation: u64,
    /// What is wanted.
    pub run_state: RunState,
    /// Asked restarts so far.
    pub restart_count: u64,
    /// What it is to be.
    pub spec: SandboxSpec,
    /// Requests and limits in place of those of the spec, when they were
    /// changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Unix time of its creation on this node, in milliseconds.
    pub created_at_unix_ms: u64,
}

impl Desired {
    /// The requests and limits that count.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        self.resources.as_ref().unwrap_or(&self.spec.resources)
    }
}

/// Desired and observed state of one sandbox at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// What is wanted.
    pub desired: Arc<Desired>,
    /// What was seen.
    pub observed: Observed,
    /// Position of its last change in the node's sequence of changes.
    pub change: u64,
}
