//! The store in one SQLite file: WAL, every commit synchronous.
//!
//! All writes go through one thread and all reads through another, so that a
//! long list never delays a creation. Two processes may open the file at the
//! same time: `roost-central join-token` works beside a running server.
//!
//! SQL here is written for PostgreSQL as well: `$n` placeholders (in SQLite
//! these are named, so their first occurrences must rise), TEXT and BIGINT,
//! RETURNING and ON CONFLICT as both know them.

mod heartbeat;
mod migrate;
mod node;
mod row;
mod sandbox;
mod template;
mod thread;
mod token;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use roost_proto::id::{JoinTokenId, NodeId, ProfileName, TemplateName, TenantId};
use roost_proto::model::{ImageInfo, ImageRef, Profile, Sandbox, Template};

use super::*;
use crate::metrics::StoreMetrics;
use thread::Db;

/// A store in one file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    db: Arc<Db>,
}

impl SqliteStore {
    /// Opens the file, creates it where it does not exist (mode 0600) and
    /// brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`] and [`StoreError::Newer`].
    pub fn open(path: &Path, sink: Arc<dyn ChangeSink>, metrics: StoreMetrics) -> Result<Self, StoreError> {
        Ok(Self { db: Arc::new(Db::open(path, sink, metrics)?) })
    }
}

impl Store for SqliteStore {
    fn tenant(&self, tenant: &TenantId) -> Box<dyn TenantStore> {
        Box::new(SqliteTenant { db: self.db.clone(), tenant: tenant.clone() })
    }

    fn system(&self) -> Box<dyn SystemStore> {
        Box::new(SqliteSystem { db: self.db.clone() })
    }
}

struct SqliteTenant {
    db: Arc<Db>,
    tenant: TenantId,
}

struct SqliteSystem {
    db: Arc<Db>,
}

#[async_trait]
impl TenantStore for SqliteTenant {
    async fn create_sandbox(&self, new: NewSandbox, place: PlaceFn) -> Result<Created, CreateSandboxError> {
        let tenant = self.tenant.clone();
        self.db.write("create_sandbox", move |tx, out| sandbox::create(tx, &tenant, new, place, out)).await
    }

    async fn sandbox(&self, key: SandboxKey) -> Result<Option<Sandbox>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("sandbox", move |conn| sandbox::find(conn, &tenant, &key)).await
    }

    async fn sandboxes(&self, filter: SandboxFilter, limit: u32) -> Result<Vec<Sandbox>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("sandboxes", move |conn| sandbox::list(conn, &tenant, &filter, limit)).await
    }

    async fn set_run_state(&self, key: SandboxKey, intent: Intent) -> Result<Sandbox, SetRunStateError> {
        let tenant = self.tenant.clone();
        self.db.write("set_run_state", move |tx, out| sandbox::set_run_state(tx, &tenant, &key, intent, out)).await
    }

    async fn templates(&self) -> Result<Vec<Template>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("templates", move |conn| template::templates(conn, &tenant)).await
    }

    async fn template(&self, name: TemplateName) -> Result<Option<Template>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("template", move |conn| template::template(conn, &tenant, &name)).await
    }

    async fn put_template(&self, new: Template) -> Result<bool, PutTemplateError> {
        let tenant = self.tenant.clone();
        self.db.write("put_template", move |tx, _| template::put_template(tx, &tenant, &new)).await
    }

    async fn delete_template(&self, name: TemplateName) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.db.write("delete_template", move |tx, _| template::delete_template(tx, &tenant, &name)).await
    }

    async fn profiles(&self) -> Result<Vec<Profile>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("profiles", move |conn| template::profiles(conn, &tenant)).await
    }

    async fn profile(&self, name: ProfileName) -> Result<Option<Profile>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("profile", move |conn| template::profile(conn, &tenant, &name)).await
    }

    async fn put_profile(&self, new: Profile) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.db.write("put_profile", move |tx, _| template::put_profile(tx, &tenant, &new)).await
    }

    async fn delete_profile(&self, name: ProfileName) -> Result<(), DeleteProfileError> {
        let tenant = self.tenant.clone();
        self.db.write("delete_profile", move |tx, _| template::delete_profile(tx, &tenant, &name)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("nodes", move |conn| node::list(conn, &tenant)).await
    }

    async fn node(&self, id: NodeId) -> Result<Option<NodeRecord>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("node", move |conn| node::find(conn, &tenant, &id)).await
    }

    async fn delete_node(&self, id: NodeId) -> Result<(), DeleteNodeError> {
        let tenant = self.tenant.clone();
        self.db.write("delete_node", move |tx, _| node::delete(tx, &tenant, &id)).await
    }

    async fn images(&self) -> Result<Vec<ImageOnNodes>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("images", move |conn| node::images(conn, &tenant)).await
    }

    async fn create_join_token(&self, new: NewJoinToken) -> Result<(), StoreError> {
        let tenant = self.tenant.clone();
        self.db.write("create_join_token", move |tx, _| token::create_join_token(tx, &tenant, &new)).await
    }

    async fn join_tokens(&self, now_unix_ms: u64) -> Result<Vec<JoinToken>, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("join_tokens", move |conn| token::join_tokens(conn, &tenant, now_unix_ms)).await
    }

    async fn delete_join_token(&self, id: JoinTokenId) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.db.write("delete_join_token", move |tx, _| token::delete_join_token(tx, &tenant, &id)).await
    }

    async fn replace_admin_token(&self, secret: SecretHash, now_unix_ms: u64) -> Result<(), StoreError> {
        let tenant = self.tenant.clone();
        self.db.write("replace_admin_token", move |tx, _| token::replace_admin(tx, &tenant, &secret, now_unix_ms)).await
    }

    async fn has_admin_token(&self) -> Result<bool, StoreError> {
        let tenant = self.tenant.clone();
        self.db.read("has_admin_token", move |conn| token::has_admin(conn, &tenant)).await
    }
}

#[async_trait]
impl SystemStore for SqliteSystem {
    async fn ensure_tenant(&self, tenant: TenantId, now_unix_ms: u64) -> Result<(), StoreError> {
        self.db.write("ensure_tenant", move |tx, _| token::ensure_tenant(tx, &tenant, now_unix_ms)).await
    }

    async fn find_api_token(&self, secret: SecretHash) -> Result<Option<TenantId>, StoreError> {
        self.db.read("find_api_token", move |conn| token::find_api_token(conn, &secret)).await
    }

    async fn enrol(&self, enrolment: Enrolment) -> Result<(), EnrolError> {
        self.db.write("enrol", move |tx, _| node::enrol(tx, &enrolment)).await
    }

    async fn link_node(&self, id: NodeId) -> Result<Option<LinkNode>, StoreError> {
        self.db.read("link_node", move |conn| node::link_node(conn, &id)).await
    }

    async fn desired(&self, id: NodeId, base: Option<u64>) -> Result<Desired, StoreError> {
        self.db.read("desired", move |conn| sandbox::desired(conn, &id, base)).await
    }

    async fn raise_generation(&self, id: NodeId, held: u64) -> Result<(), StoreError> {
        self.db.write("raise_generation", move |tx, _| node::raise_generation(tx, &id, held)).await
    }

    async fn apply_heartbeat(&self, batch: HeartbeatBatch) -> Result<(), StoreError> {
        self.db.write("apply_heartbeat", move |tx, out| heartbeat::apply(tx, &batch, out)).await
    }

    async fn add_image(&self, node: NodeId, image: ImageInfo) -> Result<(), StoreError> {
        self.db.write("add_image", move |tx, _| node::add_image(tx, &node, &image)).await
    }

    async fn remove_image(&self, node: NodeId, reference: ImageRef) -> Result<(), StoreError> {
        self.db.write("remove_image", move |tx, _| node::remove_image(tx, &node, &reference)).await
    }

    async fn heartbeat_times(&self) -> Result<Vec<(NodeId, Option<u64>)>, StoreError> {
        self.db.read("heartbeat_times", node::heartbeat_times).await
    }

    async fn save_heartbeat_times(&self, times: Vec<(NodeId, u64)>) -> Result<(), StoreError> {
        self.db.write("save_heartbeat_times", move |tx, _| node::save_heartbeat_times(tx, &times)).await
    }

    async fn count_phases(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.db.read("count_phases", sandbox::count_phases).await
    }

    async fn expire(&self, before_unix_ms: u64) -> Result<u64, StoreError> {
        self.db.write("expire", move |tx, _| token::expire(tx, before_unix_ms)).await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::conformance::{Bench, Recorder};
    use super::*;

    /// A fresh store for the conformance suite.
    pub(in crate::store) async fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let changes = Arc::new(Recorder::default());
        let store = open(dir.path(), changes.clone());
        Bench::new(Arc::new(store), changes, dir).await
    }

    fn open(dir: &Path, changes: Arc<Recorder>) -> SqliteStore {
        SqliteStore::open(&dir.join("central.db"), changes, StoreMetrics::default()).unwrap()
    }

    #[tokio::test]
    async fn two_processes_share_a_file_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (open(dir.path(), Arc::default()), open(dir.path(), Arc::default()));
        let tenant: TenantId = "default".parse().unwrap();
        first.system().ensure_tenant(tenant.clone(), 1).await.unwrap();
        let secret = crate::secret::Secret::random("rat");
        second.tenant(&tenant).replace_admin_token(secret.hash(), 1).await.unwrap();
        assert_eq!(first.system().find_api_token(secret.hash()).await.unwrap(), Some(tenant));
        let mode = std::fs::metadata(dir.path().join("central.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_named() {
        let path = Path::new("/nonexistent/central.db");
        let error = SqliteStore::open(path, Arc::new(Recorder::default()), StoreMetrics::default()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/central.db"), "{error}");
    }
}
