//! Nodes: list, look, remove.

use roost_proto::id::NodeId;
use roost_proto::model::{Node, NodeCondition, NodePhase};

use super::{Central, Conflict, Noun, RequestError, Scope};
use crate::clock;
use crate::link::{AskRenewalError, NodeCallError};
use crate::store::{DeleteNodeError, NodeRecord};

/// A stored node with what is known of it this moment.
fn present(central: &Central, record: NodeRecord) -> Node {
    let (last_heartbeat_unix_ms, load) = central.live.node(&record.id);
    let mut status = record.status;
    status.load = load;
    status.conditions.extend(restored(record.unsettled_at_unix_ms.is_some(), record.orphans));
    Node {
        protocol_version: central.sessions.version(&record.id),
        certificate: record.certificate,
        phase: central.live.phase(&record.id, clock::now_unix_ms()),
        id: record.id,
        name: record.name,
        status,
        cpu_requested_millis: u32::try_from(record.cpu_requested_millis).unwrap_or(u32::MAX),
        memory_requested_bytes: record.memory_requested_bytes,
        sandboxes: u32::try_from(record.sandboxes).unwrap_or(u32::MAX),
        last_heartbeat_unix_ms,
        enrolled_at_unix_ms: record.enrolled_at_unix_ms,
    }
}

/// What a database that went back in time means for a node.
fn restored(is_unsettled: bool, orphans: u64) -> impl Iterator<Item = NodeCondition> {
    let condition = |kind: &str, reason: &str, message| NodeCondition {
        kind: kind.into(),
        is_true: true,
        reason: reason.into(),
        message,
    };
    let unsettled = is_unsettled.then(|| {
        let message = "the database was restored: what the node holds is compared with it when the node connects";
        condition(NodeCondition::STORE_RESTORED, "NotCompared", message.into())
    });
    let orphans = (orphans > 0).then(|| {
        let message =
            format!("the restored database does not know {orphans} of its sandboxes: see `roost node orphans`");
        condition(NodeCondition::ORPHANED_SANDBOXES, "NotInDatabase", message)
    });
    unsettled.into_iter().chain(orphans)
}

impl Scope {
    /// All nodes by name.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn nodes(&self) -> Result<Vec<Node>, RequestError> {
        let records = self.store().nodes().await?;
        Ok(records.into_iter().map(|record| present(&self.central, record)).collect())
    }

    /// One node.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn node(&self, id: &NodeId) -> Result<Node, RequestError> {
        let record = self.store().node(id.clone()).await?;
        let record = record.ok_or_else(|| RequestError::not_found(Noun::Node, id))?;
        Ok(present(&self.central, record))
    }

    /// Removes a node that is silent; its certificate is worthless from then
    /// on. With `force` also one that is connected, as a stolen one may be: its
    /// session ends. And one that holds sandboxes: they are lost with it.
    ///
    /// # Errors
    /// [`RequestError::NotFound`], [`Conflict::NodeNotOffline`],
    /// [`Conflict::NodeNotEmpty`] and [`RequestError::Store`].
    pub async fn delete_node(&self, id: &NodeId, force: bool) -> Result<(), RequestError> {
        let node = self.node(id).await?;
        let is_silent = matches!(node.phase, NodePhase::Offline | NodePhase::Enrolled);
        if !force && (!is_silent || self.central.sessions.is_open(id)) {
            return Err(Conflict::NodeNotOffline { name: node.name, phase: node.phase }.into());
        }
        let lost = self.store().delete_node(id.clone(), force).await.map_err(|error| match error {
            DeleteNodeError::NotFound => RequestError::not_found(Noun::Node, id),
            DeleteNodeError::NotEmpty(sandboxes) => {
                Conflict::NodeNotEmpty { name: node.name.clone(), sandboxes }.into()
            }
            DeleteNodeError::Store(error) => error.into(),
        })?;
        self.central.sessions.revoke(id);
        self.central.live.forget_node(id);
        self.central.rooms.forget();
        tracing::info!(node = %id, name = node.name, lost_sandboxes = lost, "node removed");
        Ok(())
    }

    /// Asks a node to renew its certificate now; it does within moments.
    ///
    /// # Errors
    /// [`RequestError::NotFound`], [`RequestError::Node`] when it is not
    /// connected, [`Conflict::NodeTooOld`] and [`RequestError::Store`].
    pub async fn rotate_node(&self, id: &NodeId) -> Result<Node, RequestError> {
        let node = self.node(id).await?;
        match self.central.sessions.ask_renewal(id) {
            Ok(()) => {}
            Err(AskRenewalError::TooOld(version)) => {
                return Err(Conflict::NodeTooOld { name: node.name, version }.into());
            }
            Err(AskRenewalError::Offline) if self.central.holder_elsewhere(id).await?.is_some() => {
                self.central.store.system().ask_renewal(id.clone()).await?;
            }
            Err(AskRenewalError::Offline) => return Err(NodeCallError::Offline(id.clone()).into()),
        }
        Ok(node)
    }
}
