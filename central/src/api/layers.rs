//! What every request passes through.

use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rand::RngExt;
use tower_http::catch_panic::ResponseForPanic;
use tracing::{Instrument, info_span};

use super::ApiState;
use super::problem::ApiError;
use crate::app::Scope;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a caller.
const REQUEST_ID_MAX_LEN: usize = 128;

/// The id of a request, in its extensions.
#[derive(Debug, Clone)]
struct RequestId(HeaderValue);

/// The caller's own id where it is harmless, else a random one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_plain =
        |v: &&HeaderValue| (1..=REQUEST_ID_MAX_LEN).contains(&v.len()) && v.as_bytes().iter().all(u8::is_ascii_graphic);
    headers.get(REQUEST_ID).filter(is_plain).cloned().unwrap_or_else(|| {
        let random: u64 = rand::rng().random();
        HeaderValue::from_str(&format!("req-{random:016x}")).unwrap_or(HeaderValue::from_static("req"))
    })
}

/// Outermost: gives the request its id and writes problems as documents.
pub(super) async fn rendered(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let mut problem = error.into_problem();
        problem.request_id = id.to_str().ok().map(Into::into);
        let (mut parts, _) = response.into_parts();
        let body = Json(problem).into_response().into_body();
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response = Response::from_parts(parts, body);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Spans, counts and times every request.
pub(super) async fn observe(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // The pattern, so that ids make no new time series.
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let id = request.extensions().get::<RequestId>().and_then(|id| id.0.to_str().ok()).unwrap_or_default();
    let span = info_span!("request", %method, route, id);
    let response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    state.central.metrics.request(method.as_str(), &route, status, took);
    span.in_scope(|| {
        let code = response.extensions().get::<ApiError>().map(|error| error.problem().code.as_str());
        tracing::debug!(status, code, took_us = took.as_micros(), "request answered");
    });
    response
}

/// Ends requests whose answer does not begin in time.
pub(super) async fn in_time(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let limit = state.request_timeout;
    let answer = tokio::time::timeout(limit, next.run(request)).await;
    answer.unwrap_or_else(|_| ApiError::timeout(limit.as_millis()).into_response())
}

/// Lets only known tokens in.
pub(super) async fn authorize(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let token = bearer(request.headers());
    match Scope::authenticate(&state.central, token).await {
        Ok(scope) => {
            request.extensions_mut().insert(scope);
            next.run(request).await
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// The token of `Authorization: Bearer <token>`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Turns a panic of a handler into an answer; the panic itself is a mistake
/// that the log must show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panicked;

impl ResponseForPanic for Panicked {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn std::any::Any + Send>) -> Response {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no text)");
        tracing::error!(panic = text, "handler panicked");
        ApiError::internal().into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_scheme_of_a_token_is_any_case() {
        assert_eq!(bearer(&headers(header::AUTHORIZATION, "bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers(header::AUTHORIZATION, "Basic abc")), None);
        assert_eq!(bearer(&headers(header::AUTHORIZATION, "abc")), None);
    }

    #[test]
    fn a_hostile_request_id_is_replaced() {
        assert_eq!(request_id(&headers(REQUEST_ID, "mine-7")), "mine-7");
        assert_ne!(request_id(&headers(REQUEST_ID, "a b")), "a b");
        assert!(request_id(&HeaderMap::new()).to_str().unwrap().starts_with("req-"));
    }
}
