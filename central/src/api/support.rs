//! `/support`, and doctor, starts and support of a node: what people ask when
//! something is wrong.

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use roost_proto::id::SandboxId;
use roost_proto::model::{HostReport, Problem, StartRecord, SupportPart};
use serde::Deserialize;
use serde_json::json;

use super::extract::{Caller, Query, named};
use super::problem::ApiError;
use crate::app::{Noun, RequestError};

/// What to judge for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DoctorQuery {
    /// How many sandboxes the limits must hold; absent = as configured.
    sandboxes: Option<u32>,
}

/// Has a node check its host: what is wrong and what to change.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/doctor", tag = "nodes",
    params(DoctorQuery, ("node" = String, Path, description = "Id")),
    responses((status = 200, description = "The report", body = HostReport), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn doctor(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Query(query): Query<DoctorQuery>,
) -> Result<Json<HostReport>, ApiError> {
    Ok(Json(scope.examine_node(&named(Noun::Node, &id)?, query.sandboxes).await?))
}

/// Which starts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StartsQuery {
    /// Only those of this sandbox, an id.
    #[param(value_type = Option<String>)]
    sandbox: Option<SandboxId>,
    /// Only the last so many; absent = all that the node remembers.
    last: Option<u32>,
}

/// The last starts of a node with their stages, the oldest first.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/starts", tag = "nodes",
    params(StartsQuery, ("node" = String, Path, description = "Id")),
    responses((status = 200, description = "The starts", body = Vec<StartRecord>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn starts(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Query(query): Query<StartsQuery>,
) -> Result<Json<Vec<StartRecord>>, ApiError> {
    Ok(Json(scope.node_starts(&named(Noun::Node, &id)?, query.sandbox.as_ref(), query.last).await?))
}

/// How much of the log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SupportQuery {
    /// Most lines of the log, the latest ones; absent = all in memory.
    log_lines: Option<u32>,
}

/// A node's part of a support bundle, without secrets. One JSON object a line:
/// parts, and `{"problem":…}` last when it breaks off.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/support", tag = "nodes",
    params(SupportQuery, ("node" = String, Path, description = "Id")),
    responses((status = 200, description = "The parts", content_type = "application/x-ndjson", body = SupportPart),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn node(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Query(query): Query<SupportQuery>,
) -> Result<Response, ApiError> {
    Ok(lines(scope.collect_node(&named(Noun::Node, &id)?, query.log_lines).await?))
}

/// Central's own part of a support bundle, without secrets; lines as of a
/// node.
#[utoipa::path(get, path = "/api/v1/support", tag = "support", params(SupportQuery),
    responses((status = 200, description = "The parts", content_type = "application/x-ndjson", body = SupportPart),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn central(Caller(scope): Caller, Query(query): Query<SupportQuery>) -> Result<Response, ApiError> {
    let parts = scope.collect(query.log_lines).await?;
    Ok(lines(futures::stream::iter(parts.into_iter().map(Ok))))
}

fn lines(parts: impl Stream<Item = Result<SupportPart, RequestError>> + Send + 'static) -> Response {
    let line = |part: Result<SupportPart, RequestError>| {
        let value = match part {
            Ok(part) => json!(part),
            Err(error) => json!({ "problem": ApiError::from(error).problem() }),
        };
        Ok::<_, std::convert::Infallible>(format!("{value}\n"))
    };
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(parts.map(line))).into_response()
}
