//! Images that the node holds: take, list, remove, pin, prune.

pub(super) mod transfer;

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use roost_proto::convert::parse;
use roost_proto::model::{ImageInfo, ImageRef, PullPolicy};
use roost_proto::node as wire;
use roost_proto::node::import_image_input::Input;
use roost_proto::node::import_image_progress::Progress as Answer;
use tokio::sync::{oneshot, watch};
use tonic::{Code, Status, Streaming};
use tracing::Instrument;

use super::service::{Answers, Shared};
use super::status::{invalid, shutting_down, status, too_many};
use crate::containerd::image::source::BlobStream;
use crate::containerd::image::{ImageError, Position, Progress};
use crate::pull::Ticket;

/// Imports at once: they share one disk, so more would only be slower.
pub(super) const IMPORTS_MAX: usize = 4;
/// Time in which a client must say what it sends.
const START_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// An archive on its way in. An error means that the sender is gone.
pub type Archive = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Images of the node, as the API needs them.
#[tonic::async_trait]
pub trait ImageStore: Send + Sync + 'static {
    /// Takes an OCI or docker archive of `size_bytes`, if the sender knows
    /// that; stores it under `reference`, or else under its own name.
    ///
    /// # Errors
    /// See [`ImageError`].
    async fn import(
        &self,
        archive: Archive,
        size_bytes: Option<u64>,
        reference: Option<ImageRef>,
        progress: &Progress,
    ) -> Result<ImageInfo, ImageError>;

    /// Every image that a sandbox could be started from.
    ///
    /// # Errors
    /// See [`ImageError`].
    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError>;

    /// Removes one image that no sandbox uses.
    ///
    /// # Errors
    /// See [`ImageError`].
    async fn remove(&self, reference: &ImageRef) -> Result<(), ImageError>;

    /// Begins or joins a pull; the image itself if the policy asks for none.
    ///
    /// # Errors
    /// See [`ImageError`].
    async fn pull(&self, reference: &ImageRef, policy: PullPolicy) -> Result<Pull, ImageError>;

    /// Keeps an image from collection and pruning, or lets it go again.
    ///
    /// # Errors
    /// See [`ImageError`].
    async fn set_pinned(&self, reference: &ImageRef, is_pinned: bool) -> Result<ImageInfo, ImageError>;

    /// Removes what nothing uses and nobody pinned and was not used for so
    /// long; returns it, and by how many bytes the disk got emptier.
    ///
    /// # Errors
    /// See [`ImageError`].
    async fn prune(&self, unused_for: Duration, is_dry_run: bool) -> Result<(Vec<ImageInfo>, u64), ImageError>;

    /// An image as an OCI archive, with the archive's size in bytes.
    ///
    /// # Errors
    /// See [`ImageError`].
    async fn export(&self, reference: &ImageRef) -> Result<(u64, BlobStream), ImageError>;
}

/// What a request to pull leads to.
#[derive(Debug)]
pub enum Pull {
    /// It is here, and nobody needs to be asked.
    Here(Box<ImageInfo>),
    /// It comes.
    Coming(Ticket),
}

/// Runs the import in a task of its own, which ends with the import or with
/// its client; an import that is dropped undoes what it did.
pub(super) async fn import(
    shared: &Shared,
    mut input: Streaming<wire::ImportImageInput>,
) -> Result<Answers<wire::ImportImageProgress>, Status> {
    let permit = shared.imports.clone().try_acquire_owned().map_err(|_| too_many("imports", IMPORTS_MAX))?;
    let start = first(&mut input).await?;
    let reference = optional_reference(&start.reference)?;
    let size_bytes = (start.size_bytes != 0).then_some(start.size_bytes);
    let (progress, steps) = Progress::new();
    let (mut done_tx, done_rx) = oneshot::channel();
    let images = shared.parts.images.clone();
    let task = async move {
        let _permit = permit;
        let done = tokio::select! {
            // May be dropped: that undoes it.
            done = images.import(archive(input), size_bytes, reference, &progress) => done,
            // Cancel-safe: only looks.
            () = done_tx.closed() => return tracing::info!("image import undone: its client left"),
        };
        if done_tx.send(done).is_err() {
            tracing::debug!("client left at the end of an image import");
        }
    };
    shared.parts.tasks.spawn("import", task.instrument(tracing::info_span!("import")));
    Ok(answers(steps, done_rx))
}

fn optional_reference(text: &str) -> Result<Option<ImageRef>, Status> {
    if text.is_empty() { Ok(None) } else { parse("reference", text).map(Some).map_err(invalid) }
}

async fn first(input: &mut Streaming<wire::ImportImageInput>) -> Result<wire::ImportImageStart, Status> {
    let message = tokio::time::timeout(START_MESSAGE_TIMEOUT, input.message()).await.map_err(|_| {
        status(Code::DeadlineExceeded, "timeout", "the first input, `start`, did not come within 10 s")
    })??;
    match message.and_then(|message| message.input) {
        Some(Input::Start(start)) => Ok(start),
        _ => Err(status(Code::InvalidArgument, "invalid-request", "the first input must be `start`")),
    }
}

/// The data of the call.
fn archive(input: Streaming<wire::ImportImageInput>) -> Archive {
    Box::pin(input.map(|message| match message.map_err(io::Error::other)?.input {
        Some(Input::Data(data)) => Ok(Bytes::from(data)),
        _ => Err(io::Error::other("after `start` only data may come")),
    }))
}

/// Steps as they change, then the image or what went wrong.
fn answers(
    mut steps: watch::Receiver<Position>,
    mut done: oneshot::Receiver<Result<ImageInfo, ImageError>>,
) -> Answers<wire::ImportImageProgress> {
    Box::pin(async_stream::stream! {
        let done = loop {
            tokio::select! {
                // Cancel-safe: polled by reference.
                done = &mut done => break done,
                // Cancel-safe: a change that was not seen stays unseen.
                Ok(()) = steps.changed() => {
                    let step = step(&steps.borrow_and_update());
                    yield Ok(wire::ImportImageProgress { progress: Some(Answer::Step(step)) });
                }
            }
        };
        yield match done {
            Ok(Ok(image)) => Ok(wire::ImportImageProgress { progress: Some(Answer::Done(image.into())) }),
            Ok(Err(error)) => Err(error.into()),
            // The task was dropped with its runtime.
            Err(_) => Err(shutting_down()),
        };
    })
}

fn step(position: &Position) -> wire::ImportStep {
    let Position { step, done_bytes, total_bytes, .. } = *position;
    wire::ImportStep { name: step.as_str().into(), done_bytes, total_bytes }
}

pub(super) async fn list(images: &dyn ImageStore) -> Result<wire::ListImagesResponse, Status> {
    let images = images.list().await?;
    Ok(wire::ListImagesResponse { images: images.into_iter().map(Into::into).collect() })
}

pub(super) async fn remove(
    images: &dyn ImageStore,
    request: wire::RemoveImageRequest,
) -> Result<wire::RemoveImageResponse, Status> {
    let reference = parse("reference", &request.reference).map_err(invalid)?;
    images.remove(&reference).await?;
    Ok(wire::RemoveImageResponse {})
}

pub(super) async fn pin(
    images: &dyn ImageStore,
    request: wire::PinImageRequest,
) -> Result<wire::PinImageResponse, Status> {
    let reference = parse("reference", &request.reference).map_err(invalid)?;
    let image = images.set_pinned(&reference, request.pinned).await?;
    Ok(wire::PinImageResponse { image: Some(image.into()) })
}

pub(super) async fn prune(
    images: &dyn ImageStore,
    request: wire::PruneImagesRequest,
) -> Result<wire::PruneImagesResponse, Status> {
    let unused_for = Duration::from_millis(request.unused_for_ms);
    let (removed, freed_bytes) = images.prune(unused_for, request.dry_run).await?;
    Ok(wire::PruneImagesResponse { removed: removed.into_iter().map(Into::into).collect(), freed_bytes })
}
