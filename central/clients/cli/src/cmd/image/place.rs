//! Where images are handled: at nodes through central, or at the daemon on
//! this machine.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use roost_proto::convert::{InvalidMessage, WireEnum as _, require};
use roost_proto::model::{ImageInfo, ImageRef, Node, NodePhase};
use roost_proto::node::import_image_input::Input;
use roost_proto::node::import_image_progress::Progress as Imported;
use roost_proto::node::pull_image_progress::Progress;
use roost_proto::node::{
    ExportImageRequest, ImportImageInput, ImportImageStart, ImportStep, ListImagesRequest, PinImageRequest,
    PruneImagesRequest, PullImageRequest, RemoveImageRequest,
};
use tokio::sync::oneshot;
use tokio_util::io::ReaderStream;

use super::super::{App, node, socket_path};
use crate::cli::NodesArgs;
use crate::client::{Client, ImportEvent, PruneLine, Pruned, Pull, PullEvent, PullLine, Upload};
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};

/// What the daemon on this machine is called in results.
const HERE: &str = "this node";
/// Bytes of an archive that are read at once: few messages, little memory.
const PIECE_BYTES: usize = 256 << 10;

/// The bytes of an archive.
pub(super) type Archive<'a> = BoxStream<'a, Result<bytes::Bytes, CliError>>;

/// One node, as somebody reaches it.
pub(super) enum Place<'a> {
    /// Through central.
    Central(&'a Client, Box<Node>),
    /// By its socket.
    Socket(NodeSocket),
}

/// The daemon on this machine, at `path` or where it listens else.
///
/// # Errors
/// Nothing listens there.
pub(super) async fn socket(app: &App, path: Option<PathBuf>) -> Result<NodeSocket, CliError> {
    Ok(NodeSocket::connect_patiently(socket_path(app, path)).await?)
}

/// The nodes that are meant.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn places<'a>(app: &'a App, args: &NodesArgs) -> Result<Vec<Place<'a>>, CliError> {
    if let Some(path) = &args.node_socket {
        return Ok(vec![Place::Socket(socket(app, path.clone()).await?)]);
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

    /// Sends an archive; `progress` sees every step.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn import(
        &self,
        reference: Option<&ImageRef>,
        upload: Upload,
        progress: impl FnMut(&ImportEvent),
    ) -> Result<ImageInfo, CliError> {
        match self {
            Self::Central(client, node) => Ok(client.import_image(&node.id, reference, upload, progress).await?),
            Self::Socket(socket) => import_at(socket, reference, upload, progress).await,
        }
    }

    /// Removes an image.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn remove(&self, reference: &ImageRef) -> Result<(), CliError> {
        match self {
            Self::Central(client, node) => Ok(client.remove_image(&node.id, reference).await?),
            Self::Socket(socket) => {
                let request = RemoveImageRequest { reference: reference.to_string() };
                socket.api().remove_image(request).await.map_err(NodeSocketError::from)?;
                Ok(())
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

/// Removes by the socket of one daemon what is not needed.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn prune_at(socket: &NodeSocket, unused_for: Duration, dry_run: bool) -> Result<PruneLine, CliError> {
    let unused_for_ms = u64::try_from(unused_for.as_millis()).unwrap_or(u64::MAX);
    let request = PruneImagesRequest { dry_run, unused_for_ms };
    let answer = socket.api().prune_images(request).await.map_err(NodeSocketError::from)?.into_inner();
    let pruned = Pruned { removed: read(answer.removed)?, freed_bytes: answer.freed_bytes };
    Ok(PruneLine { node: HERE.into(), outcome: Ok(pruned) })
}

/// Sends an archive by the socket of one daemon; `progress` sees every step.
/// An archive that cannot be read to its end is not imported.
///
/// # Errors
/// See [`CliError`].
async fn import_at(
    socket: &NodeSocket,
    reference: Option<&ImageRef>,
    upload: Upload,
    mut progress: impl FnMut(&ImportEvent),
) -> Result<ImageInfo, CliError> {
    let start = ImportImageStart {
        reference: reference.map(ToString::to_string).unwrap_or_default(),
        size_bytes: upload.length.unwrap_or_default(),
    };
    let (fault_tx, mut fault_rx) = oneshot::channel();
    let input = stream::iter([Input::Start(start)]).chain(archive(upload, fault_tx));
    let input = input.map(|input| ImportImageInput { input: Some(input) });
    let receiving = async {
        let mut messages = socket.api().import_image(input).await?.into_inner();
        while let Some(message) = messages.message().await? {
            match message.progress {
                Some(Imported::Step(ImportStep { name, done_bytes, total_bytes })) => {
                    progress(&ImportEvent::Step { name, done_bytes, total_bytes });
                }
                Some(Imported::Done(image)) => return Ok(Some(image)),
                None => {}
            }
        }
        Ok::<_, tonic::Status>(None)
    };
    let image = tokio::select! {
        // Dropped, the call ends and the node undoes what it did.
        image = receiving => image.map_err(NodeSocketError::from)?,
        Ok(source) = &mut fault_rx => return Err(CliError::File { operation: "read", path: "the archive".into(), source }),
    };
    let image = require("image", image).and_then(TryInto::try_into);
    Ok(image.map_err(NodeSocketError::from)?)
}

/// The data of an archive. After a fault it never ends, so that the part is
/// not taken for the whole.
fn archive(upload: Upload, fault_tx: oneshot::Sender<std::io::Error>) -> impl futures::Stream<Item = Input> + Send {
    let sent = upload.sent;
    let pieces = ReaderStream::with_capacity(upload.reader, PIECE_BYTES);
    stream::unfold((pieces, Some(fault_tx)), move |(mut pieces, mut fault_tx)| {
        let sent = sent.clone();
        async move {
            match pieces.next().await? {
                Ok(piece) => {
                    sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    Some((Input::Data(piece.into()), (pieces, fault_tx)))
                }
                Err(error) => {
                    // Gone only if the import has ended already.
                    let _ = fault_tx.take().map(|fault_tx| fault_tx.send(error));
                    std::future::pending().await
                }
            }
        }
    })
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
