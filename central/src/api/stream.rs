//! Screenshot and logs of a sandbox.

use axum::body::Body;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use roost_proto::model::Problem;
use roost_proto::node::LogSource;
use serde::Deserialize;

use super::extract::{Caller, Query};
use super::problem::ApiError;

/// The screen as it is now.
#[utoipa::path(get, path = "/api/v1/sandboxes/{sandbox}/screenshot", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name")),
    responses((status = 200, description = "One frame", content_type = "image/png", body = Vec<u8>),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn screenshot(Caller(scope): Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    let png = scope.screenshot(&name).await?;
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, png).into_response())
}

/// Whose output.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// The workload's.
    #[default]
    Workload,
    /// The display server's.
    Display,
}

/// Which output and how much of it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsQuery {
    /// `workload` (default) or `display`.
    #[serde(default)]
    #[param(inline)]
    source: Source,
    /// Whether the answer goes on as the output grows.
    #[serde(default)]
    follow: bool,
    /// Only the last so many lines of what is kept.
    tail: Option<u32>,
}

/// The kept output, then what follows.
#[utoipa::path(get, path = "/api/v1/sandboxes/{sandbox}/logs", tag = "sandboxes", params(LogsQuery,
    ("sandbox" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The output", content_type = "text/plain", body = String),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn logs(
    Caller(scope): Caller,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    let source = match query.source {
        Source::Workload => LogSource::Workload,
        Source::Display => LogSource::Display,
    };
    let chunks = scope.logs(&name, source, query.follow, query.tail).await?;
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
