//! `/templates`.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use roost_proto::model::{Page, Problem, Template};

use super::extract::{Body, Caller, Query, named};
use super::page::{self, PageQuery};
use super::problem::ApiError;
use crate::app::Noun;

/// Lists templates by name.
#[utoipa::path(get, path = "/api/v1/templates", tag = "templates", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<Template>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(
    Caller(scope): Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Template>>, ApiError> {
    Ok(Json(page::of(scope.templates().await?, &query, |template| template.name.to_string())?))
}

/// One template.
#[utoipa::path(get, path = "/api/v1/templates/{template}", tag = "templates", params(("template" = String, Path, description = "Name")),
    responses((status = 200, description = "The template", body = Template), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn get(Caller(scope): Caller, Path(name): Path<String>) -> Result<Json<Template>, ApiError> {
    Ok(Json(scope.template(&named(Noun::Template, &name)?).await?))
}

/// Creates or replaces a template; sandboxes that exist keep what they were made from.
#[utoipa::path(put, path = "/api/v1/templates/{template}", tag = "templates", request_body = Template,
    params(("template" = String, Path, description = "Name, as in the body")),
    responses((status = 200, description = "Replaced", body = Template), (status = 201, description = "Created", body = Template),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn put(
    Caller(scope): Caller,
    Path(name): Path<String>,
    Body(template): Body<Template>,
) -> Result<(StatusCode, Json<Template>), ApiError> {
    if template.name.as_str() != name {
        return Err(ApiError::field("name", format!("must be \"{name}\", as in the path")));
    }
    let created = scope.put_template(template.clone()).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(template)))
}

/// Removes a template; sandboxes that exist stay.
#[utoipa::path(delete, path = "/api/v1/templates/{template}", tag = "templates", params(("template" = String, Path, description = "Name")),
    responses((status = 204, description = "Removed"), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn delete(Caller(scope): Caller, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    scope.delete_template(&named(Noun::Template, &name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
