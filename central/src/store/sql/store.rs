//! The calls of the store, each as one transaction.

use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use roost_proto::id::{
    ClaimId, JoinTokenId, NodeId, PoolName, ProfileName, SandboxId, SandboxName, TemplateName, TenantId,
};
use roost_proto::model::{
    Claimed, FleetPool, FleetPoolStatus, ImageInfo, ImageRef, NodeCertificate, Orphan, Profile, Sandbox, Template,
};

use tokio_util::sync::DropGuard;

use super::{
    Queues, Transaction, claim, heartbeat, keyed, node, orphan, pool, resources, sandbox, template, timing, token, wish,
};
use crate::secret::SecretHash;
use crate::store::*;

/// A store over a driver.
#[derive(Debug, Clone)]
pub struct SqlStore {
    queues: Queues,
    /// Ends the change feed, where other replicas may change things too.
    feed: Option<Arc<DropGuard>>,
    /// Keeps imports out, where the database is a file.
    _lock: Option<Arc<File>>,
}

impl SqlStore {
    /// A store that hands its work to these queues.
    pub(in crate::store) fn new(queues: Queues) -> Self {
        Self { queues, feed: None, _lock: None }
    }

    /// The same on a file, with what keeps imports out of it.
    pub(in crate::store) fn with_lock(queues: Queues, lock: File) -> Self {
        Self { _lock: Some(Arc::new(lock)), ..Self::new(queues) }
    }

    /// The same on a database that replicas share, with what ends its feed.
    pub(in crate::store) fn with_feed(queues: Queues, feed: DropGuard) -> Self {
        Self { feed: Some(Arc::new(feed)), ..Self::new(queues) }
    }
}

impl Store for SqlStore {
    fn tenant(&self, tenant: &TenantId) -> Box<dyn TenantStore> {
        Box::new(SqlTenant { queues: self.queues.clone(), tenant: tenant.clone() })
    }

    fn is_shared(&self) -> bool {
        self.feed.is_some()
    }

    fn system(&self) -> Box<dyn SystemStore> {
        Box::new(SqlSystem { queues: self.queues.clone() })
    }
}

struct SqlTenant {
    queues: Queues,
    tenant: TenantId,
}

struct SqlSystem {
    queues: Queues,
}

#[async_trait]
impl TenantStore for SqlTenant {
    async fn create_sandbox(&self, new: NewSandbox, place: PlaceFn) -> Result<Created, CreateSandboxError> {
        let tenant = self.tenant.clone();
        self.queues.write_latest("create_sandbox", move |tx, out| sandbox::create(tx, &tenant, &new, &place, out)).await
    }

    async fn sandbox(&self, key: SandboxKey) -> Result<Option<Sandbox>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("sandbox", move |tx| sandbox::find(tx, &tenant, &key)).await
    }

    async fn recall_key(&self, key: String, request: String) -> Result<KeyedAnswer, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("recall_key", move |tx| keyed::recall(tx, &tenant, &key, &request)).await
    }

    async fn take_key(&self, key: (String, String), answer: String, now_unix_ms: u64) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("take_key", move |tx, _| keyed::take(tx, &tenant, &key, &answer, now_unix_ms)).await
    }

    async fn keep_key(&self, key: (String, String), answer: String) -> Result<(), StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("keep_key", move |tx, _| keyed::keep(tx, &tenant, &key, &answer)).await
    }

    async fn ending(&self, key: SandboxKey) -> Result<Option<Ending>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("ending", move |tx| timing::ending(tx, &tenant, &key)).await
    }

    async fn sandboxes(&self, filter: SandboxFilter, limit: u32) -> Result<Vec<Sandbox>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("sandboxes", move |tx| sandbox::list(tx, &tenant, &filter, limit)).await
    }

    async fn set_run_state(&self, key: SandboxKey, new: NewWish) -> Result<Created, SetRunStateError> {
        let tenant = self.tenant.clone();
        self.queues.write("set_run_state", move |tx, out| wish::set(tx, &tenant, &key, &new, out)).await
    }

    async fn set_resources(&self, key: SandboxKey, new: NewResources) -> Result<Created, UpdateSandboxError> {
        let tenant = self.tenant.clone();
        self.queues.write("set_resources", move |tx, out| resources::set(tx, &tenant, &key, &new, out)).await
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("orphans", move |tx| orphan::list(tx, &tenant)).await
    }

    async fn adopt_orphan(&self, id: SandboxId, name: Option<SandboxName>) -> Result<Sandbox, AdoptError> {
        let tenant = self.tenant.clone();
        let adopt =
            move |tx: &dyn Transaction, out: &mut Vec<Change>| orphan::adopt(tx, &tenant, &id, name.as_ref(), out);
        self.queues.write("adopt_orphan", adopt).await
    }

    async fn remove_orphan(&self, id: SandboxId) -> Result<Sandbox, AdoptError> {
        let tenant = self.tenant.clone();
        self.queues.write("remove_orphan", move |tx, out| orphan::remove(tx, &tenant, &id, out)).await
    }

    async fn templates(&self) -> Result<Vec<Template>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("templates", move |tx| template::templates(tx, &tenant)).await
    }

    async fn template(&self, name: TemplateName) -> Result<Option<Template>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("template", move |tx| template::template(tx, &tenant, &name)).await
    }

    async fn put_template(&self, new: Template) -> Result<bool, PutTemplateError> {
        let tenant = self.tenant.clone();
        self.queues.write("put_template", move |tx, _| template::put_template(tx, &tenant, &new)).await
    }

    async fn delete_template(&self, name: TemplateName) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("delete_template", move |tx, _| template::delete_template(tx, &tenant, &name)).await
    }

    async fn profiles(&self) -> Result<Vec<Profile>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("profiles", move |tx| template::profiles(tx, &tenant)).await
    }

    async fn profile(&self, name: ProfileName) -> Result<Option<Profile>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("profile", move |tx| template::profile(tx, &tenant, &name)).await
    }

    async fn put_profile(&self, new: Profile) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("put_profile", move |tx, _| template::put_profile(tx, &tenant, &new)).await
    }

    async fn delete_profile(&self, name: ProfileName) -> Result<(), DeleteProfileError> {
        let tenant = self.tenant.clone();
        self.queues.write("delete_profile", move |tx, _| template::delete_profile(tx, &tenant, &name)).await
    }

    async fn pools(&self) -> Result<Vec<FleetPoolStatus>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("pools", move |tx| pool::list(tx, &tenant)).await
    }

    async fn pool(&self, name: PoolName) -> Result<Option<FleetPoolStatus>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("pool", move |tx| pool::status(tx, &tenant, &name)).await
    }

    async fn put_pool(&self, new: FleetPool) -> Result<bool, PutPoolError> {
        let tenant = self.tenant.clone();
        self.queues.write("put_pool", move |tx, _| pool::put(tx, &tenant, &new)).await
    }

    async fn delete_pool(&self, name: PoolName) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("delete_pool", move |tx, _| pool::delete(tx, &tenant, &name)).await
    }

    async fn begin_claim(&self, new: NewClaim) -> Result<ClaimRecord, BeginClaimError> {
        let tenant = self.tenant.clone();
        self.queues.write_latest("begin_claim", move |tx, _| claim::begin(tx, &tenant, &new)).await
    }

    async fn aim_claim(&self, aim: Aim) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write_latest("aim_claim", move |tx, _| claim::aim(tx, &tenant, &aim)).await
    }

    async fn finish_claim(&self, finish: FinishClaim) -> Result<Claimed, FinishClaimError> {
        let tenant = self.tenant.clone();
        let finished =
            self.queues.write_latest("finish_claim", move |tx, out| claim::finish(tx, &tenant, &finish, out)).await?;
        finished.into_result()
    }

    async fn claim(&self, id: ClaimId) -> Result<Option<ClaimRecord>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("claim", move |tx| claim::find(tx, &tenant, &id)).await
    }

    async fn drop_claim(&self, id: ClaimId) -> Result<(), StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("drop_claim", move |tx, _| claim::drop_asked(tx, &tenant, &id)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("nodes", move |tx| node::list(tx, &tenant)).await
    }

    async fn readmit_node(&self, id: NodeId, name: String, now_unix_ms: u64) -> Result<(), ReadmitError> {
        let tenant = self.tenant.clone();
        self.queues.write("readmit_node", move |tx, _| node::readmit(tx, &tenant, &id, &name, now_unix_ms)).await
    }

    async fn node(&self, id: NodeId) -> Result<Option<NodeRecord>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("node", move |tx| node::find(tx, &tenant, &id)).await
    }

    async fn delete_node(&self, id: NodeId, force: bool) -> Result<u64, DeleteNodeError> {
        let tenant = self.tenant.clone();
        self.queues.write("delete_node", move |tx, out| node::delete(tx, &tenant, &id, force, out)).await
    }

    async fn images(&self) -> Result<Vec<ImageOnNodes>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("images", move |tx| node::images(tx, &tenant)).await
    }

    async fn create_join_token(&self, new: NewJoinToken) -> Result<(), StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("create_join_token", move |tx, _| token::create_join_token(tx, &tenant, &new)).await
    }

    async fn join_tokens(&self, now_unix_ms: u64) -> Result<Vec<JoinToken>, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("join_tokens", move |tx| token::join_tokens(tx, &tenant, now_unix_ms)).await
    }

    async fn delete_join_token(&self, id: JoinTokenId) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.write("delete_join_token", move |tx, _| token::delete_join_token(tx, &tenant, &id)).await
    }

    async fn replace_admin_token(
        &self,
        secret: SecretHash,
        now_unix_ms: u64,
        old_until_unix_ms: u64,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant.clone();
        let work = move |tx: &dyn Transaction, _: &mut Vec<Change>| {
            token::replace_admin(tx, &tenant, &secret, now_unix_ms, old_until_unix_ms)
        };
        self.queues.write("replace_admin_token", work).await
    }

    async fn add_first_admin_token(&self, secret: SecretHash, now_unix_ms: u64) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        let add =
            move |tx: &dyn Transaction, _: &mut Vec<Change>| token::add_first_admin(tx, &tenant, &secret, now_unix_ms);
        self.queues.write("add_first_admin_token", add).await
    }

    async fn has_admin_token(&self) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.queues.read("has_admin_token", move |tx| token::has_admin(tx, &tenant)).await
    }
}

#[async_trait]
impl SystemStore for SqlSystem {
    async fn ensure_tenant(&self, tenant: TenantId, now_unix_ms: u64) -> Result<(), StoreError> {
        self.queues.write("ensure_tenant", move |tx, _| token::ensure_tenant(tx, &tenant, now_unix_ms)).await
    }

    async fn find_api_token(&self, secret: SecretHash, now_unix_ms: u64) -> Result<Option<TenantId>, StoreError> {
        self.queues.read("find_api_token", move |tx| token::find_api_token(tx, &secret, now_unix_ms)).await
    }

    async fn enrol(&self, enrolment: Enrolment) -> Result<(), EnrolError> {
        self.queues.write("enrol", move |tx, _| node::enrol(tx, &enrolment)).await
    }

    async fn link_node(&self, id: NodeId) -> Result<Option<LinkNode>, StoreError> {
        self.queues.read("link_node", move |tx| node::link_node(tx, &id)).await
    }

    async fn hold_node(&self, id: NodeId, replica: String, now_unix_ms: u64) -> Result<(), StoreError> {
        self.queues.write_latest("hold_node", move |tx, _| node::hold(tx, &id, &replica, now_unix_ms)).await
    }

    async fn save_certificate(&self, id: NodeId, certificate: NodeCertificate) -> Result<(), StoreError> {
        self.queues.write("save_certificate", move |tx, _| node::save_certificate(tx, &id, &certificate)).await
    }

    async fn ask_renewal(&self, id: NodeId) -> Result<(), StoreError> {
        let ask = move |_: &dyn Transaction, out: &mut Vec<Change>| {
            out.push(Change::Renew(id.clone()));
            Ok(())
        };
        self.queues.write("ask_renewal", ask).await
    }

    async fn desired(&self, id: NodeId, base: Option<u64>) -> Result<Desired, StoreError> {
        self.queues.read("desired", move |tx| sandbox::desired(tx, &id, base)).await
    }

    async fn raise_generation(&self, id: NodeId, held: u64) -> Result<(), StoreError> {
        self.queues.write("raise_generation", move |tx, _| node::raise_generation(tx, &id, held)).await
    }

    async fn mark_restored(&self, now_unix_ms: u64) -> Result<u64, StoreError> {
        self.queues.write("mark_restored", move |tx, _| orphan::mark(tx, now_unix_ms)).await
    }

    async fn unsettled(&self) -> Result<u64, StoreError> {
        self.queues.read("unsettled", orphan::unsettled).await
    }

    async fn settle(
        &self,
        id: NodeId,
        held: Vec<Held>,
        node_generation: u64,
        now_unix_ms: u64,
    ) -> Result<Settled, StoreError> {
        let settle = move |tx: &dyn Transaction, _: &mut Vec<Change>| {
            orphan::settle(tx, &id, &held, node_generation, now_unix_ms)
        };
        self.queues.write("settle", settle).await
    }

    async fn apply_heartbeat(&self, batch: HeartbeatBatch) -> Result<bool, StoreError> {
        self.queues.write("apply_heartbeat", move |tx, out| heartbeat::apply(tx, &batch, out)).await
    }

    async fn add_image(&self, node: NodeId, image: ImageInfo) -> Result<(), StoreError> {
        self.queues.write("add_image", move |tx, _| node::add_image(tx, &node, &image)).await
    }

    async fn remove_image(&self, node: NodeId, reference: ImageRef) -> Result<(), StoreError> {
        self.queues.write("remove_image", move |tx, _| node::remove_image(tx, &node, &reference)).await
    }

    async fn pool_board(&self) -> Result<PoolBoard, StoreError> {
        self.queues.read("pool_board", pool::board).await
    }

    async fn keep_node_pools(&self, node: NodeId, pools: Vec<NodePool>, now_unix_ms: u64) -> Result<(), StoreError> {
        self.queues.write("keep_node_pools", move |tx, _| pool::keep(tx, &node, &pools, now_unix_ms)).await
    }

    async fn stale_claims(&self, before_unix_ms: u64, limit: u32) -> Result<Vec<ClaimRecord>, StoreError> {
        self.queues.read("stale_claims", move |tx| claim::stale(tx, before_unix_ms, limit)).await
    }

    async fn heartbeat_times(&self) -> Result<Vec<(NodeId, Option<u64>)>, StoreError> {
        self.queues.read("heartbeat_times", node::heartbeat_times).await
    }

    async fn save_heartbeat_times(&self, times: Vec<(NodeId, u64)>) -> Result<(), StoreError> {
        self.queues.write_latest("save_heartbeat_times", move |tx, _| node::save_heartbeat_times(tx, &times)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.queues.read("ping", |tx| tx.script("SELECT 1")).await
    }

    async fn count_phases(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.queues.read("count_phases", sandbox::count_phases).await
    }

    async fn expire(&self, before_unix_ms: u64) -> Result<u64, StoreError> {
        self.queues.write("expire", move |tx, _| token::expire(tx, before_unix_ms)).await
    }
}
