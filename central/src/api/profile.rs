//! `/profiles`.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use roost_proto::model::{Page, Problem, Profile};

use super::extract::{Body, Caller, Query, named};
use super::page::{self, PageQuery};
use super::problem::ApiError;
use crate::app::Noun;

/// Lists profiles by name.
#[utoipa::path(get, path = "/api/v1/profiles", tag = "profiles", params(PageQuery),
    responses((status = 200, description = "One page", body = Page<Profile>), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn list(
    Caller(scope): Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Profile>>, ApiError> {
    Ok(Json(page::of(scope.profiles().await?, &query, |profile| profile.name.to_string())?))
}

/// One profile.
#[utoipa::path(get, path = "/api/v1/profiles/{profile}", tag = "profiles", params(("profile" = String, Path, description = "Name")),
    responses((status = 200, description = "The profile", body = Profile), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn get(Caller(scope): Caller, Path(name): Path<String>) -> Result<Json<Profile>, ApiError> {
    Ok(Json(scope.profile(&named(Noun::Profile, &name)?).await?))
}

/// Creates or replaces a profile; sandboxes that exist keep what they were made with.
#[utoipa::path(put, path = "/api/v1/profiles/{profile}", tag = "profiles", request_body = Profile,
    params(("profile" = String, Path, description = "Name, as in the body")),
    responses((status = 200, description = "Replaced", body = Profile), (status = 201, description = "Created", body = Profile),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn put(
    Caller(scope): Caller,
    Path(name): Path<String>,
    Body(profile): Body<Profile>,
) -> Result<(StatusCode, Json<Profile>), ApiError> {
    if profile.name.as_str() != name {
        return Err(ApiError::field("name", format!("must be \"{name}\", as in the path")));
    }
    let created = scope.put_profile(profile.clone()).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(profile)))
}

/// Removes a profile that no template names.
#[utoipa::path(delete, path = "/api/v1/profiles/{profile}", tag = "profiles", params(("profile" = String, Path, description = "Name")),
    responses((status = 204, description = "Removed"), (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn delete(Caller(scope): Caller, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    scope.delete_profile(&named(Noun::Profile, &name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
