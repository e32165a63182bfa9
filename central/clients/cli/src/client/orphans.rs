//! What was found on nodes after central's database went back in time.

use http::Method;
use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{AdoptOrphan, Node, Orphan, ReadmitNode, Sandbox};

use super::{Call, Client, ClientError};

impl Client {
    /// Every orphan, of one node or of all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list_orphans(&self, node: Option<&NodeId>) -> Result<Vec<Orphan>, ClientError> {
        self.all(Call::get("/orphans").query_option("node", node)).await
    }

    /// Makes an orphan a sandbox like any other.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn adopt_orphan(&self, id: &SandboxId, adopt: &AdoptOrphan) -> Result<Sandbox, ClientError> {
        self.json(&Call::new(Method::POST, format!("/orphans/{id}/adopt")).json(adopt)?).await
    }

    /// Deletes an orphan with everything it holds.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn remove_orphan(&self, id: &SandboxId) -> Result<Sandbox, ClientError> {
        self.json(&Call::new(Method::DELETE, format!("/orphans/{id}"))).await
    }

    /// Takes a node back that the database does not know any more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn readmit_node(&self, id: &NodeId, readmit: &ReadmitNode) -> Result<Node, ClientError> {
        self.json(&Call::new(Method::POST, format!("/nodes/{id}/readmit")).json(readmit)?).await
    }
}
