//! Strict readers of requests: whatever is wrong is named.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use roost_proto::model::FieldError;
use serde::de::DeserializeOwned;

use super::ApiState;
use super::problem::ApiError;
use crate::app::{Noun, RequestError, Scope};

/// Who calls, as [`super::layers::authorize`] found out.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Scope);

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        parts.extensions.get::<Scope>().cloned().map(Self).ok_or_else(|| RequestError::Unauthorized.into())
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        read_body(request, state.body_max_bytes).await.map(Self)
    }
}

/// Largest body that brings files: 2 MiB of them as base64, and as much again
/// for a batch and everything else.
const LARGE_MAX_BYTES: usize = 6 << 20;

/// A JSON body that may bring files.
#[derive(Debug)]
pub(super) struct LargeBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for LargeBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        read_body(request, LARGE_MAX_BYTES.max(state.body_max_bytes)).await.map(Self)
    }
}

async fn read_body<T: DeserializeOwned>(request: Request, max_bytes: usize) -> Result<T, ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::media_type());
    }
    let limited = Limited::new(request.into_body(), max_bytes);
    let bytes = limited.collect().await.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => ApiError::body_too_large(u64::try_from(max_bytes).unwrap_or(u64::MAX)),
        None => ApiError::malformed_body("the body ended early: send it again"),
    })?;
    read_json(&bytes.to_bytes())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let source = error.into_inner();
        if source.is_data() {
            let field = field_error(&path, &source.to_string());
            RequestError::Invalid(vec![field]).into()
        } else {
            ApiError::malformed_body(format!("the body is no JSON: {source}"))
        }
    })?;
    reader.end().map_err(|error| ApiError::malformed_body(format!("the body is no JSON: {error}")))?;
    Ok(value)
}

/// Names the field of a serde error: its path, and the unknown or missing
/// field that only its text names.
fn field_error(path: &str, text: &str) -> FieldError {
    let named = ["unknown field `", "missing field `"].iter().find_map(|prefix| {
        let (name, _) = text.strip_prefix(prefix)?.split_once('`')?;
        Some(name)
    });
    let field = match (path, named) {
        ("." | "", None) => "body".into(),
        ("." | "", Some(name)) => name.into(),
        (path, Some(name)) if path.rsplit('.').next() != Some(name) => format!("{path}.{name}"),
        (path, _) => path.to_owned(),
    };
    FieldError::new(field, text)
}

/// The query, each parameter known by name.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|rejection| query_error(&rejection))
    }
}

fn query_error(rejection: &QueryRejection) -> ApiError {
    let text = rejection.body_text();
    // "Failed to deserialize query string: [path: ]reason".
    let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
    let (path, reason) = match reason.split_once(": ") {
        Some((path, rest)) if !path.contains(' ') => (path, rest),
        _ => (".", reason),
    };
    let mut field = field_error(path, reason);
    if field.field == "body" {
        field.field = "query".into();
    }
    RequestError::Invalid(vec![field]).into()
}

/// A name or id from a path: what cannot be one does not exist.
pub(super) fn named<T: std::str::FromStr>(noun: Noun, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| RequestError::not_found(noun, text).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::{CreateSandbox, Profile};

    fn refused<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> (String, Vec<String>) {
        let error = read_json::<T>(text.as_bytes()).unwrap_err();
        let problem = error.problem();
        (problem.code.clone(), problem.errors.iter().map(|e| e.field.clone()).collect())
    }

    #[test]
    fn unknown_and_missing_fields_are_named() {
        assert_eq!(refused::<CreateSandbox>(r#"{"template":"a","colour":1}"#).1, ["colour"]);
        assert_eq!(refused::<CreateSandbox>("{}").1, ["template"]);
        let nested = r#"{"name":"a","resources":{"shm_mib":1}}"#;
        assert_eq!(refused::<Profile>(nested).1, ["resources.shm_mib"]);
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let text = r#"{"name":"a","resources":{"shm_bytes":"much"}}"#;
        assert_eq!(refused::<Profile>(text), ("invalid-field".into(), vec!["resources.shm_bytes".into()]));
    }

    #[test]
    fn no_json_is_told_from_wrong_json() {
        for text in ["", "{", "{}x", "\u{0}"] {
            assert_eq!(
                refused::<CreateSandbox>(text).0.as_str(),
                if text == "{}x" { "invalid-field" } else { "malformed-body" },
                "{text:?}"
            );
        }
        assert_eq!(refused::<CreateSandbox>(r#"{"template":"a"} x"#).0, "malformed-body");
    }
}
