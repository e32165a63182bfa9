//! `/orphans`.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use roost_proto::id::NodeId;
use roost_proto::model::{AdoptOrphan, Orphan, Page, Problem, Sandbox};
use serde::Deserialize;

use super::extract::{Body, Caller, Query, named};
use super::page::{self, PageQuery};
use super::problem::ApiError;
use crate::app::Noun;

/// Which orphans, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most this many items, 1 to 500; 100 when absent.
    page_size: Option<u32>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
    /// Only those on this node.
    #[param(value_type = Option<String>)]
    node: Option<NodeId>,
}

/// Lists sandboxes that run on nodes and that the restored database did not know.
#[utoipa::path(get, path = "/api/v1/orphans", tag = "orphans", params(ListQuery),
    responses((status = 200, description = "One page", body = Page<Orphan>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(
    Caller(scope): Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Orphan>>, ApiError> {
    let ListQuery { page_size, page_token, node } = query;
    let mut orphans = scope.orphans().await?;
    orphans.retain(|orphan| node.as_ref().is_none_or(|node| orphan.sandbox.node_id == *node));
    let query = PageQuery { page_size, page_token };
    Ok(Json(page::of(orphans, &query, |orphan| orphan.sandbox.id.to_string())?))
}

/// Makes an orphan a sandbox like any other; nothing of it is restarted.
#[utoipa::path(post, path = "/api/v1/orphans/{sandbox}/adopt", tag = "orphans", request_body = AdoptOrphan,
    params(("sandbox" = String, Path, description = "Id")),
    responses((status = 200, description = "The sandbox", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn adopt(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Body(body): Body<AdoptOrphan>,
) -> Result<Json<Sandbox>, ApiError> {
    Ok(Json(scope.adopt_orphan(&named(Noun::Orphan, &id)?, body).await?))
}

/// Deletes an orphan with everything it holds.
#[utoipa::path(delete, path = "/api/v1/orphans/{sandbox}", tag = "orphans",
    params(("sandbox" = String, Path, description = "Id")),
    responses((status = 202, description = "It is being deleted", body = Sandbox), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn remove(
    Caller(scope): Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Sandbox>), ApiError> {
    Ok((StatusCode::ACCEPTED, Json(scope.remove_orphan(&named(Noun::Orphan, &id)?).await?)))
}
