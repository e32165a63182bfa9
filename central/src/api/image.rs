//! Images: `/images` and `/nodes/{node}/images`.

pub(super) mod manage;
pub(super) mod prune;
pub(super) mod pull;

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use roost_proto::id::NodeId;
use roost_proto::model::{ImageRef, Page, Problem};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ApiState;
use super::extract::{Caller, Query, named};
use super::page::{self, PageQuery};
use super::problem::ApiError;
use crate::app::{ImportEvent, Noun, RequestError};
use crate::changes::lock;
use crate::store::ImageOnNodes;

/// Longest list of nodes: those of a large fleet are meant by leaving it out.
const MAX_NODES: usize = 1000;

/// An image and the nodes that hold it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HeldImage {
    /// Its name on the nodes.
    reference: ImageRef,
    /// Digest of its manifest.
    digest: String,
    /// Compressed size of config and layers, in bytes.
    size_bytes: u64,
    /// Who holds it.
    nodes: Vec<NodeId>,
}

impl From<ImageOnNodes> for HeldImage {
    fn from(held: ImageOnNodes) -> Self {
        let ImageOnNodes { image, nodes } = held;
        Self { reference: image.reference, digest: image.digest, size_bytes: image.size_bytes, nodes }
    }
}

/// Lists images by reference and digest.
#[utoipa::path(get, path = "/api/v1/images", tag = "images", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<HeldImage>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(
    Caller(scope): Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<HeldImage>>, ApiError> {
    let images = scope.images().await?.into_iter().map(HeldImage::from).collect();
    // A space sorts below every character of a reference.
    Ok(Json(page::of(images, &query, |image: &HeldImage| format!("{} {}", image.reference, image.digest))?))
}

/// Which image.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportQuery {
    /// Name to store it under; absent = the name in the archive.
    #[param(value_type = Option<String>)]
    reference: Option<ImageRef>,
}

/// Sends an OCI or docker archive to a node. The answer is one JSON object a
/// line: `{"step":…}`, and last `{"done":…}` or `{"problem":…}`.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/images", tag = "images",
    params(ImportQuery, ("node" = String, Path, description = "Id")),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, description = "Progress", content_type = "application/x-ndjson", body = String),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn import(
    Caller(scope): Caller,
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let node = named(Noun::Node, &id)?;
    let size_bytes = content_length(request.headers());
    if size_bytes > state.image_max_bytes {
        return Err(ApiError::body_too_large(state.image_max_bytes));
    }
    let fault = Arc::new(Mutex::new(None));
    let archive = archive(request.into_body().into_data_stream(), state.image_max_bytes, fault.clone());
    let events = scope.import_image(&node, query.reference, size_bytes, archive).await?;
    let lines = events.map(move |event| Ok::<_, std::convert::Infallible>(line(event, &fault)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Size that the caller declares; 0 = not known.
fn content_length(headers: &HeaderMap) -> u64 {
    headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0)
}

type Fault = Arc<Mutex<Option<ApiError>>>;

/// The body as it comes; ends early with a fault when it breaks or is too large.
fn archive(mut body: BodyDataStream, max_bytes: u64, fault: Fault) -> impl Stream<Item = Bytes> + Send {
    async_stream::stream! {
        let mut received: u64 = 0;
        while let Some(chunk) = body.next().await {
            let Ok(chunk) = chunk else {
                *lock(&fault) = Some(ApiError::malformed_body("the archive ended early: send it again"));
                return;
            };
            received = received.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if received > max_bytes {
                *lock(&fault) = Some(ApiError::body_too_large(max_bytes));
                return;
            }
            yield chunk;
        }
    }
}

/// One line of progress. A fault of the body explains what the node can only
/// see as a broken archive.
fn line(event: Result<ImportEvent, RequestError>, fault: &Fault) -> String {
    let value = match event {
        Ok(ImportEvent::Step(step)) => {
            json!({ "step": { "name": step.name, "done_bytes": step.done_bytes, "total_bytes": step.total_bytes } })
        }
        Ok(ImportEvent::Done(image)) => json!({ "done": image }),
        Err(error) => {
            let error = lock(fault).take().unwrap_or_else(|| error.into());
            json!({ "problem": error.problem() })
        }
    };
    format!("{value}\n")
}

/// Which image is to go.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveQuery {
    /// Its name on the node.
    #[param(value_type = String)]
    reference: ImageRef,
}

/// Removes an image from a node.
#[utoipa::path(delete, path = "/api/v1/nodes/{node}/images", tag = "images",
    params(RemoveQuery, ("node" = String, Path, description = "Id")),
    responses((status = 204, description = "Removed"), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn remove(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    scope.remove_image(&named(Noun::Node, &id)?, &query.reference).await?;
    Ok(StatusCode::NO_CONTENT)
}
