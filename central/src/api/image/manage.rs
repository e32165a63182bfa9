//! Images of one node: details, pins, export.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use roost_proto::model::{ImageInfo, ImageRef, Page, Problem};
use serde::Deserialize;

use crate::api::extract::{Body, Caller, Query, named};
use crate::api::page::{self, PageQuery};
use crate::api::problem::ApiError;
use crate::app::Noun;

/// Lists the images of a node, with pins, users, last use and size on disk.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/images", tag = "images",
    params(PageQuery, ("node" = String, Path, description = "Id")),
    responses((status = 200, description = "One page", body = Page<ImageInfo>), (status = "default", body = Problem, description = "Refused")))]
pub(in crate::api) async fn list(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ImageInfo>>, ApiError> {
    let images = scope.node_images(&named(Noun::Node, &id)?).await?;
    Ok(Json(page::of(images, &query, |image| image.reference.to_string())?))
}

/// The body of `PUT /api/v1/nodes/{node}/images/pin`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PinRequest {
    /// The image.
    reference: ImageRef,
    /// False lets it go again.
    pinned: bool,
}

/// Keeps an image from garbage collection and pruning, or lets it go again.
#[utoipa::path(put, path = "/api/v1/nodes/{node}/images/pin", tag = "images", request_body = PinRequest,
    params(("node" = String, Path, description = "Id")),
    responses((status = 200, description = "The image", body = ImageInfo), (status = "default", body = Problem, description = "Refused")))]
pub(in crate::api) async fn pin(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Body(body): Body<PinRequest>,
) -> Result<Json<ImageInfo>, ApiError> {
    Ok(Json(scope.pin_image(&named(Noun::Node, &id)?, &body.reference, body.pinned).await?))
}

/// Which image.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ExportQuery {
    /// Its name on the node.
    #[param(value_type = String)]
    reference: ImageRef,
}

/// An image of a node as an OCI archive.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/images/export", tag = "images",
    params(ExportQuery, ("node" = String, Path, description = "Id")),
    responses((status = 200, description = "The archive", content_type = "application/x-tar", body = Vec<u8>),
        (status = "default", body = Problem, description = "Refused")))]
pub(in crate::api) async fn export(
    Caller(scope): Caller,
    Path(id): Path<String>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let (total_bytes, archive) = scope.export_image(&named(Noun::Node, &id)?, &query.reference).await?;
    let headers =
        [(header::CONTENT_TYPE, "application/x-tar".to_owned()), (header::CONTENT_LENGTH, total_bytes.to_string())];
    Ok((headers, HttpBody::from_stream(archive)).into_response())
}
