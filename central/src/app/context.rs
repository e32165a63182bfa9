//! What every request works with.

use std::sync::Arc;

use roost_proto::id::{NodeId, ParseIdError, TenantId};
use roost_proto::model::NodePhase;

use super::RequestError;
use crate::ca::Keeper;
use crate::changes::Changes;
use crate::clock;
use crate::link::{Admission, NodeCallError, NodeClient, Pressure, Sessions};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::place::Strategy;
use crate::pools::Pools;
use crate::rooms::Rooms;
use crate::secret::SecretHash;
use crate::store::{Store, StoreError, TenantStore};
use crate::tasks::Tasks;

/// The parts of central, shared by all its tasks.
#[derive(Debug)]
pub struct Central {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Its commits on their way.
    pub changes: Arc<Changes>,
    /// What is too restless for a disk.
    pub live: Live,
    /// Where a placement looks first.
    pub rooms: Rooms,
    /// What is known here of pools on nodes.
    pub pools: Pools,
    /// The connected nodes.
    pub sessions: Arc<Sessions>,
    /// Who may come in now.
    pub admission: Admission,
    /// How far central is behind its nodes.
    pub pressure: Pressure,
    /// Certificates for nodes.
    pub ca: Arc<Keeper>,
    /// Counters.
    pub metrics: Metrics,
    /// Where new sandboxes go.
    pub strategy: Strategy,
    /// How this replica is called to others.
    pub replica: String,
    /// The configuration in force, for support bundles; it names files of
    /// secrets.
    pub config_shown: serde_json::Value,
    /// Background work.
    pub tasks: Tasks,
}

impl Central {
    /// A client of one node's API.
    ///
    /// # Errors
    /// [`NodeCallError::Offline`], [`NodeCallError::Elsewhere`] and
    /// [`RequestError::Store`].
    pub(super) async fn node_client(&self, node: &NodeId) -> Result<NodeClient, RequestError> {
        let offline = match self.sessions.client(node) {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        Err(match self.holder_elsewhere(node).await? {
            Some(replica) => NodeCallError::Elsewhere { node: node.clone(), replica }.into(),
            None => offline.into(),
        })
    }

    /// The name of the replica that has the session of a node, where that is
    /// another one and the node is heard.
    pub(super) async fn holder_elsewhere(&self, node: &NodeId) -> Result<Option<String>, StoreError> {
        let is_heard = self.live.phase(node, clock::now_unix_ms()) == NodePhase::Online;
        if !self.store.is_shared() || !is_heard {
            return Ok(None);
        }
        let holder = self.store.system().link_node(node.clone()).await?.and_then(|node| node.held_by);
        Ok(holder.filter(|replica| *replica != self.replica))
    }
}

/// The one tenant there is for now.
///
/// # Errors
/// Never: the name is a DNS label.
pub fn default_tenant() -> Result<TenantId, ParseIdError> {
    "default".parse()
}

/// Central as one authenticated caller sees it: confined to a tenant.
#[derive(Debug, Clone)]
pub struct Scope {
    pub(super) central: Arc<Central>,
    pub(super) tenant: TenantId,
}

impl Scope {
    /// Finds out who presents a token.
    ///
    /// # Errors
    /// [`RequestError::Unauthorized`] and [`RequestError::Store`].
    pub async fn authenticate(central: &Arc<Central>, token: Option<&str>) -> Result<Self, RequestError> {
        let token = token.ok_or(RequestError::Unauthorized)?;
        let tenant = central.store.system().find_api_token(SecretHash::of(token), clock::now_unix_ms()).await?;
        let tenant = tenant.ok_or(RequestError::Unauthorized)?;
        Ok(Self { central: central.clone(), tenant })
    }

    /// Central itself acting for a tenant, at start.
    pub(super) fn of(central: &Arc<Central>, tenant: TenantId) -> Self {
        Self { central: central.clone(), tenant }
    }

    /// The tenant's part of the store.
    pub(super) fn store(&self) -> Box<dyn TenantStore> {
        self.central.store.tenant(&self.tenant)
    }
}
