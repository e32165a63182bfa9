//! Images on their way: pulled in, exported.

use std::time::Duration;

use futures::StreamExt;
use roost_proto::convert::{parse, pull_policy_or};
use roost_proto::model::{ImageInfo, ImageRef, PullPolicy, PullStep};
use roost_proto::node as wire;
use roost_proto::node::pull_image_progress::Progress as Answer;
use tonic::{Code, Status};

use super::{ImageStore, Pull};
use crate::api::service::{Answers, Shared};
use crate::api::status::{invalid, status};
use crate::containerd::image::Position;

/// Between two messages of progress: faster than eyes, slower than pieces.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Pulls an image. The pull ends with the last caller that waits for it.
pub(in crate::api) async fn pull(
    shared: &Shared,
    request: wire::PullImageRequest,
) -> Result<Answers<wire::PullImageProgress>, Status> {
    let reference: ImageRef = parse("reference", &request.reference).map_err(invalid)?;
    let policy = pull_policy_or(request.policy, PullPolicy::Always).map_err(invalid)?;
    if policy == PullPolicy::Never {
        return Err(status(Code::InvalidArgument, "invalid-request", "policy: a pull cannot have the policy never"));
    }
    let images = shared.parts.images.clone();
    let mut ticket = match images.pull(&reference, policy).await? {
        Pull::Here(image) => {
            let image = pinned(&*images, *image, request.pin).await;
            return Ok(futures::stream::iter([image.map(done)]).boxed());
        }
        Pull::Coming(ticket) => ticket,
    };
    let mut position = ticket.position();
    Ok(Box::pin(async_stream::try_stream! {
        let image = loop {
            tokio::select! {
                // Cancel-safe: the outcome stays.
                image = ticket.done() => break image,
                // Cancel-safe: a change that was not seen stays unseen.
                Ok(()) = position.changed() => {
                    let step = step(&position.borrow_and_update());
                    yield wire::PullImageProgress { progress: Some(Answer::Step(step.into())) };
                    tokio::time::sleep(PROGRESS_PERIOD).await;
                }
            }
        };
        yield done(pinned(&*images, image?, request.pin).await?);
    }))
}

async fn pinned(images: &dyn ImageStore, image: ImageInfo, is_wanted: bool) -> Result<ImageInfo, Status> {
    if is_wanted { Ok(images.set_pinned(&image.reference, true).await?) } else { Ok(image) }
}

fn done(image: ImageInfo) -> wire::PullImageProgress {
    wire::PullImageProgress { progress: Some(Answer::Done(image.into())) }
}

fn step(position: &Position) -> PullStep {
    PullStep {
        name: position.step.as_str().into(),
        done_bytes: position.done_bytes,
        total_bytes: position.total_bytes,
        layers: position.layers.clone(),
        source: position.source.clone(),
    }
}

/// Sends an image as an archive.
pub(in crate::api) async fn export(
    shared: &Shared,
    request: wire::ExportImageRequest,
) -> Result<Answers<wire::ExportImageChunk>, Status> {
    let reference = parse("reference", &request.reference).map_err(invalid)?;
    let (total_bytes, archive) = shared.parts.images.export(&reference).await?;
    let mut total_bytes = Some(total_bytes);
    let chunk = move |piece: Result<bytes::Bytes, _>| {
        let data = piece.map_err(Status::from)?.into();
        Ok(wire::ExportImageChunk { data, total_bytes: total_bytes.take().unwrap_or_default() })
    };
    Ok(archive.map(chunk).boxed())
}
