//! Many sandboxes in one call. Each item succeeds or fails by itself, in a
//! transaction of its own; with an idempotency key the place of an item is part
//! of its key, so that the whole call may be repeated.

use axum::Json;
use axum::http::HeaderMap;
use futures::StreamExt;
use roost_proto::model::{CreateSandbox, Problem, Sandbox};
use serde::{Deserialize, Serialize};

use super::extract::{Caller, LargeBody};
use super::problem::ApiError;
use super::sandbox::idempotency_key;
use crate::app::{Create, Scope, Wish};
use crate::store::Intent;

/// Items of one batch, and how many of them go on at once: the database takes
/// them one after the other anyway.
pub(super) const BATCH_MAX: usize = 500;
pub(super) const BATCH_AT_ONCE: usize = 16;

/// The key of one item of a batch.
pub(super) fn item_key(key: Option<&String>, index: usize) -> Option<String> {
    key.map(|key| format!("{key}.{index}"))
}

/// Refuses a batch of nothing, and one that is too long.
pub(super) fn check_len(field: &str, len: usize) -> Result<(), ApiError> {
    if (1..=BATCH_MAX).contains(&len) {
        return Ok(());
    }
    Err(ApiError::field(field, format!("must have 1 to {BATCH_MAX} entries")))
}

/// The body of `POST /api/v1/sandboxes:batch`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchCreate {
    /// 1 to 500 sandboxes.
    sandboxes: Vec<CreateSandbox>,
}

/// The body of `POST /api/v1/sandboxes:batch-delete`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchDelete {
    /// 1 to 500 ids or names.
    sandboxes: Vec<String>,
}

/// What came of a batch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct BatchSandboxes {
    /// One for each entry, in their order.
    items: Vec<BatchSandbox>,
}

/// What came of one entry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BatchSandbox {
    /// It was accepted.
    Sandbox(Box<Sandbox>),
    /// It was not.
    Problem(Box<Problem>),
}

fn item(result: Result<Sandbox, crate::app::RequestError>) -> BatchSandbox {
    match result {
        Ok(sandbox) => BatchSandbox::Sandbox(Box::new(sandbox)),
        Err(error) => BatchSandbox::Problem(Box::new(ApiError::from(error).into_problem())),
    }
}

/// Accepts many sandboxes; each succeeds or fails by itself.
#[utoipa::path(post, path = "/api/v1/sandboxes:batch", tag = "sandboxes", request_body = BatchCreate,
    params(("Idempotency-Key" = Option<String>, Header, description = "8-120 visible ASCII characters")),
    responses((status = 200, description = "Every entry was tried", body = BatchSandboxes), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn create(
    Caller(scope): Caller,
    headers: HeaderMap,
    LargeBody(body): LargeBody<BatchCreate>,
) -> Result<Json<BatchSandboxes>, ApiError> {
    check_len("sandboxes", body.sandboxes.len())?;
    let key = idempotency_key(&headers);
    let creations = body.sandboxes.into_iter().enumerate().map(|(index, body)| {
        let create = Create { body, idempotency_key: item_key(key.as_ref(), index) };
        let scope = scope.clone();
        async move { item(scope.create_sandbox(create).await.map(|created| created.sandbox)) }
    });
    Ok(Json(BatchSandboxes { items: in_order(creations).await }))
}

/// Removes many sandboxes; each succeeds or fails by itself.
#[utoipa::path(post, path = "/api/v1/sandboxes:batch-delete", tag = "sandboxes", request_body = BatchDelete,
    params(("Idempotency-Key" = Option<String>, Header, description = "8-120 visible ASCII characters")),
    responses((status = 200, description = "Every entry was tried", body = BatchSandboxes), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn delete(
    Caller(scope): Caller,
    headers: HeaderMap,
    LargeBody(body): LargeBody<BatchDelete>,
) -> Result<Json<BatchSandboxes>, ApiError> {
    check_len("sandboxes", body.sandboxes.len())?;
    let key = idempotency_key(&headers);
    let deletions = body.sandboxes.into_iter().enumerate().map(|(index, name)| {
        let wish = Wish { intent: Intent::Delete, idempotency_key: item_key(key.as_ref(), index) };
        delete_one(scope.clone(), name, wish)
    });
    Ok(Json(BatchSandboxes { items: in_order(deletions).await }))
}

async fn delete_one(scope: Scope, name: String, wish: Wish) -> BatchSandbox {
    item(scope.wish(&name, wish).await.map(|wished| wished.sandbox))
}

async fn in_order<F>(items: impl Iterator<Item = F> + Send) -> Vec<BatchSandbox>
where
    F: Future<Output = BatchSandbox> + Send,
{
    // In pieces: what is behind a piece has not begun when the caller goes.
    futures::stream::iter(items).buffered(BATCH_AT_ONCE).collect().await
}
