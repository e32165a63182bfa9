//! `POST /images/pull`: several nodes pull one image.

use std::convert::Infallible;

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use roost_proto::model::{ImageRef, Node, Problem, PullPolicy};
use serde::Deserialize;
use serde_json::json;

use super::MAX_NODES;
use crate::api::extract::{Body, Caller};
use crate::api::problem::ApiError;
use crate::app::{PullEvent, PullImages};

/// The body of `POST /api/v1/images/pull`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PullRequest {
    /// The image, with its registry.
    reference: ImageRef,
    /// `always` (default) asks the registry also where the image is;
    /// `if-not-present` does not.
    #[serde(default = "always")]
    policy: PullPolicy,
    /// Whether it is pinned as well.
    #[serde(default)]
    pin: bool,
    /// Names or ids of nodes; absent or empty = every node that is online.
    #[serde(default)]
    nodes: Vec<String>,
}

fn always() -> PullPolicy {
    PullPolicy::Always
}

/// Has nodes pull an image. `event: step` carries `{node, name, step}`,
/// `event: done` `{node, name, image}`, `event: failed` `{node, name,
/// problem}`: one of the last two for each node, then the stream ends. Pulls
/// end with the last caller that waits for them, and go on the next time.
#[utoipa::path(post, path = "/api/v1/images/pull", tag = "images", request_body = PullRequest,
    responses((status = 200, description = "Progress", content_type = "text/event-stream", body = String),
        (status = "default", body = Problem, description = "Refused")))]
pub(in crate::api) async fn pull(
    Caller(scope): Caller,
    Body(body): Body<PullRequest>,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let PullRequest { reference, policy, pin, nodes } = body;
    if reference.registry().is_none() {
        let problem = format!("names no registry: use for example registry.example/{reference}");
        return Err(ApiError::field("reference", problem));
    }
    if policy == PullPolicy::Never {
        return Err(ApiError::field("policy", "a pull cannot have the policy never"));
    }
    if nodes.len() > MAX_NODES {
        return Err(ApiError::field("nodes", "name at most 1000 nodes, or none for all"));
    }
    let ending = scope.ending().cancelled_owned();
    let events = scope.pull_images(PullImages { reference, policy, pin, nodes }).await?;
    let events = events.take_until(ending).map(|(node, event)| Ok(sse(&node, event)));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn sse(node: &Node, event: PullEvent) -> SseEvent {
    let (kind, key, value) = match event {
        PullEvent::Step(step) => ("step", "step", json!(step)),
        PullEvent::Done(image) => ("done", "image", json!(image)),
        PullEvent::Failed(error) => ("failed", "problem", json!(ApiError::from(error).problem())),
    };
    let mut data = json!({ "node": node.id, "name": node.name });
    data[key] = value;
    SseEvent::default().event(kind).data(data.to_string())
}
