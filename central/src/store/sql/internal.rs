//! What drivers ask of the store themselves.

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::Sandbox;

use super::{Mode, Queues, migrate, node, sandbox};
use crate::store::StoreError;

impl Queues {
    /// Brings the schema up to date; processes that start together take turns.
    pub(in crate::store) async fn migrate(&self) -> Result<(), StoreError> {
        self.call("migrate", Mode::Alone, |tx, _| migrate::run(tx)).await
    }

    /// The desired generation of every node.
    pub(in crate::store) async fn generations(&self) -> Result<Vec<(NodeId, u64)>, StoreError> {
        self.read("generations", node::generations).await
    }

    /// Those of the sandboxes that exist, in whatever tenant.
    pub(in crate::store) async fn sandboxes_by_id(&self, ids: Vec<SandboxId>) -> Result<Vec<Sandbox>, StoreError> {
        self.read("sandboxes_by_id", move |tx| sandbox::find_all(tx, &ids)).await
    }
}
