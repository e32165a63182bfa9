//! `/join-tokens`.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use roost_proto::model::{Page, Problem};
use serde::Deserialize;

use super::extract::{Body, Caller, Query, named};
use super::page::{self, PageQuery};
use super::problem::ApiError;
use crate::app::{JoinTokenInfo, NewJoinTokenInfo, Noun};

/// The body of `POST /api/v1/join-tokens`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateJoinToken {
    /// How long it is good, in seconds: 10 to 604800 (a week); an hour when absent.
    #[serde(default = "an_hour")]
    expires_in_s: u64,
}

fn an_hour() -> u64 {
    3600
}

/// Makes a token with which one node can join; it is shown once.
#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "nodes", request_body = CreateJoinToken,
    responses((status = 201, description = "The token", body = NewJoinTokenInfo), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn create(
    Caller(scope): Caller,
    Body(body): Body<CreateJoinToken>,
) -> Result<(StatusCode, Json<NewJoinTokenInfo>), ApiError> {
    Ok((StatusCode::CREATED, Json(scope.create_join_token(body.expires_in_s).await?)))
}

/// Lists the join tokens that can still be used, without their secrets.
#[utoipa::path(get, path = "/api/v1/join-tokens", tag = "nodes", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<JoinTokenInfo>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(
    Caller(scope): Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<JoinTokenInfo>>, ApiError> {
    // Padded, so that text order is the order of creation.
    let key = |token: &JoinTokenInfo| format!("{:020}.{}", token.created_at_unix_ms, token.id);
    Ok(Json(page::of(scope.join_tokens().await?, &query, key)?))
}

/// Makes a join token worthless.
#[utoipa::path(delete, path = "/api/v1/join-tokens/{token}", tag = "nodes", params(("token" = String, Path, description = "Id")),
    responses((status = 204, description = "Removed"), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn delete(Caller(scope): Caller, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    scope.delete_join_token(&named(Noun::JoinToken, &id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
