//! Images of one node.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::Method;
use http_body_util::BodyExt as _;
use roost_proto::id::NodeId;
use roost_proto::model::{ImageInfo, ImageRef};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Call, Client, ClientError};

/// What a pruning took away.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

    /// Removes what a node does not need.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn prune_images(
        &self,
        node: &NodeId,
        unused_for: Duration,
        dry_run: bool,
    ) -> Result<Pruned, ClientError> {
        let call = Call::new(Method::POST, format!("/nodes/{node}/images/prune"));
        let body = json!({ "unused_for_s": unused_for.as_secs(), "dry_run": dry_run });
        self.json(&call.json(&body)?).await
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
