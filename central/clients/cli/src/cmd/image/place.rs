//! Where images are handled: at nodes through central, or at the daemon on
//! this machine.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use roost_proto::convert::{InvalidMessage, WireEnum as _, require};
use roost_proto::model::{ImageInfo, ImageRef, Node, NodePhase};
use roost_proto::node::{
    ExportImageRequest, ListImagesRequest, PinImageRequest, PruneImagesRequest, PullImageRequest,
    pull_image_progress::Progress,
};

use super::super::{App, node};
use crate::cli::NodesArgs;
use crate::client::{Client, Pruned, Pull, PullEvent, PullLine};
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};

/// What the daemon on this machine is called in results.
const HERE: &str = "this node";

/// The bytes of an archive.
pub(super) type Archive<'a> = BoxStream<'a, Result<bytes::Bytes, CliError>>;

/// One node, as somebody reaches it.
pub(super) enum Place<'a> {
    /// Through central.
    Central(&'a Client, Box<Node>),
    /// By its socket.
    Socket(NodeSocket),
}

/// The daemon at a socket.
///
/// # Errors
/// Nothing listens there.
pub(super) async fn socket(path: PathBuf) -> Result<NodeSocket, CliError> {
    Ok(NodeSocket::connect_patiently(path).await?)
}

/// The nodes that are meant.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn places<'a>(app: &'a App, args: &NodesArgs) -> Result<Vec<Place<'a>>, CliError> {
    if let Some(path) = &args.node_socket {
        return Ok(vec![Place::Socket(socket(path.clone()).await?)]);
    }
    let client = app.client()?;
    let mut nodes = Vec::new();
    if args.all_nodes {
        nodes = client.list_nodes().await?;
        nodes.retain(|node| node.phase == NodePhase::Online);
    }
    for name in &args.nodes {
        nodes.push(node::find(client, name).await?);
    }
    if nodes.is_empty() {
        return Err(CliError::usage("no node is online", "see roost node ls"));
    }
    Ok(nodes.into_iter().map(|node| Place::Central(client, Box::new(node))).collect())
}

impl Place<'_> {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Central(_, node) => &node.name,
            Self::Socket(_) => HERE,
        }
    }

    /// Its images.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn images(&self) -> Result<Vec<ImageInfo>, CliError> {
        match self {
            Self::Central(client, node) => Ok(client.node_images(&node.id).await?),
            Self::Socket(socket) => {
                let answer = socket.api().list_images(ListImagesRequest {}).await.map_err(NodeSocketError::from)?;
                Ok(read(answer.into_inner().images)?)
            }
        }
    }

    /// Pins an image, or lets it go.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn pin(&self, reference: &ImageRef, pinned: bool) -> Result<ImageInfo, CliError> {
        match self {
            Self::Central(client, node) => Ok(client.pin_image(&node.id, reference, pinned).await?),
            Self::Socket(socket) => {
                let request = PinImageRequest { reference: reference.to_string(), pinned };
                let answer = socket.api().pin_image(request).await.map_err(NodeSocketError::from)?;
                let image = require("image", answer.into_inner().image).and_then(TryInto::try_into);
                Ok(image.map_err(NodeSocketError::from)?)
            }
        }
    }

    /// Removes what is not needed.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn prune(&self, unused_for: Duration, dry_run: bool) -> Result<Pruned, CliError> {
        match self {
            Self::Central(client, node) => Ok(client.prune_images(&node.id, unused_for, dry_run).await?),
            Self::Socket(socket) => {
                let unused_for_ms = u64::try_from(unused_for.as_millis()).unwrap_or(u64::MAX);
                let request = PruneImagesRequest { dry_run, unused_for_ms };
                let answer = socket.api().prune_images(request).await.map_err(NodeSocketError::from)?.into_inner();
                Ok(Pruned { removed: read(answer.removed)?, freed_bytes: answer.freed_bytes })
            }
        }
    }

    /// An image as an archive.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn export(&self, reference: &ImageRef) -> Result<Archive<'static>, CliError> {
        match self {
            Self::Central(client, node) => {
                let pieces = client.export_image(&node.id, reference).await?;
                Ok(pieces.map(|piece| piece.map_err(CliError::from)).boxed())
            }
            Self::Socket(socket) => {
                let request = ExportImageRequest { reference: reference.to_string() };
                let chunks = socket.api().export_image(request).await.map_err(NodeSocketError::from)?.into_inner();
                let piece = |chunk: Result<roost_proto::node::ExportImageChunk, tonic::Status>| {
                    Ok(chunk.map_err(NodeSocketError::from)?.data.into())
                };
                Ok(chunks.map(piece).boxed())
            }
        }
    }
}

/// Pulls by the socket of one daemon; `progress` sees every event.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn pull_at(
    socket: &NodeSocket,
    pull: &Pull,
    mut progress: impl FnMut(PullLine),
) -> Result<(), CliError> {
    let request =
        PullImageRequest { reference: pull.reference.to_string(), policy: pull.policy.to_wire(), pin: pull.pin };
    let mut messages = socket.api().pull_image(request).await.map_err(NodeSocketError::from)?.into_inner();
    while let Some(message) = messages.message().await.map_err(NodeSocketError::from)? {
        let event = match message.progress {
            Some(Progress::Step(step)) => PullEvent::Step(step.try_into().map_err(NodeSocketError::from)?),
            Some(Progress::Done(image)) => PullEvent::Done(Box::new(image.try_into().map_err(NodeSocketError::from)?)),
            None => continue,
        };
        progress(PullLine { node: HERE.into(), event });
    }
    Ok(())
}

fn read(images: Vec<roost_proto::types::Image>) -> Result<Vec<ImageInfo>, NodeSocketError> {
    Ok(images.into_iter().map(ImageInfo::try_from).collect::<Result<_, InvalidMessage>>()?)
}
