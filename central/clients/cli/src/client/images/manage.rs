//! Images of one node.

use futures::{Stream, StreamExt as _};
use http::Method;
use http_body_util::BodyExt as _;
use roost_proto::id::NodeId;
use roost_proto::model::{ImageInfo, ImageRef, Problem};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Call, Client, ClientError};

/// What is to go.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Prune {
    /// Only images that were not used for so long, in seconds.
    pub(crate) unused_for_s: u64,
    /// Only tell.
    pub(crate) dry_run: bool,
    /// Names or ids; empty = every node that is online.
    pub(crate) nodes: Vec<String>,
}

/// What became of it on one node.
#[derive(Debug, Clone)]
pub(crate) struct PruneLine {
    /// Name of the node.
    pub(crate) node: String,
    /// What went, or why nothing did.
    pub(crate) outcome: Result<Pruned, Box<Problem>>,
}

#[derive(Deserialize)]
struct PruneData {
    name: String,
    problem: Option<Box<Problem>>,
    removed: Option<Vec<ImageInfo>>,
    #[serde(default)]
    freed_bytes: u64,
}

impl PruneData {
    /// None for events of a newer server.
    fn line(self) -> Option<PruneLine> {
        let outcome = match (self.problem, self.removed) {
            (Some(problem), _) => Err(problem),
            (None, Some(removed)) => Ok(Pruned { removed, freed_bytes: self.freed_bytes }),
            (None, None) => return None,
        };
        Some(PruneLine { node: self.name, outcome })
    }
}

/// What a pruning took away.
#[derive(Debug, Clone)]
pub(crate) struct Pruned {
    /// The images.
    pub(crate) removed: Vec<ImageInfo>,
    /// Growth of the free space of the node's disk, in bytes.
    pub(crate) freed_bytes: u64,
}

impl Client {
    /// The images of a node, with what only the node knows.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn node_images(&self, node: &NodeId) -> Result<Vec<ImageInfo>, ClientError> {
        self.all(Call::get(format!("/nodes/{node}/images"))).await
    }

    /// Pins an image of a node, or lets it go.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn pin_image(
        &self,
        node: &NodeId,
        reference: &ImageRef,
        pinned: bool,
    ) -> Result<ImageInfo, ClientError> {
        let call = Call::new(Method::PUT, format!("/nodes/{node}/images/pin"));
        self.json(&call.json(&json!({ "reference": reference, "pinned": pinned }))?).await
    }

    /// Has nodes remove what they do not need; `progress` sees the outcome of
    /// each.
    ///
    /// # Errors
    /// See [`ClientError`]; what a single node refuses is an outcome.
    pub(crate) async fn prune_images(
        &self,
        prune: &Prune,
        mut progress: impl FnMut(PruneLine),
    ) -> Result<(), ClientError> {
        let call = Call::new(Method::POST, "/images/prune").json(prune)?;
        let take = |data: PruneData| data.line().into_iter().for_each(&mut progress);
        self.events(&call, take).await
    }

    /// An image of a node as an archive.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn export_image(
        &self,
        node: &NodeId,
        reference: &ImageRef,
    ) -> Result<impl Stream<Item = Result<bytes::Bytes, ClientError>> + use<>, ClientError> {
        let call = Call::get(format!("/nodes/{node}/images/export")).query("reference", reference.as_str());
        let what = call.to_string();
        let body = self.stream(&call).await?.into_data_stream();
        Ok(body.map(move |piece| {
            piece.map_err(|source| ClientError::Broken { what: what.clone(), source: source.into() })
        }))
    }
}
