//! The store: what central must never forget.
//!
//! Two doors, and nothing else: [`Store::tenant`] gives the only handle that
//! knows sandboxes, templates and profiles, and it carries the tenant, so that
//! a missing filter cannot be written; [`Store::system`] is the explicit scope
//! of the node link and of housekeeping. Every committed change is handed to
//! [`ChangeSink`] in the order of the commits.
//!
//! All implementations pass the one suite in `store/conformance.rs`.

pub mod check;
pub mod copy;
mod database;
mod error;
mod types;

#[cfg(test)]
mod conformance;
pub mod postgres;
mod sql;
pub mod sqlite;

use async_trait::async_trait;
use roost_proto::id::{
    ClaimId, JoinTokenId, NodeId, PoolName, ProfileName, SandboxId, SandboxName, TemplateName, TenantId,
};
use roost_proto::model::{
    Claimed, FleetPool, FleetPoolStatus, ImageInfo, ImageRef, NodeCertificate, Orphan, Profile, Sandbox, Template,
};

pub use database::Database;
pub use error::{
    AdoptError, CreateSandboxError, DeleteNodeError, DeleteProfileError, EnrolError, PutTemplateError, ReadmitError,
    SetRunStateError, StoreError, UpdateSandboxError,
};
pub use sql::SqlStore;
pub use types::{
    Aim, AimAt, BeginClaimError, Change, ChangeSink, ClaimRecord, Created, Desired, Ending, Enrolment, Fence,
    FinishClaim, FinishClaimError, HeartbeatBatch, Held, ImageOnNodes, Intent, JoinToken, KeyedAnswer, LinkNode,
    NewClaim, NewJoinToken, NewResources, NewSandbox, NewWish, NodePool, NodeRecord, PlaceFn, PoolBoard, PoolNode,
    PoolWish, PutPoolError, SandboxFilter, SandboxKey, Settled,
};

use crate::secret::SecretHash;

/// A database of central.
pub trait Store: std::fmt::Debug + Send + Sync {
    /// The handle on everything that belongs to one tenant.
    fn tenant(&self, tenant: &TenantId) -> Box<dyn TenantStore>;
    /// Whether replicas of central may share it: what a node says may then
    /// have come to another one.
    fn is_shared(&self) -> bool;
    /// The handle of the node link and of housekeeping, across tenants.
    fn system(&self) -> Box<dyn SystemStore>;
}

/// What belongs to one tenant; every call is confined to it.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// Places and inserts a sandbox in one transaction, or replays the answer
    /// of the same idempotency key.
    async fn create_sandbox(&self, new: NewSandbox, place: PlaceFn) -> Result<Created, CreateSandboxError>;
    /// One sandbox by id or name.
    async fn sandbox(&self, key: SandboxKey) -> Result<Option<Sandbox>, StoreError>;
    /// What an idempotency key stands for; `request`: SHA-256 of the request.
    async fn recall_key(&self, key: String, request: String) -> Result<KeyedAnswer, StoreError>;
    /// Takes a key for the SHA-256 of a request; false if it is taken.
    async fn take_key(&self, key: (String, String), answer: String, now_unix_ms: u64) -> Result<bool, StoreError>;
    /// Keeps the answer to the request that has taken the key.
    async fn keep_key(&self, key: (String, String), answer: String) -> Result<(), StoreError>;
    /// Why a sandbox is gone, if its time was over, for a day.
    async fn ending(&self, key: SandboxKey) -> Result<Option<Ending>, StoreError>;
    /// At most `limit` sandboxes in the order of their creation.
    async fn sandboxes(&self, filter: SandboxFilter, limit: u32) -> Result<Vec<Sandbox>, StoreError>;
    /// Changes what is wanted of a sandbox; no change when it is wanted already.
    async fn set_run_state(&self, key: SandboxKey, new: NewWish) -> Result<Created, SetRunStateError>;
    /// Changes requests, limits and times, with the room that they take on the node;
    /// no change when they are so already.
    async fn set_resources(&self, key: SandboxKey, new: NewResources) -> Result<Created, UpdateSandboxError>;

    /// Every sandbox that was found on a node after this database went back in
    /// time, until somebody decides on it; by id.
    async fn orphans(&self) -> Result<Vec<Orphan>, StoreError>;
    /// Makes an orphan a sandbox like any other, under `name` or else the name
    /// that it had.
    async fn adopt_orphan(&self, id: SandboxId, name: Option<SandboxName>) -> Result<Sandbox, AdoptError>;
    /// Has its node delete an orphan.
    async fn remove_orphan(&self, id: SandboxId) -> Result<Sandbox, AdoptError>;

    /// All templates by name.
    async fn templates(&self) -> Result<Vec<Template>, StoreError>;
    /// One template.
    async fn template(&self, name: TemplateName) -> Result<Option<Template>, StoreError>;
    /// Creates or replaces a template; true if it was created.
    async fn put_template(&self, template: Template) -> Result<bool, PutTemplateError>;
    /// Removes a template; false if there was none.
    async fn delete_template(&self, name: TemplateName) -> Result<bool, StoreError>;

    /// All profiles by name.
    async fn profiles(&self) -> Result<Vec<Profile>, StoreError>;
    /// One profile.
    async fn profile(&self, name: ProfileName) -> Result<Option<Profile>, StoreError>;
    /// Creates or replaces a profile; true if it was created.
    async fn put_profile(&self, profile: Profile) -> Result<bool, StoreError>;
    /// Removes a profile that no template names.
    async fn delete_profile(&self, name: ProfileName) -> Result<(), DeleteProfileError>;

    /// Every pool, and how it stands on the nodes; by name.
    async fn pools(&self) -> Result<Vec<FleetPoolStatus>, StoreError>;
    /// One pool.
    async fn pool(&self, name: PoolName) -> Result<Option<FleetPoolStatus>, StoreError>;
    /// Creates or replaces a pool; true if it was created.
    async fn put_pool(&self, pool: FleetPool) -> Result<bool, PutPoolError>;
    /// Removes a pool; false if there was none. What nodes keep of it stays
    /// known until they have let it go.
    async fn delete_pool(&self, name: PoolName) -> Result<bool, StoreError>;

    /// Keeps that a claim was made, before any node is asked; where the key is
    /// known, the claim that it has.
    async fn begin_claim(&self, new: NewClaim) -> Result<ClaimRecord, BeginClaimError>;
    /// Moves a claim to another node, or to a sandbox of its own; false if it
    /// is not where the caller thinks.
    async fn aim_claim(&self, aim: Aim) -> Result<bool, StoreError>;
    /// Makes what a node gave to a claim a sandbox like any other, and takes
    /// its room. May be called again.
    async fn finish_claim(&self, finish: FinishClaim) -> Result<Claimed, FinishClaimError>;
    /// One claim.
    async fn claim(&self, id: ClaimId) -> Result<Option<ClaimRecord>, StoreError>;
    /// Forgets a claim that got nothing.
    async fn drop_claim(&self, id: ClaimId) -> Result<(), StoreError>;

    /// All nodes by name.
    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError>;
    /// Takes a node back that is not known, to be compared with this database
    /// at its first session; a taken name gets the end of the id appended.
    async fn readmit_node(&self, id: NodeId, name: String, now_unix_ms: u64) -> Result<(), ReadmitError>;
    /// One node.
    async fn node(&self, id: NodeId) -> Result<Option<NodeRecord>, StoreError>;
    /// Removes a node; how many sandboxes went with it. Only with `force` may
    /// it hold any: they are told Gone, with the reason `node-lost` where the
    /// engine tells of states in between.
    async fn delete_node(&self, id: NodeId, force: bool) -> Result<u64, DeleteNodeError>;
    /// Every image and the nodes that hold it.
    async fn images(&self) -> Result<Vec<ImageOnNodes>, StoreError>;

    /// Keeps a new join token.
    async fn create_join_token(&self, token: NewJoinToken) -> Result<(), StoreError>;
    /// All join tokens that are neither used nor expired at `now_unix_ms`.
    async fn join_tokens(&self, now_unix_ms: u64) -> Result<Vec<JoinToken>, StoreError>;
    /// Removes a join token; false if there was none.
    async fn delete_join_token(&self, id: JoinTokenId) -> Result<bool, StoreError>;
    /// Makes this the admin token of the tenant; those before it are good until
    /// `old_until_unix_ms`, and no longer at all when that is not later than now.
    async fn replace_admin_token(
        &self,
        secret: SecretHash,
        now_unix_ms: u64,
        old_until_unix_ms: u64,
    ) -> Result<(), StoreError>;
    /// Keeps an admin token if the tenant has none; true if it was kept.
    async fn add_first_admin_token(&self, secret: SecretHash, now_unix_ms: u64) -> Result<bool, StoreError>;
    /// Whether the tenant has an admin token.
    async fn has_admin_token(&self) -> Result<bool, StoreError>;
}

/// What crosses tenants: nodes that report, tokens that are presented,
/// housekeeping. Never handed to a request of a person.
#[async_trait]
pub trait SystemStore: Send + Sync {
    /// Creates a tenant where it does not exist.
    async fn ensure_tenant(&self, tenant: TenantId, now_unix_ms: u64) -> Result<(), StoreError>;
    /// The tenant whose API token hashes to this and has not ended.
    async fn find_api_token(&self, secret: SecretHash, now_unix_ms: u64) -> Result<Option<TenantId>, StoreError>;

    /// Consumes a join token and adds its node, atomically.
    async fn enrol(&self, enrolment: Enrolment) -> Result<(), EnrolError>;
    /// What the link must know of a node; none if it is not enrolled.
    async fn link_node(&self, id: NodeId) -> Result<Option<LinkNode>, StoreError>;
    /// Notes which replica of central has the session of a node.
    async fn hold_node(&self, id: NodeId, replica: String, now_unix_ms: u64) -> Result<(), StoreError>;
    /// Keeps the certificate that a node presents.
    async fn save_certificate(&self, id: NodeId, certificate: NodeCertificate) -> Result<(), StoreError>;
    /// Has the replica that has the session of a node ask it to renew its
    /// certificate.
    async fn ask_renewal(&self, id: NodeId) -> Result<(), StoreError>;
    /// What is wanted of a node, beyond `base` or, without one, as a whole.
    async fn desired(&self, id: NodeId, base: Option<u64>) -> Result<Desired, StoreError>;
    /// Raises the desired generation of a node above `held`.
    async fn raise_generation(&self, id: NodeId, held: u64) -> Result<(), StoreError>;
    /// Notes that this database went back in time: from now on the sandboxes
    /// of every node are compared with it before the node is told anything. How
    /// many nodes that are.
    async fn mark_restored(&self, now_unix_ms: u64) -> Result<u64, StoreError>;
    /// How many nodes are still to be compared.
    async fn unsettled(&self) -> Result<u64, StoreError>;
    /// Compares everything that a node holds of central with what is wanted of
    /// it, and keeps what is not known as orphans. The desired generation of
    /// the node rises above `node_generation`.
    async fn settle(
        &self,
        id: NodeId,
        held: Vec<Held>,
        node_generation: u64,
        now_unix_ms: u64,
    ) -> Result<Settled, StoreError>;
    /// Applies one heartbeat in one transaction; false, and nothing is changed,
    /// if its session does not speak for the node any more.
    async fn apply_heartbeat(&self, batch: HeartbeatBatch) -> Result<bool, StoreError>;
    /// Adds an image that a node has just confirmed, ahead of its heartbeat.
    async fn add_image(&self, node: NodeId, image: ImageInfo) -> Result<(), StoreError>;
    /// Forgets an image that a node has just removed.
    async fn remove_image(&self, node: NodeId, reference: ImageRef) -> Result<(), StoreError>;

    /// What all nodes are to keep of pools, and what they keep.
    async fn pool_board(&self) -> Result<PoolBoard, StoreError>;
    /// Replaces what is known of the pools that central has put on a node.
    async fn keep_node_pools(&self, node: NodeId, pools: Vec<NodePool>, now_unix_ms: u64) -> Result<(), StoreError>;
    /// Claims that began before a time and got nothing yet, oldest first, at
    /// most `limit`.
    async fn stale_claims(&self, before_unix_ms: u64, limit: u32) -> Result<Vec<ClaimRecord>, StoreError>;

    /// The last heartbeat of every node, Unix time in milliseconds.
    async fn heartbeat_times(&self) -> Result<Vec<(NodeId, Option<u64>)>, StoreError>;
    /// Keeps the last heartbeat of some nodes.
    async fn save_heartbeat_times(&self, times: Vec<(NodeId, u64)>) -> Result<(), StoreError>;
    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
    /// How many sandboxes are in each phase.
    async fn count_phases(&self) -> Result<Vec<(String, u64)>, StoreError>;
    /// Drops idempotency keys, spent join tokens and replaced tokens older than `before_unix_ms`.
    async fn expire(&self, before_unix_ms: u64) -> Result<u64, StoreError>;
}
