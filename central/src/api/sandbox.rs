//! `/sandboxes`.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use roost_proto::id::{NodeId, TemplateName};
use roost_proto::model::{CreateSandbox, Page, Phase, Problem, Sandbox, UpdateSandbox};
use serde::Deserialize;

use super::extract::{Body, Caller, Query};
use super::problem::ApiError;
use super::{PREFIX, page};
use crate::app::{Create, ListSandboxes, Update, Wish};
use crate::store::Created;
use crate::store::Intent;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Which sandboxes, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most this many items, 1 to 500; 100 when absent.
    page_size: Option<u32>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
    /// Only those in this phase.
    #[param(value_type = Option<Phase>)]
    phase: Option<Phase>,
    /// Only those of this template.
    #[param(value_type = Option<String>)]
    template: Option<TemplateName>,
    /// Only those on this node.
    #[param(value_type = Option<String>)]
    node: Option<NodeId>,
}

/// Accepts a sandbox; it starts in the background.
#[utoipa::path(post, path = "/api/v1/sandboxes", tag = "sandboxes", request_body = CreateSandbox,
    params(("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and body give the same answer for a day")),
    responses((status = 201, description = "Accepted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn create(
    Caller(scope): Caller,
    headers: HeaderMap,
    Body(body): Body<CreateSandbox>,
) -> Result<Response, ApiError> {
    let idempotency_key = idempotency_key(&headers);
    let created = scope.create_sandbox(Create { body, idempotency_key }).await?;
    let location = format!("{PREFIX}/sandboxes/{}", created.sandbox.id);
    Ok(([(header::LOCATION, location)], answer(StatusCode::CREATED, created)).into_response())
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    headers.get(IDEMPOTENCY_KEY).map(|key| String::from_utf8_lossy(key.as_bytes()).into())
}

/// A sandbox with its generation as entity tag.
fn answer(status: StatusCode, created: Created) -> Response {
    let tag = [(header::ETAG, format!("\"{}\"", created.sandbox.generation))];
    let mut response = (status, tag, Json(created.sandbox)).into_response();
    if created.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The generation of `If-Match`; `*` is any.
fn if_generation(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    match given.to_str().map(str::trim) {
        Ok("*") => Ok(None),
        Ok(tag) => match tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')?.parse().ok()) {
            Some(generation) => Ok(Some(generation)),
            None => Err(ApiError::field("If-Match", "must be the ETag of an earlier answer, e.g. \"3\", or *")),
        },
        Err(_) => Err(ApiError::field("If-Match", "must be the ETag of an earlier answer, e.g. \"3\", or *")),
    }
}

/// Changes requests, limits and times; the node applies them without a restart.
#[utoipa::path(patch, path = "/api/v1/sandboxes/{sandbox}", tag = "sandboxes", request_body = UpdateSandbox,
    params(("sandbox" = String, Path, description = "Id or name"),
        ("If-Match" = Option<String>, Header, description = "ETag of an earlier answer: refused if the sandbox was changed since"),
        ("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and body give the same answer for a day")),
    responses((status = 202, description = "Accepted; observed.limits says what is in force", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn update(
    Caller(scope): Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(body): Body<UpdateSandbox>,
) -> Result<Response, ApiError> {
    let update = Update { body, if_generation: if_generation(&headers)?, idempotency_key: idempotency_key(&headers) };
    Ok(answer(StatusCode::ACCEPTED, scope.update_sandbox(&name, update).await?))
}

/// Lists sandboxes in the order of their creation.
#[utoipa::path(get, path = "/api/v1/sandboxes", tag = "sandboxes", params(ListQuery),
    responses((status = 200, description = "One page", body = Page<Sandbox>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(
    Caller(scope): Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Sandbox>>, ApiError> {
    let ListQuery { page_size, page_token, phase, template, node } = query;
    let page_size = page::size(page_size)?;
    Ok(Json(scope.sandboxes(ListSandboxes { phase, template, node, page_token, page_size }).await?))
}

/// One sandbox by id or name.
#[utoipa::path(get, path = "/api/v1/sandboxes/{sandbox}", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The sandbox", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn get(Caller(scope): Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    Ok(answer(StatusCode::OK, Created { sandbox: scope.sandbox(&name).await?, replayed: false }))
}

async fn wish(Caller(scope): Caller, name: &str, headers: &HeaderMap, intent: Intent) -> Result<Response, ApiError> {
    let wish = Wish { intent, idempotency_key: idempotency_key(headers) };
    Ok(answer(StatusCode::ACCEPTED, scope.wish(name, wish).await?))
}

/// Runs a sandbox that is stopped or failed.
#[utoipa::path(post, path = "/api/v1/sandboxes/{sandbox}/start", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and request give the same answer for a day")),
    responses((status = 202, description = "Accepted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn start(caller: Caller, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    wish(caller, &name, &headers, Intent::Start).await
}

/// Stops a sandbox and keeps what it holds.
#[utoipa::path(post, path = "/api/v1/sandboxes/{sandbox}/stop", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and request give the same answer for a day")),
    responses((status = 202, description = "Accepted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn stop(caller: Caller, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    wish(caller, &name, &headers, Intent::Stop).await
}

/// Stops a sandbox and runs it again.
#[utoipa::path(post, path = "/api/v1/sandboxes/{sandbox}/restart", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and request give the same answer for a day")),
    responses((status = 202, description = "Accepted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn restart(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    wish(caller, &name, &headers, Intent::Restart).await
}

/// Makes all processes of a sandbox stand still; they keep their memory.
#[utoipa::path(post, path = "/api/v1/sandboxes/{sandbox}/pause", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and request give the same answer for a day")),
    responses((status = 202, description = "Accepted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn pause(caller: Caller, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    wish(caller, &name, &headers, Intent::Pause).await
}

/// Lets the processes of a sandbox go on.
#[utoipa::path(post, path = "/api/v1/sandboxes/{sandbox}/resume", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and request give the same answer for a day")),
    responses((status = 202, description = "Accepted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn resume(caller: Caller, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    wish(caller, &name, &headers, Intent::Resume).await
}

/// Removes a sandbox with everything it holds; it is Deleting until its node
/// confirms that nothing is left.
#[utoipa::path(delete, path = "/api/v1/sandboxes/{sandbox}", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name"), ("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and request give the same answer for a day")),
    responses((status = 202, description = "Accepted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn delete(caller: Caller, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    wish(caller, &name, &headers, Intent::Delete).await
}
