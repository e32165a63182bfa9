//! `POST /images/prune`: several nodes remove what nobody needs.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use roost_proto::model::{Node, Problem};
use serde::Deserialize;
use serde_json::json;

use super::MAX_NODES;
use crate::api::extract::{Body, Caller};
use crate::api::problem::ApiError;
use crate::app::{PruneImages, Pruned, RequestError};

/// The body of `POST /api/v1/images/prune`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PruneRequest {
    /// Only images whose last use is at least this long ago, in seconds.
    #[serde(default)]
    unused_for_s: u64,
    /// Only tell what would go.
    #[serde(default)]
    dry_run: bool,
    /// Names or ids of nodes; absent or empty = every node that is online.
    #[serde(default)]
    nodes: Vec<String>,
}

/// Removes images that nothing uses and nobody pinned from nodes, however long
/// that takes. `event: done` carries `{node, name, removed, freed_bytes}`,
/// `event: failed` `{node, name, problem}`: one of them for each node, then
/// the stream ends.
#[utoipa::path(post, path = "/api/v1/images/prune", tag = "images", request_body = PruneRequest,
    responses((status = 200, description = "What went", content_type = "text/event-stream", body = String),
        (status = "default", body = Problem, description = "Refused")))]
pub(in crate::api) async fn prune(
    Caller(scope): Caller,
    Body(body): Body<PruneRequest>,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let PruneRequest { unused_for_s, dry_run, nodes } = body;
    if nodes.len() > MAX_NODES {
        return Err(ApiError::field("nodes", "name at most 1000 nodes, or none for all"));
    }
    let ending = scope.ending().cancelled_owned();
    let unused_for = Duration::from_secs(unused_for_s);
    let outcomes = scope.prune_images(PruneImages { unused_for, dry_run, nodes }).await?;
    let events = outcomes.take_until(ending).map(|(node, outcome)| Ok(sse(&node, outcome)));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn sse(node: &Node, outcome: Result<Pruned, RequestError>) -> SseEvent {
    let (kind, mut data) = match outcome {
        Ok(pruned) => ("done", json!(pruned)),
        Err(error) => ("failed", json!({ "problem": ApiError::from(error).problem() })),
    };
    (data["node"], data["name"]) = (json!(node.id), json!(node.name));
    SseEvent::default().event(kind).data(data.to_string())
}
