//! Errors as RFC 9457 problem documents: the only place that knows status,
//! code and title of each.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use roost_proto::model::{FieldError, Problem};

use crate::app::{Conflict, Noun, RequestError};
use crate::link::NodeCallError;
use crate::log;
use crate::place::{PlaceError, Refusal};
use crate::store::StoreError;

/// An error on its way out; the outermost layer adds the id of the request.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Problem>);

/// Status, code and title of one kind of problem.
type Kind = (StatusCode, &'static str, &'static str);

const MALFORMED_BODY: Kind = (StatusCode::BAD_REQUEST, "malformed-body", "The body cannot be read");
const BODY_TOO_LARGE: Kind = (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large");
const MEDIA_TYPE: Kind = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body has the wrong type");
const INVALID_FIELD: Kind = (StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "A field breaks a rule");
const UNAUTHORIZED: Kind = (StatusCode::UNAUTHORIZED, "unauthorized", "The token is missing or not known");
const NO_ROUTE: Kind = (StatusCode::NOT_FOUND, "route-not-found", "There is no such path");
const NO_METHOD: Kind = (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path has no such method");
const OVERLOADED: Kind = (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Central is overloaded");
const TIMEOUT: Kind = (StatusCode::GATEWAY_TIMEOUT, "timeout", "The answer took too long");
const INTERNAL: Kind = (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Central failed");
const STORE: Kind = (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "The database of central failed");
const STORE_UNKNOWN: Kind =
    (StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", "It is not known whether the request took effect");
const NODE_OFFLINE: Kind = (StatusCode::SERVICE_UNAVAILABLE, "node-offline", "The node is not connected");
const NODE_ELSEWHERE: Kind =
    (StatusCode::SERVICE_UNAVAILABLE, "node-elsewhere", "The node is connected to another replica");
const NODE_ERROR: Kind = (StatusCode::BAD_GATEWAY, "node-error", "The node failed");
const NODE_BUSY: Kind = (StatusCode::SERVICE_UNAVAILABLE, "node-busy", "The node is busy");
const NOTHING_FITS: Kind = (StatusCode::CONFLICT, "nothing-fits", "No node takes the sandbox");
const IMAGE_NOWHERE: Kind = (StatusCode::CONFLICT, "image-not-found", "No node holds the image");

/// What a caller can do who does not know whether the request took effect.
const UNKNOWN_DETAIL: &str = "the connection to the database was lost in the middle: repeat the request with the same \
                              Idempotency-Key, or look before you repeat it";

impl ApiError {
    fn new((status, code, title): Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            kind: format!("/problems/{code}"),
            title: title.into(),
            status: status.as_u16(),
            code: code.into(),
            detail: detail.into(),
            errors: Vec::new(),
            request_id: None,
        }))
    }

    fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// The document.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0
    }

    /// The document, for answers that are streams.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        *self.0
    }

    /// A body that is no JSON.
    #[must_use]
    pub fn malformed_body(detail: impl Into<String>) -> Self {
        Self::new(MALFORMED_BODY, detail)
    }

    /// A body beyond the limit.
    #[must_use]
    pub fn body_too_large(max_bytes: u64) -> Self {
        Self::new(BODY_TOO_LARGE, format!("the body must not exceed {max_bytes} bytes"))
    }

    /// A body that does not claim to be JSON.
    #[must_use]
    pub fn media_type() -> Self {
        Self::new(MEDIA_TYPE, "send the body as Content-Type: application/json")
    }

    /// One field that breaks a rule.
    #[must_use]
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        RequestError::field(field, problem).into()
    }

    /// A path that does not exist.
    #[must_use]
    pub fn no_route() -> Self {
        Self::new(NO_ROUTE, "see /api/v1/openapi.json for the paths that there are")
    }

    /// A method that a path does not have.
    #[must_use]
    pub fn no_method() -> Self {
        Self::new(NO_METHOD, "see /api/v1/openapi.json for the methods of this path")
    }

    /// Too many requests at once.
    #[must_use]
    pub fn overloaded() -> Self {
        Self::new(OVERLOADED, "too many requests at once: try again in a moment")
    }

    /// No answer in time.
    #[must_use]
    pub fn timeout(after_ms: u128) -> Self {
        Self::new(
            TIMEOUT,
            format!("no answer within {after_ms} ms: the request may still take effect, look before you repeat it"),
        )
    }

    /// A mistake of central itself.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(INTERNAL, "this is a mistake in central: see its log under the id of this request")
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::Unauthorized => Self::new(UNAUTHORIZED, text),
            RequestError::NotFound { noun, .. } => Self::new(not_found(noun), text),
            RequestError::Ended { .. } => Self::new(not_found(Noun::Sandbox), text),
            RequestError::Invalid(errors) => Self::new(INVALID_FIELD, text).with_errors(errors),
            RequestError::Conflict(conflict) => Self::new(conflict_kind(&conflict), text),
            RequestError::Place(error) => placement(error, text),
            RequestError::Node(error) => node(&error),
            RequestError::Store(source) => {
                tracing::error!(error = log::chain(&source), "store failed");
                match source {
                    StoreError::Unknown(_) => Self::new(STORE_UNKNOWN, UNKNOWN_DETAIL),
                    _ => Self::new(STORE, text),
                }
            }
        }
    }
}

fn not_found(noun: Noun) -> Kind {
    let (code, title) = match noun {
        Noun::Image => ("image-not-found", "There is no such image"),
        Noun::JoinToken => ("join-token-not-found", "There is no such join token"),
        Noun::Node => ("node-not-found", "There is no such node"),
        Noun::Orphan => ("orphan-not-found", "There is no such orphan"),
        Noun::Pool => ("pool-not-found", "There is no such pool"),
        Noun::Profile => ("profile-not-found", "There is no such profile"),
        Noun::Sandbox => ("sandbox-not-found", "There is no such sandbox"),
        Noun::Template => ("template-not-found", "There is no such template"),
    };
    (StatusCode::NOT_FOUND, code, title)
}

fn conflict_kind(conflict: &Conflict) -> Kind {
    let conflicts = |code, title| (StatusCode::CONFLICT, code, title);
    match conflict {
        Conflict::NameTaken(_) => conflicts("name-taken", "The name is taken"),
        Conflict::KeyReused | Conflict::KeySpent => conflicts("idempotency-conflict", "The idempotency key is taken"),
        Conflict::Deleting(_) => conflicts("sandbox-deleting", "The sandbox is being deleted"),
        Conflict::ClaimBusy => conflicts("claim-busy", "Another request goes on with the claim"),
        Conflict::ClaimStarting { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "claim-starting", "The sandbox of the claim is still starting")
        }
        Conflict::NotBound { .. } => conflicts("claim-not-bound", "The claim stands and is not bound"),
        Conflict::NotReady(_) => conflicts("sandbox-not-ready", "The sandbox is not in a phase that allows it"),
        Conflict::Generation { .. } => {
            (StatusCode::PRECONDITION_FAILED, "generation-mismatch", "The sandbox was changed since")
        }
        Conflict::ProfileInUse { .. } => conflicts("profile-in-use", "The profile is in use"),
        Conflict::NodeNotEmpty { .. } => conflicts("node-not-empty", "The node holds sandboxes"),
        Conflict::NodeExists(_) => conflicts("node-exists", "The node is known"),
        Conflict::NodeNotOffline { .. } => conflicts("node-not-offline", "The node is not offline"),
        Conflict::NodeTooOld { .. } => conflicts("node-too-old", "The node is too old for this"),
    }
}

fn placement(error: PlaceError, text: String) -> ApiError {
    match error {
        PlaceError::NoNodes => {
            let detail = "no node is enrolled: make a token with `roost node join-token` and join a node with it";
            ApiError::new(NOTHING_FITS, detail)
        }
        PlaceError::ImageNowhere(image) => {
            // With a registry it comes this far only where the template says `never`.
            let detail = if image.registry().is_some() {
                format!(
                    "{text}, and the template never pulls: `roost image pull {image} --node <node>`, or another pull_policy"
                )
            } else {
                format!(
                    "{text}: import it with `roost image import <archive.tar> --node <node>`, or name it with its registry"
                )
            };
            let problem = format!("{image} is on no node");
            ApiError::new(IMAGE_NOWHERE, detail).with_errors(vec![FieldError::new("image", problem)])
        }
        PlaceError::NothingFits(refusals) => {
            let field = |r: Refusal| FieldError::new(format!("nodes.{}", r.node), r.reason);
            ApiError::new(NOTHING_FITS, text).with_errors(refusals.into_iter().map(field).collect())
        }
    }
}

fn node(error: &NodeCallError) -> ApiError {
    let text = error.to_string();
    match error {
        NodeCallError::Offline(_) | NodeCallError::NoTunnel(_) => {
            ApiError::new(NODE_OFFLINE, format!("{text}: see `roost node ls`, then the log of its roostd"))
        }
        NodeCallError::Elsewhere { .. } => ApiError::new(NODE_ELSEWHERE, text),
        NodeCallError::Timeout { .. } => ApiError::new(TIMEOUT, text),
        NodeCallError::Status { node, status } => node_status(&format!("{node} says: {}", status.message()), status),
    }
}

/// Kinds that a node tells by its stable word alone.
fn by_word(status: &tonic::Status) -> Option<Kind> {
    Some(match status.metadata().get("roost-code")?.to_str().ok()? {
        "path-not-found" => (StatusCode::NOT_FOUND, "path-not-found", "There is no such path in the sandbox"),
        "path-not-directory" => (StatusCode::CONFLICT, "path-not-directory", "The path is no directory"),
        "path-not-usable" => (StatusCode::CONFLICT, "path-not-usable", "The sandbox's user may not use the path"),
        "path-no-space" => (StatusCode::INSUFFICIENT_STORAGE, "no-space", "No room is left in the sandbox"),
        "archive-refused" => (StatusCode::UNPROCESSABLE_ENTITY, "archive-refused", "The archive asks for too much"),
        "archive-damaged" => (StatusCode::UNPROCESSABLE_ENTITY, "archive-damaged", "The archive cannot be read"),
        _ => return None,
    })
}

/// What a node's gRPC status means to a caller of REST.
fn node_status(text: &str, status: &tonic::Status) -> ApiError {
    use tonic::Code;
    if let Some(kind) = by_word(status) {
        return ApiError::new(kind, text);
    }
    match status.code() {
        Code::NotFound => ApiError::new(not_found(Noun::Sandbox), text),
        Code::InvalidArgument => RequestError::field("request", status.message()).into(),
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Conflict::NotReady(text.into()).into_api(),
        Code::ResourceExhausted => ApiError::new(NODE_BUSY, text),
        Code::Unimplemented => {
            ApiError::new(NODE_ERROR, format!("{text}: its roostd is of an older version, see `roost node ls`"))
        }
        Code::DeadlineExceeded => ApiError::new(TIMEOUT, text),
        Code::Cancelled => ApiError::new(NODE_OFFLINE, format!("{text}: the tunnel to the node broke, try again")),
        Code::Unavailable => {
            tracing::warn!(error = log::chain(status), "node unavailable");
            // Of a transport error the last source says what happened.
            let cause = std::iter::successors(std::error::Error::source(status), |source| source.source()).last();
            let text = cause.map_or_else(|| text.to_owned(), ToString::to_string);
            ApiError::new(NODE_OFFLINE, format!("{text}: see `roost node ls`, then the log of its roostd"))
        }
        _ => {
            tracing::warn!(error = log::chain(status), "node failed");
            ApiError::new(NODE_ERROR, text)
        }
    }
}

impl Conflict {
    fn into_api(self) -> ApiError {
        RequestError::from(self).into()
    }
}

impl IntoResponse for ApiError {
    /// The head only: the layer `rendered` writes the body, as it knows
    /// the id of the request.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_nowhere_says_which_command_brings_it() {
        let error = ApiError::from(RequestError::from(PlaceError::ImageNowhere("roost/desktop".parse().unwrap())));
        assert_eq!(error.problem().code, "image-not-found");
        assert!(error.problem().detail.contains("roost image import"));
        let image = "registry.example/app:1".parse().unwrap();
        let detail = ApiError::from(RequestError::from(PlaceError::ImageNowhere(image))).problem().detail.clone();
        assert!(detail.contains("roost image pull registry.example/app:1") && !detail.contains("import"), "{detail}");
    }

    #[test]
    fn every_node_is_named_with_its_reason() {
        let refusals = vec![Refusal { node: "n1".into(), reason: "is full".into() }];
        let error = ApiError::from(RequestError::from(PlaceError::NothingFits(refusals)));
        assert_eq!(error.problem().errors, [FieldError::new("nodes.n1", "is full")]);
    }
}
