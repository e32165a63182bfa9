//! The REST API of central, typed.
//!
//! [`connect`]: TCP and TLS. [`call`]: one request. [`error`]: what can go
//! wrong. [`lines`], [`sse`], [`watch`]: streams. [`socket`]: WebSocket. One
//! file per noun: [`sandboxes`], [`nodes`], [`pools`], [`catalog`], [`images`], [`files`],
//! [`support`]; many at once: [`batch`]. Redirects
//! are never followed, so that a token stays with its server.

mod batch;
mod call;
mod catalog;
mod connect;
mod error;
mod files;
mod images;
mod lines;
mod nodes;
mod orphans;
mod pools;
mod sandboxes;
mod socket;
mod sse;
mod support;
mod watch;

pub(crate) use call::Call;
pub(crate) use catalog::Manifest;
pub(crate) use error::ClientError;
pub(crate) use files::Piece;
pub(crate) use images::{HeldImage, ImportEvent, Prune, PruneLine, Pruned, Pull, PullEvent, PullLine, Upload};
pub(crate) use nodes::JoinTokenInfo;
pub(crate) use sandboxes::{Filter, LogQuery, Verb};
pub(crate) use socket::Socket;
pub(crate) use watch::{Watch, WatchEvent};

use std::time::Duration;

use bytes::Bytes;
use futures::TryFutureExt as _;
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use roost_proto::model::{Page, Problem};
use serde::de::DeserializeOwned;

use crate::context::Target;
use connect::Connector;

/// Body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Largest answer that is read whole, in bytes: a screenshot of the largest
/// screen stays below it.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Largest error document, in bytes.
const MAX_PROBLEM_BYTES: usize = 1 << 20;
/// Tries of one call that may be repeated: a restart of central takes less
/// than the waits between them.
const TRIES: u32 = 3;
/// Wait before the second try; doubles with each.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// One server, as one caller.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: legacy::Client<Connector, Body>,
    target: Target,
    timeout: Duration,
}

impl Client {
    /// Prepares calls to a target; nothing is sent yet. `timeout` bounds each
    /// call that has an end.
    ///
    /// # Errors
    /// The certificates to trust cannot be read.
    pub(crate) fn new(target: Target, timeout: Duration) -> Result<Self, ClientError> {
        let connector = Connector::new(&target)?;
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, target, timeout })
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Unreadable { what: call.to_string(), source })
    }

    /// Makes a call whose answer says nothing more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn done(&self, call: &Call) -> Result<(), ClientError> {
        self.bytes(call).await.map(drop)
    }

    /// Asks for a whole body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn bytes(&self, call: &Call) -> Result<Bytes, ClientError> {
        let mut delay = RETRY_DELAY;
        for _ in 1..TRIES {
            match self.once(call).await {
                Err(ClientError::Broken { .. }) if call.is_repeatable() => tokio::time::sleep(delay).await,
                outcome => return outcome,
            }
            delay *= 2;
        }
        self.once(call).await
    }

    async fn once(&self, call: &Call) -> Result<Bytes, ClientError> {
        let answer = async {
            let response = self.open(self.request(call)?, call).await?;
            self.read(response, call, MAX_ANSWER_BYTES).await
        };
        self.in_time(answer, call).await
    }

    /// Opens a stream: only the answer's head is bounded in time.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn stream(&self, call: &Call) -> Result<Incoming, ClientError> {
        let request = self.request(call)?;
        self.in_time(self.open(request, call), call).await.map(Response::into_body)
    }

    /// Sends a body that is produced meanwhile; no time limit.
    async fn upload(&self, call: &Call, body: Body, length: Option<u64>) -> Result<Incoming, ClientError> {
        let mut request = self.request(call)?.map(|_| body);
        if let Some(length) = length {
            request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-tar"));
        self.open(request, call).await.map(Response::into_body)
    }

    /// Follows a list to its last page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn all<T: DeserializeOwned>(&self, call: Call) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let call = call.clone().query_option("page_token", token.as_deref());
            let page: Page<T> = self.json(&call).await?;
            items.extend(page.items);
            match page.next_page_token {
                Some(next) if token.as_ref() == Some(&next) => return Err(ClientError::PageLoop(call.to_string())),
                Some(next) => token = Some(next),
                None => return Ok(items),
            }
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Body>, ClientError> {
        let mut request = Request::builder()
            .method(call.method())
            .uri(self.target.server.api(&call.path_and_query()))
            .header(header::USER_AGENT, concat!("roost/", env!("CARGO_PKG_VERSION")));
        for (name, value) in call.headers() {
            request = request.header(name, value);
        }
        if let Some(token) = &self.target.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.secret()));
        }
        let body = Full::new(call.body()).map_err(|never| match never {}).boxed_unsync();
        request.body(body).map_err(|source| ClientError::Request { what: call.to_string(), source })
    }

    /// Sends a request; an answer that is no success becomes an error.
    async fn open(&self, request: Request<Body>, call: &Call) -> Result<Response<Incoming>, ClientError> {
        let response = self.http.request(request).map_err(|error| self.transport(error, call)).await?;
        let status = response.status();
        if status.is_success() || status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = self.read(response, call, MAX_PROBLEM_BYTES).await.unwrap_or_default();
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => {
                ClientError::Problem { problem: Box::new(problem), token_origin: self.target.token_origin.clone() }
            }
            Err(_) => ClientError::NoProblem { what: call.to_string(), status },
        })
    }

    async fn read(&self, response: Response<Incoming>, call: &Call, limit: usize) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), limit).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|source| {
            if source.is::<LengthLimitError>() {
                ClientError::TooLarge { what: call.to_string(), limit }
            } else {
                ClientError::Broken { what: call.to_string(), source }
            }
        })
    }

    fn transport(&self, error: legacy::Error, call: &Call) -> ClientError {
        if !error.is_connect() {
            return ClientError::Broken { what: call.to_string(), source: error.into() };
        }
        ClientError::Connect {
            server: self.target.server.to_string(),
            origin: self.target.server_origin.clone(),
            source: connect::cause(error),
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
        call: &Call,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::Timeout { what: call.to_string(), after: self.timeout }),
        }
    }
}
