//! `/pools`.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use roost_proto::model::{FleetPool, FleetPoolStatus, Page, Problem};

use super::extract::{Body, Caller, Query, named};
use super::page::{self, PageQuery};
use super::problem::ApiError;
use crate::app::Noun;

/// Lists pools by name, with their standing on the nodes.
#[utoipa::path(get, path = "/api/v1/pools", tag = "pools", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<FleetPoolStatus>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(
    Caller(scope): Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<FleetPoolStatus>>, ApiError> {
    Ok(Json(page::of(scope.pools().await?, &query, |status| status.pool.name.to_string())?))
}

/// One pool, and how it stands on the nodes.
#[utoipa::path(get, path = "/api/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path, description = "Name")),
    responses((status = 200, description = "The pool", body = FleetPoolStatus), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn get(Caller(scope): Caller, Path(name): Path<String>) -> Result<Json<FleetPoolStatus>, ApiError> {
    Ok(Json(scope.pool(&named(Noun::Pool, &name)?).await?))
}

/// Creates or replaces a pool; its nodes follow within moments.
#[utoipa::path(put, path = "/api/v1/pools/{pool}", tag = "pools", request_body = FleetPool,
    params(("pool" = String, Path, description = "Name, as in the body")),
    responses((status = 200, description = "Replaced", body = FleetPool), (status = 201, description = "Created", body = FleetPool),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn put(
    Caller(scope): Caller,
    Path(name): Path<String>,
    Body(pool): Body<FleetPool>,
) -> Result<(StatusCode, Json<FleetPool>), ApiError> {
    if pool.name.as_str() != name {
        return Err(ApiError::field("name", format!("must be the name in the path, {name}")));
    }
    let created = scope.put_pool(pool.clone()).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(pool)))
}

/// Removes a pool; desktops that were claimed stay.
#[utoipa::path(delete, path = "/api/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path, description = "Name")),
    responses((status = 204, description = "Removed"), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn delete(Caller(scope): Caller, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    scope.delete_pool(&named(Noun::Pool, &name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
