//! Images of one node, asked of the node itself: details, pins, pruning,
//! export.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use roost_proto::convert::{InvalidMessage, require};
use roost_proto::id::NodeId;
use roost_proto::model::{ImageInfo, ImageRef, Node};
use roost_proto::node::{ExportImageRequest, ListImagesRequest, PinImageRequest, PruneImagesRequest};
use tonic::Status;

use crate::app::streams::{call, node_error};
use crate::app::{RequestError, Scope};

/// A list is read from containerd's database.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// Deleting dozens of large images takes minutes on a slow disk.
const PRUNE_TIMEOUT: Duration = Duration::from_secs(600);

/// Nodes that prune at the same time: each costs a call that waits.
const PRUNINGS_AT_ONCE: usize = 64;

/// What is to go, and where.
#[derive(Debug, Clone)]
pub struct PruneImages {
    /// Only images whose last use is at least this long ago.
    pub unused_for: Duration,
    /// Only tell what would go.
    pub dry_run: bool,
    /// Names or ids; empty = every node that is online.
    pub nodes: Vec<String>,
}

/// What went from one node, or would go.
#[derive(Debug, serde::Serialize)]
pub struct Pruned {
    /// The images.
    pub removed: Vec<ImageInfo>,
    /// Growth of the free space of the node's disk, in bytes.
    pub freed_bytes: u64,
}

fn invalid(node: &NodeId) -> impl Fn(InvalidMessage) -> RequestError {
    move |error| node_error(node, Status::internal(error.to_string()))
}

impl Scope {
    /// The images of a node with what only the node knows: pins, users, last
    /// use, size on its disk.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn node_images(&self, node: &NodeId) -> Result<Vec<ImageInfo>, RequestError> {
        self.node(node).await?;
        let mut client = self.central.sessions.client(node)?;
        let images = call(node, LIST_TIMEOUT, client.list_images(ListImagesRequest {})).await?.images;
        images.into_iter().map(|image| image.try_into().map_err(invalid(node))).collect()
    }

    /// Keeps an image of a node from collection and pruning, or lets it go
    /// again.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn pin_image(
        &self,
        node: &NodeId,
        reference: &ImageRef,
        pinned: bool,
    ) -> Result<ImageInfo, RequestError> {
        self.node(node).await?;
        let mut client = self.central.sessions.client(node)?;
        let request = PinImageRequest { reference: reference.to_string(), pinned };
        let answer = call(node, LIST_TIMEOUT, client.pin_image(request)).await?;
        require("image", answer.image).and_then(TryInto::try_into).map_err(invalid(node))
    }

    /// Has nodes remove what nothing uses and nobody pinned. The stream has
    /// one outcome for each node and then ends; one node's failure does not
    /// touch the others.
    ///
    /// # Errors
    /// A node that does not exist, or none at all; see [`RequestError`].
    pub async fn prune_images(
        &self,
        prune: PruneImages,
    ) -> Result<BoxStream<'static, (Node, Result<Pruned, RequestError>)>, RequestError> {
        let nodes = self.chosen(&prune.nodes).await?;
        let scope = self.clone();
        let prunings = futures::stream::iter(nodes).map(move |node| {
            let (scope, unused_for, dry_run) = (scope.clone(), prune.unused_for, prune.dry_run);
            async move {
                let pruned = scope.prune_on(&node.id, unused_for, dry_run).await;
                (node, pruned)
            }
        });
        Ok(prunings.buffer_unordered(PRUNINGS_AT_ONCE).boxed())
    }

    async fn prune_on(&self, node: &NodeId, unused_for: Duration, dry_run: bool) -> Result<Pruned, RequestError> {
        let mut client = self.central.sessions.client(node)?;
        let unused_for_ms = u64::try_from(unused_for.as_millis()).unwrap_or(u64::MAX);
        let request = PruneImagesRequest { dry_run, unused_for_ms };
        let answer = call(node, PRUNE_TIMEOUT, client.prune_images(request)).await?;
        let images = answer.removed.into_iter().map(|image| image.try_into().map_err(invalid(node)));
        let removed: Vec<ImageInfo> = images.collect::<Result<_, _>>()?;
        if !dry_run && !removed.is_empty() {
            for image in &removed {
                self.central.store.system().remove_image(node.clone(), image.reference.clone()).await?;
            }
            self.central.live.status_changed_elsewhere(node);
            self.central.rooms.forget();
        }
        Ok(Pruned { removed, freed_bytes: answer.freed_bytes })
    }

    /// An image of a node as an OCI archive, with its size in bytes.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn export_image(
        &self,
        node: &NodeId,
        reference: &ImageRef,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, Status>> + Send + use<>), RequestError> {
        self.node(node).await?;
        let mut client = self.central.sessions.client(node)?;
        let request = ExportImageRequest { reference: reference.to_string() };
        let mut chunks = call(node, LIST_TIMEOUT, client.export_image(request)).await?;
        let failed = |status| node_error(node, status);
        let empty = || failed(Status::data_loss("the node ended the export without a byte"));
        let first = chunks.message().await.map_err(failed)?.ok_or_else(empty)?;
        let total_bytes = first.total_bytes;
        let rest = chunks.map(|chunk| chunk.map(|chunk| Bytes::from(chunk.data)));
        Ok((total_bytes, futures::stream::iter([Ok(Bytes::from(first.data))]).chain(rest)))
    }
}
