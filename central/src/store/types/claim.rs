//! Pools and claims.

use roost_proto::id::{ClaimId, NodeId, PoolName, ProfileName, SandboxId, SandboxName, TemplateName, TenantId};
use roost_proto::model::{BindStep, Claimed, FleetPool, PoolSpec, PoolStanding};

use super::Held;
use crate::store::StoreError;

/// Why a pool is not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutPoolError {
    /// Its template does not exist.
    #[error("the template {0} does not exist")]
    NoTemplate(TemplateName),
    /// Its profile does not exist.
    #[error("the profile {0} does not exist")]
    NoProfile(ProfileName),
    /// The database failed.
    #[error("the pool cannot be stored")]
    Store(#[from] StoreError),
}

/// A pool, and what each of its nodes is to keep.
#[derive(Debug, Clone)]
pub struct PoolWish {
    /// Who owns it.
    pub tenant: TenantId,
    /// The pool.
    pub pool: FleetPool,
    /// What a node is to keep, under the node's name of the pool; else which
    /// template or profile it lacks.
    pub spec: Result<PoolSpec, String>,
}

/// A pool that central has put on a node, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePool {
    /// Its name on the node.
    pub name: PoolName,
    /// Who owns it.
    pub tenant: TenantId,
    /// Its name.
    pub pool: PoolName,
    /// How it stands; none = the node is still to be asked.
    pub standing: Option<PoolStanding>,
}

/// A node in the view of pools.
#[derive(Debug, Clone)]
pub struct PoolNode {
    /// Its id.
    pub id: NodeId,
    /// Who owns it.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// What central has put there, as it was seen last.
    pub held: Vec<NodePool>,
}

/// Everything that the nodes are to keep, and what they keep.
#[derive(Debug, Clone, Default)]
pub struct PoolBoard {
    /// Every pool of every tenant.
    pub wishes: Vec<PoolWish>,
    /// Every node, unless there is no pool at all.
    pub nodes: Vec<PoolNode>,
}

/// A claim that begins.
#[derive(Debug, Clone)]
pub struct NewClaim {
    /// Its id, unless the key has one.
    pub id: ClaimId,
    /// The idempotency key, if one was given.
    pub key: Option<String>,
    /// SHA-256 of the body without content.
    pub body_sha256: String,
    /// Which pool.
    pub pool: PoolName,
    /// Name that the sandbox is to get.
    pub name: Option<SandboxName>,
    /// Node that is asked first.
    pub node_id: Option<NodeId>,
    /// Unix time now, in milliseconds.
    pub now_unix_ms: u64,
}

/// A claim as it stands.
#[derive(Debug, Clone)]
pub struct ClaimRecord {
    /// Its id.
    pub id: ClaimId,
    /// Who claims.
    pub tenant: TenantId,
    /// The idempotency key, if one was given.
    pub key: Option<String>,
    /// SHA-256 of the body without content.
    pub body_sha256: String,
    /// Whether it has a row in the table of sandboxes.
    pub is_kept: bool,
    /// The only node whose answer counts.
    pub node_id: Option<NodeId>,
    /// The sandbox that it has, or that is made for it.
    pub sandbox_id: Option<SandboxId>,
    /// Why no desktop of the pool was taken.
    pub cold_reason: Option<String>,
    /// The answer, once everything was bound.
    pub answer: Option<Box<Claimed>>,
}

/// Why a claim does not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginClaimError {
    /// Another sandbox has the name, or another claim is about to.
    #[error("a sandbox named {0} exists")]
    NameTaken(SandboxName),
    /// The idempotency key came with another body before.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The database failed.
    #[error("the claim cannot be stored")]
    Store(#[from] StoreError),
}

/// Where a claim goes on.
#[derive(Debug, Clone)]
pub struct Aim {
    /// Which claim.
    pub id: ClaimId,
    /// Where it was.
    pub from: Option<NodeId>,
    /// Where it goes.
    pub to: AimAt,
}

/// What a claim aims at.
#[derive(Debug, Clone)]
pub enum AimAt {
    /// A desktop of the pool on this node.
    Node(NodeId),
    /// A sandbox that is made for it.
    Made {
        /// The id that it gets.
        sandbox: SandboxId,
        /// Why none of the pool was taken.
        reason: String,
    },
}

/// What a node did for a claim.
#[derive(Debug, Clone)]
pub struct FinishClaim {
    /// Which claim.
    pub id: ClaimId,
    /// The node.
    pub node_id: NodeId,
    /// The sandbox as the node holds it.
    pub held: Held,
    /// Exit status of the hook.
    pub hook_exit_code: Option<i32>,
    /// Parts of the binding; none = it is not complete.
    pub steps: Option<Vec<BindStep>>,
    /// Unix time now, in milliseconds.
    pub now_unix_ms: u64,
}

/// Why what a node did is not what the claim gets. Its node deletes it.
#[derive(Debug, thiserror::Error)]
pub enum FinishClaimError {
    /// Another request with the same key has another one, or gave up.
    #[error("another request goes on with the claim")]
    Superseded,
    /// The sandbox is being deleted.
    #[error("the sandbox is being deleted")]
    Deleting,
    /// Another sandbox got the name meanwhile.
    #[error("a sandbox named {0} exists")]
    NameTaken(SandboxName),
    /// The database failed; the claim stands and can be finished.
    #[error("the claim cannot be stored")]
    Store(#[from] StoreError),
}
