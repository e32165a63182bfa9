//! Idempotency keys of the routes whose handlers know none.
//!
//! | routes | the same key and request again |
//! |---|---|
//! | sandboxes, claims, batches | the first answer, kept in the transaction of the change |
//! | join tokens | refused: a secret is shown once and never kept |
//! | files, imports, pulls, prunes | done again, which changes nothing: their answers are streams |
//! | all others that change something | the first answer |
//!
//! The same key with another request is refused on every one of them.

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};

use super::problem::ApiError;
use super::sandbox::{REPLAYED, idempotency_key};
use super::{ApiState, PREFIX};
use crate::app::{Kept, Keyed, Scope};

/// Largest answer that is kept: what such a route answers is one document.
const KEPT_MAX_BYTES: usize = 256 << 10;

/// What a key means on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// Its handler sees to it.
    Own,
    /// It is good once, and the answer is not kept.
    Once,
    /// It tells requests apart, and the answer is a stream.
    Stream,
    /// The answer is kept.
    Kept,
}

/// What a key means on a route that changes something.
pub(super) fn keys_of(method: &Method, route: &str) -> Keys {
    match (method, route) {
        (_, "/sandboxes/{sandbox}/files") => Keys::Stream,
        (_, route) if route.starts_with("/sandboxes") || route.starts_with("/claims") => Keys::Own,
        (&Method::POST, "/join-tokens") => Keys::Once,
        (&Method::POST, "/nodes/{node}/images" | "/images/pull" | "/images/prune") => Keys::Stream,
        _ => Keys::Kept,
    }
}

/// Keeps the answers of requests with a key, and gives them again.
pub(super) async fn keyed(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let changes = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let Some(key) = idempotency_key(request.headers()).filter(|_| changes) else { return next.run(request).await };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let keys = keys_of(request.method(), route.strip_prefix(PREFIX).unwrap_or(route));
    let Some(scope) = request.extensions().get::<Scope>().cloned().filter(|_| keys != Keys::Own) else {
        return next.run(request).await;
    };
    let done = match keys {
        Keys::Stream => streamed(scope, key, request, next).await,
        _ => whole(scope, key, keys, state.body_max_bytes, request, next).await,
    };
    done.unwrap_or_else(|error| error.into_response())
}

/// Method, path and query: with the body, what makes it this request.
fn target(request: &Request) -> (String, String) {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    (request.method().to_string(), path)
}

/// An archive is not read twice to be told from another: its name is.
async fn streamed(scope: Scope, key: String, request: Request, next: Next) -> Result<Response, ApiError> {
    Keyed::begin(scope, key, &target(&request), &Kept::Given).await?;
    Ok(next.run(request).await)
}

async fn whole(
    scope: Scope,
    key: String,
    keys: Keys,
    max_bytes: usize,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let target = target(&request);
    let (parts, body) = request.into_parts();
    let too_large = || ApiError::body_too_large(u64::try_from(max_bytes).unwrap_or(u64::MAX));
    let body = Limited::new(body, max_bytes).collect().await.map_err(|_| too_large())?.to_bytes();
    // White space makes no other request; what is no JSON is refused later.
    let content = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
    let first = if keys == Keys::Once { Kept::Spent } else { Kept::Given };
    let (keyed, kept) = Keyed::begin(scope, key, &(target, content), &first).await?;
    if let Some(Kept::Whole(status, content_type, body)) = kept {
        return Ok(again(status, &content_type, body));
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if keys == Keys::Once || !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, KEPT_MAX_BYTES).collect().await.map_err(|_| ApiError::internal())?.to_bytes();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    keyed.keep(&Kept::Whole(parts.status.as_u16(), content_type.to_owned(), text)).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The answer that was given first.
fn again(status: u16, content_type: &str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Ok(content_type) = HeaderValue::from_str(content_type)
        && !content_type.is_empty()
    {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_changes_something_has_a_meaning_for_keys() {
        for (method, route, keys) in [
            (Method::POST, "/sandboxes", Keys::Own),
            (Method::POST, "/sandboxes:batch", Keys::Own),
            (Method::POST, "/sandboxes:batch-delete", Keys::Own),
            (Method::DELETE, "/sandboxes/{sandbox}", Keys::Own),
            (Method::POST, "/sandboxes/{sandbox}/restart", Keys::Own),
            (Method::POST, "/claims", Keys::Own),
            (Method::POST, "/claims:batch", Keys::Own),
            (Method::POST, "/join-tokens", Keys::Once),
            (Method::DELETE, "/join-tokens/{token}", Keys::Kept),
            (Method::POST, "/images/pull", Keys::Stream),
            (Method::PUT, "/sandboxes/{sandbox}/files", Keys::Stream),
            (Method::POST, "/nodes/{node}/images", Keys::Stream),
            (Method::DELETE, "/nodes/{node}/images", Keys::Kept),
            (Method::PUT, "/templates/{template}", Keys::Kept),
        ] {
            assert_eq!(keys_of(&method, route), keys, "{method} {route}");
        }
    }
}
