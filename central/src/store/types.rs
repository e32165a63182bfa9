//! What goes into the store and comes out of it, beyond the shared model.

mod claim;

use std::collections::HashSet;

use roost_proto::id::{JoinTokenId, NodeId, SandboxId, SandboxName, TemplateName, TenantId};
use roost_proto::model::{
    ImageInfo, Lifetime, NodeCertificate, NodeStatus, Observed, Phase, Resources, RunState, Sandbox, SandboxSpec,
    UpdateSandbox,
};

pub use claim::{
    Aim, AimAt, BeginClaimError, ClaimRecord, FinishClaim, FinishClaimError, NewClaim, NodePool, PoolBoard, PoolNode,
    PoolWish, PutPoolError,
};

use tokio_util::sync::CancellationToken;

use crate::place::{PlaceError, Room};
use crate::secret::SecretHash;

/// Chooses a node; runs inside the transaction that inserts, again when the
/// transaction begins anew.
pub type PlaceFn = Box<dyn Fn(&[Room]) -> Result<NodeId, PlaceError> + Send>;

/// How a sandbox is named in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxKey {
    /// By its id.
    Id(SandboxId),
    /// By its name, unique in the tenant.
    Name(SandboxName),
}

impl std::fmt::Display for SandboxKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A sandbox that is to be placed and inserted.
#[derive(Debug, Clone)]
pub struct NewSandbox {
    /// Node to try first, without a look at the others.
    pub hint: Option<NodeId>,
    /// Its id.
    pub id: SandboxId,
    /// Its name, if it is to have one.
    pub name: Option<SandboxName>,
    /// What it is to be.
    pub spec: SandboxSpec,
    /// Key and SHA-256 of the body, when the caller gave a key.
    pub idempotency: Option<(String, String)>,
    /// Unix time of its creation, in milliseconds.
    pub now_unix_ms: u64,
}

/// Why a sandbox is gone, whose time was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Stable word, e.g. `expired-ttl`.
    pub reason: String,
    /// One sentence for people, with the next step.
    pub message: String,
    /// Unix time at which nothing was left of it, in milliseconds.
    pub ended_at_unix_ms: u64,
}

/// A change of requests, limits and times.
#[derive(Debug, Clone)]
pub struct NewResources {
    /// What changes.
    pub change: UpdateSandbox,
    /// Generation that the sandbox must have, when the caller named one.
    pub if_generation: Option<u64>,
    /// Key and SHA-256 of the body, when the caller gave a key.
    pub idempotency: Option<(String, String)>,
    /// Unix time now, in milliseconds.
    pub now_unix_ms: u64,
}

/// The answer to a creation.
#[derive(Debug, Clone)]
pub struct Created {
    /// The sandbox as it was first answered.
    pub sandbox: Sandbox,
    /// True if this is the answer of an earlier request with the same key.
    pub replayed: bool,
}

/// A wish for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Intent {
    /// Run; a Failed one is started again.
    Start,
    /// Stop, and keep what it holds.
    Stop,
    /// Stop and run again.
    Restart,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Remove it with everything it holds.
    Delete,
}

/// A wish with all that was said about it.
#[derive(Debug, Clone)]
pub struct NewWish {
    /// What is wished.
    pub intent: Intent,
    /// Key and SHA-256 of the request, when the caller gave a key.
    pub idempotency: Option<(String, String)>,
    /// Unix time now, in milliseconds.
    pub now_unix_ms: u64,
}

impl From<Intent> for NewWish {
    fn from(intent: Intent) -> Self {
        Self { intent, idempotency: None, now_unix_ms: 0 }
    }
}

/// What an idempotency key stands for, whose answer is a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyedAnswer {
    /// Nothing yet.
    New,
    /// Another request.
    Reused,
    /// This request; the answer that was kept of it.
    Answer(String),
}

/// Which sandboxes a list shows.
#[derive(Debug, Clone, Default)]
pub struct SandboxFilter {
    /// Only those in this phase.
    pub phase: Option<Phase>,
    /// Only those of this template.
    pub template: Option<TemplateName>,
    /// Only those on this node.
    pub node: Option<NodeId>,
    /// Only those after this creation time and id.
    pub after: Option<(u64, SandboxId)>,
}

/// A node as the store knows it; how well it is heard is in memory.
#[derive(Debug, Clone)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What it said of itself, with the images it holds; the load is not kept.
    pub status: NodeStatus,
    /// CPU requested by what is placed there, in thousandths of a core.
    pub cpu_requested_millis: u64,
    /// Memory requested by what is placed there, in bytes.
    pub memory_requested_bytes: u64,
    /// Sandboxes placed there.
    pub sandboxes: u64,
    /// Unix time of its enrolment, in milliseconds.
    pub enrolled_at_unix_ms: u64,
    /// The certificate that it presents; none before its first session.
    pub certificate: Option<NodeCertificate>,
    /// Unix time since which what runs on it was not compared with this
    /// database, which went back in time; in milliseconds, none = it was.
    pub unsettled_at_unix_ms: Option<u64>,
    /// Those of its sandboxes that this database did not know.
    pub orphans: u64,
}

/// One image and where it is.
#[derive(Debug, Clone)]
pub struct ImageOnNodes {
    /// The image; the same reference with another digest is another entry.
    pub image: ImageInfo,
    /// Nodes that hold it.
    pub nodes: Vec<NodeId>,
}

/// A join token to be kept.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// What is kept of its secret.
    pub secret: SecretHash,
    /// Unix time of its creation, in milliseconds.
    pub created_at_unix_ms: u64,
    /// Unix time of its end, in milliseconds.
    pub expires_at_unix_ms: u64,
}

/// A join token that can still be used.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// Unix time of its creation, in milliseconds.
    pub created_at_unix_ms: u64,
    /// Unix time of its end, in milliseconds.
    pub expires_at_unix_ms: u64,
}

/// A node that presents a join token.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// What it presented, hashed.
    pub token: SecretHash,
    /// The id it is to get.
    pub node_id: NodeId,
    /// The name it asks for; a taken one gets the end of the id appended.
    pub name: String,
    /// Unix time now, in milliseconds.
    pub now_unix_ms: u64,
}

/// What the link must know of a node.
#[derive(Debug, Clone)]
pub struct LinkNode {
    /// Its name.
    pub name: String,
    /// Daemon process whose observations are stored; empty before any.
    pub instance_id: String,
    /// Generation of its desired state.
    pub desired_generation: u64,
    /// Replica of central that had its last session; none before any, and
    /// where there is one central only.
    pub held_by: Option<String>,
    /// The certificate that it presented last.
    pub certificate: Option<NodeCertificate>,
    /// Whether the database went back in time since its last session.
    pub is_unsettled: bool,
}

/// A sandbox of central as its node holds it.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its id.
    pub id: SandboxId,
    /// The name that central gave it.
    pub name: Option<SandboxName>,
    /// Generation of the wish that the node has.
    pub generation: u64,
    /// What that wishes.
    pub run_state: RunState,
    /// Asked restarts so far.
    pub restart_count: u64,
    /// What it is.
    pub spec: SandboxSpec,
    /// Requests and limits in place of those of the spec.
    pub resources: Option<Resources>,
    /// Whether its processes are to stand still.
    pub paused: bool,
    /// Lifetime in place of that of the spec.
    pub lifetime: Option<Lifetime>,
    /// Times to live that were set so far.
    pub ttl_count: u64,
    /// What the node sees of it.
    pub observed: Observed,
    /// Unix time of its creation on the node, in milliseconds.
    pub created_at_unix_ms: u64,
}

/// What a comparison of a node with a database that went back in time found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Sandboxes that the database did not know; the node keeps them.
    pub orphans: u64,
    /// Sandboxes of which the database wants something else than the node has.
    pub changed: u64,
    /// Sandboxes that the database has on another node; this one is to delete
    /// them.
    pub foreign: Vec<SandboxId>,
}

/// Desired state of a node.
#[derive(Debug, Clone)]
pub struct Desired {
    /// Its generation.
    pub generation: u64,
    /// Everything wanted, or what changed beyond the base.
    pub sandboxes: Vec<Sandbox>,
}

/// Whether the session of a heartbeat is the one that speaks for its node. It
/// is asked within the transaction: what an older session had on its way must
/// not undo what a newer one has said.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    /// Cancelled when a newer session has begun here, or the node was removed.
    pub closed: CancellationToken,
    /// The replica of central that has the session, where there are several.
    pub replica: Option<String>,
}

/// One heartbeat, as far as it is news.
#[derive(Debug, Clone)]
pub struct HeartbeatBatch {
    /// Of which session.
    pub fence: Fence,
    /// From which node.
    pub node_id: NodeId,
    /// Its daemon process.
    pub instance_id: String,
    /// True if the daemon process is new: its revisions begin again.
    pub reset_revisions: bool,
    /// For a full heartbeat: everything that exists on the node.
    pub listed: Option<HashSet<SandboxId>>,
    /// Generation of desired state that the node has made durable: only what
    /// it was told to delete up to there can be missing for good.
    pub acked_generation: u64,
    /// Status, when it changed.
    pub status: Option<NodeStatus>,
    /// Observations that changed.
    pub observed: Vec<(SandboxId, Observed)>,
    /// Unix time now, in milliseconds.
    pub now_unix_ms: u64,
}

/// A committed change.
#[derive(Debug, Clone)]
pub enum Change {
    /// A sandbox is new or different.
    Sandbox(Box<Sandbox>),
    /// A sandbox is gone.
    Gone {
        /// Who owned it.
        tenant: TenantId,
        /// Which one.
        id: SandboxId,
    },
    /// The desired state of a node has this generation now.
    Desired {
        /// Which node.
        node_id: NodeId,
        /// The generation.
        generation: u64,
    },
    /// A node was removed: its session ends, wherever that is.
    Removed(NodeId),
    /// A node is to renew its certificate now, wherever its session is.
    Renew(NodeId),
}

/// Receives every change after its commit, in the order of the commits. Of a
/// sandbox that changes quickly only the newest state may come.
/// Must not block: the database waits for it.
pub trait ChangeSink: std::fmt::Debug + Send + Sync {
    /// Takes the changes of one commit.
    fn committed(&self, changes: Vec<Change>);
    /// Changes may have been missed: whoever follows them must look anew.
    fn gap(&self);
}

/// Text of a run state in the database.
pub(super) fn run_state_text(run_state: RunState) -> &'static str {
    match run_state {
        RunState::Running => "running",
        RunState::Stopped => "stopped",
        RunState::Deleted => "deleted",
    }
}
