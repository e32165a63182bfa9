//! `/claims`.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use roost_proto::model::{Claimed, CreateClaim, Problem};
use serde::{Deserialize, Serialize};

use super::PREFIX;
use super::batch::{BATCH_AT_ONCE, check_len, item_key};
use super::extract::{Caller, LargeBody};
use super::problem::ApiError;
use super::sandbox::{REPLAYED, idempotency_key};
use crate::app::{Claim, Scope};

/// Gives a desktop of a pool to the caller; returns once it is bound.
#[utoipa::path(post, path = "/api/v1/claims", tag = "claims", request_body = CreateClaim,
    params(("Idempotency-Key" = Option<String>, Header, description = "8-128 visible ASCII characters: the same key and body are the same claim for a day")),
    responses((status = 201, description = "Bound; hook_exit_code says how the hook ended", body = Claimed), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn create(
    Caller(scope): Caller,
    headers: HeaderMap,
    LargeBody(body): LargeBody<CreateClaim>,
) -> Result<Response, ApiError> {
    let answer = scope.claim(Claim { body, idempotency_key: idempotency_key(&headers) }).await?;
    let location = format!("{PREFIX}/sandboxes/{}", answer.claimed.sandbox.id);
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)], Json(answer.claimed)).into_response();
    if answer.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The body of `POST /api/v1/claims:batch`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchClaims {
    /// 1 to 500 claims; with an idempotency key the place of a claim is part of
    /// its key.
    claims: Vec<CreateClaim>,
}

/// What came of a batch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct BatchClaimed {
    /// One for each claim, in their order.
    items: Vec<BatchItem>,
}

/// What came of one claim.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BatchItem {
    /// It got a desktop.
    Claimed(Box<Claimed>),
    /// It got none.
    Problem(Box<Problem>),
}

/// Makes many claims; each succeeds or fails by itself.
#[utoipa::path(post, path = "/api/v1/claims:batch", tag = "claims", request_body = BatchClaims,
    params(("Idempotency-Key" = Option<String>, Header, description = "8-120 visible ASCII characters")),
    responses((status = 200, description = "Every claim was tried", body = BatchClaimed), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn batch(
    Caller(scope): Caller,
    headers: HeaderMap,
    LargeBody(body): LargeBody<BatchClaims>,
) -> Result<Json<BatchClaimed>, ApiError> {
    check_len("claims", body.claims.len())?;
    let key = idempotency_key(&headers);
    let claims = body.claims.into_iter().enumerate().map(|(index, body)| {
        let idempotency_key = item_key(key.as_ref(), index);
        one(scope.clone(), Claim { body, idempotency_key })
    });
    Ok(Json(BatchClaimed { items: futures::stream::iter(claims).buffered(BATCH_AT_ONCE).collect().await }))
}

async fn one(scope: Scope, claim: Claim) -> BatchItem {
    match scope.claim(claim).await {
        Ok(answer) => BatchItem::Claimed(Box::new(answer.claimed)),
        Err(error) => BatchItem::Problem(Box::new(ApiError::from(error).into_problem())),
    }
}
