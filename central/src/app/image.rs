//! Images on nodes: list, import, remove.

mod manage;
mod pull;

pub use manage::{PruneImages, Pruned};
pub use pull::{PullEvent, PullImages};

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use roost_proto::id::NodeId;
use roost_proto::model::{ImageInfo, ImageRef};
use roost_proto::node::{
    ImportImageInput, ImportImageProgress, ImportImageStart, ImportStep, RemoveImageRequest, import_image_input,
    import_image_progress::Progress,
};
use tonic::Streaming;

use super::streams::{call, node_error};
use super::{Central, Noun, RequestError, Scope};
use crate::store::ImageOnNodes;

/// Time until a node has accepted an import; the import itself may last.
const IMPORT_START_TIMEOUT: Duration = Duration::from_secs(20);
/// Silence after which an import has failed: a layer of several GiB unpacks
/// without a word.
const IMPORT_SILENCE: Duration = Duration::from_secs(600);
/// Unmounting and deleting a large snapshot takes seconds.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);

/// How an import goes on.
#[derive(Debug)]
pub enum ImportEvent {
    /// Something was done.
    Step(ImportStep),
    /// The image is on the node.
    Done(ImageInfo),
}

impl Scope {
    /// Every image and the nodes that hold it.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn images(&self) -> Result<Vec<ImageOnNodes>, RequestError> {
        Ok(self.store().images().await?)
    }

    /// Sends an archive to a node; the stream ends with `Done` or an error.
    /// A read error of the archive must be kept by the caller, as the node
    /// sees only that the archive ended early.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn import_image(
        &self,
        node: &NodeId,
        reference: Option<ImageRef>,
        size_bytes: u64,
        archive: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<BoxStream<'static, Result<ImportEvent, RequestError>>, RequestError> {
        self.node(node).await?;
        let mut client = self.central.node_client(node).await?;
        let start = ImportImageStart { reference: reference.map(Into::into).unwrap_or_default(), size_bytes };
        let first = ImportImageInput { input: Some(import_image_input::Input::Start(start)) };
        let data = |chunk: Bytes| ImportImageInput { input: Some(import_image_input::Input::Data(chunk.into())) };
        let input = futures::stream::iter([first]).chain(archive.map(data));
        let progress = call(node, IMPORT_START_TIMEOUT, client.import_image(input)).await?;
        Ok(events(self.clone(), node.clone(), progress).boxed())
    }

    /// Removes an image from a node.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn remove_image(&self, node: &NodeId, reference: &ImageRef) -> Result<(), RequestError> {
        let held = self.node(node).await?.status.images.iter().any(|image| image.reference == *reference);
        if !held {
            return Err(RequestError::not_found(Noun::Image, &format!("{reference} on {node}")));
        }
        let mut client = self.central.node_client(node).await?;
        let request = RemoveImageRequest { reference: reference.to_string() };
        call(node, REMOVE_TIMEOUT, client.remove_image(request)).await?;
        self.central.store.system().remove_image(node.clone(), reference.clone()).await?;
        self.central.live.status_changed_elsewhere(node);
        self.central.rooms.forget();
        Ok(())
    }
}

fn events(
    scope: Scope,
    node: NodeId,
    mut progress: Streaming<ImportImageProgress>,
) -> impl Stream<Item = Result<ImportEvent, RequestError>> + Send {
    async_stream::try_stream! {
        loop {
            let next = tokio::time::timeout(IMPORT_SILENCE, progress.message()).await;
            let silent = tonic::Status::deadline_exceeded("the import made no progress for 10 minutes");
            let next = next.unwrap_or(Err(silent)).map_err(|status| node_error(&node, status))?;
            match next.and_then(|message| message.progress) {
                Some(Progress::Step(step)) => yield ImportEvent::Step(step),
                Some(Progress::Done(image)) => {
                    yield ImportEvent::Done(keep(&scope.central, &node, image).await?);
                    break;
                }
                None => {
                    let status = tonic::Status::data_loss("the node ended the import without a result");
                    Err(node_error(&node, status))?;
                }
            }
        }
    }
}

/// Makes a new image count for placement at once, ahead of the heartbeat.
async fn keep(central: &Central, node: &NodeId, image: roost_proto::types::Image) -> Result<ImageInfo, RequestError> {
    let invalid =
        |error: roost_proto::convert::InvalidMessage| node_error(node, tonic::Status::internal(error.to_string()));
    let image: ImageInfo = image.try_into().map_err(invalid)?;
    central.store.system().add_image(node.clone(), image.clone()).await?;
    central.live.status_changed_elsewhere(node);
    central.rooms.forget();
    tracing::info!(%node, image = %image.reference, digest = image.digest, "image imported");
    Ok(image)
}
