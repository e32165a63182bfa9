//! Nodes and the tokens to join.

use http::Method;
use roost_proto::id::{JoinTokenId, NodeId};
use roost_proto::model::Node;
use serde::{Deserialize, Serialize};

use super::{Call, Client, ClientError};

/// A join token as it is shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JoinToken {
    /// Names it, without being secret.
    pub(crate) id: JoinTokenId,
    /// The secret.
    pub(crate) token: String,
    /// Unix time of its end, in milliseconds.
    pub(crate) expires_at_unix_ms: u64,
}

/// A join token as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JoinTokenInfo {
    /// Names it.
    pub(crate) id: JoinTokenId,
    /// Unix time of its end, in milliseconds.
    pub(crate) expires_at_unix_ms: u64,
    /// What else the server says of it.
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct CreateJoinToken {
    expires_in_s: u64,
}

impl Client {
    /// Every node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list_nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.all(Call::get("/nodes")).await
    }

    /// One node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn get_node(&self, id: &NodeId) -> Result<Node, ClientError> {
        self.json(&Call::get(format!("/nodes/{id}"))).await
    }

    /// Removes a node from the registry; with `force` also its sandboxes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn delete_node(&self, id: &NodeId, force: bool) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, format!("/nodes/{id}")).query_option("force", force.then_some(true));
        self.done(&call).await
    }

    /// Asks a node to renew its certificate; the node as it was before.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn rotate_node(&self, id: &NodeId) -> Result<Node, ClientError> {
        self.json(&Call::new(Method::POST, format!("/nodes/{id}/rotate"))).await
    }

    /// Makes a token with which one node can join.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn create_join_token(&self, expires_in_s: u64) -> Result<JoinToken, ClientError> {
        self.json(&Call::new(Method::POST, "/join-tokens").json(&CreateJoinToken { expires_in_s })?).await
    }

    /// Every join token that is still good.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list_join_tokens(&self) -> Result<Vec<JoinTokenInfo>, ClientError> {
        self.all(Call::get("/join-tokens")).await
    }

    /// Makes a join token worthless.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn delete_join_token(&self, id: &JoinTokenId) -> Result<(), ClientError> {
        self.done(&Call::new(Method::DELETE, format!("/join-tokens/{id}"))).await
    }
}
