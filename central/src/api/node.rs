//! `/nodes`.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use roost_proto::model::{Node, Page, Problem, ReadmitNode};
use serde::Deserialize;

use super::extract::{Body, Caller, Query, named};
use super::page::{self, PageQuery};
use super::problem::ApiError;
use crate::app::Noun;

/// Lists nodes by name.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<Node>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(Caller(scope): Caller, Query(query): Query<PageQuery>) -> Result<Json<Page<Node>>, ApiError> {
    Ok(Json(page::of(scope.nodes().await?, &query, |node| node.name.clone())?))
}

/// One node.
#[utoipa::path(get, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path, description = "Id")),
    responses((status = 200, description = "The node", body = Node), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn get(Caller(scope): Caller, Path(id): Path<String>) -> Result<Json<Node>, ApiError> {
    Ok(Json(scope.node(&named(Noun::Node, &id)?).await?))
}

/// What a removal may take with it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Give it up, because it is lost or stolen: a session that it has is cut, and its sandboxes are gone
    /// (`node-lost`).
    #[serde(default)]
    force: bool,
}

/// Removes a node that is, unless forced, offline and empty.
#[utoipa::path(delete, path = "/api/v1/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "Id"), DeleteQuery),
    responses((status = 204, description = "Removed"), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn delete(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, ApiError> {
    scope.delete_node(&named(Noun::Node, &id)?, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks a connected node to renew its certificate now.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/rotate", tag = "nodes", params(("node" = String, Path, description = "Id")),
    responses((status = 202, description = "The node, asked to renew", body = Node), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn rotate(
    Caller(scope): Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Node>), ApiError> {
    Ok((StatusCode::ACCEPTED, Json(scope.rotate_node(&named(Noun::Node, &id)?).await?)))
}

/// Takes a node back that the restored database does not know; its certificate
/// must still be good.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/readmit", tag = "nodes", request_body = ReadmitNode,
    params(("node" = String, Path, description = "Id, as its roostd logs it")),
    responses((status = 201, description = "The node", body = Node), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn readmit(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Body(body): Body<ReadmitNode>,
) -> Result<(StatusCode, Json<Node>), ApiError> {
    Ok((StatusCode::CREATED, Json(scope.readmit_node(&named(Noun::Node, &id)?, body).await?)))
}
