//! The node's one open port: `/metrics`, `/live` and `/ready` over HTTP/1.
//!
//! It carries no secret and takes no command. It must not be a way to harm the
//! daemon: connections are counted, heads are timed, bodies are not read.

mod readiness;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Metrics};
use crate::tasks::Tasks;
pub use readiness::{Condition, Missing, Readiness};

/// Connections at once: a pair of Prometheus servers, the kubelet's probes and
/// a few people. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// Time for the head of a request, and for a kept connection to be used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an answer to be taken: a scraper that stops reading is cut off.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for open answers after the shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait after a failed accept, e.g. for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why the port is not served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address} for metrics and probes: choose another `admin` address in the configuration")]
    Bind {
        /// The address from the configuration.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The listener, bound and not yet served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
}

/// What the answers are made from.
#[derive(Debug)]
struct State {
    metrics: Metrics,
    readiness: Readiness,
    tasks: Tasks,
}

impl Admin {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`AdminError::Bind`].
    pub async fn bind(
        address: SocketAddr,
        metrics: Metrics,
        readiness: Readiness,
        tasks: Tasks,
    ) -> Result<Self, AdminError> {
        let bind_error = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        Ok(Self { listener, address, state: Arc::new(State { metrics, readiness, tasks }) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then lets open answers end for two seconds.
    pub async fn serve(self, shutdown: CancellationToken) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // Both arms are cancel-safe: a connection not accepted stays in the
        // kernel's queue, and shutdown is a latch.
        while let Some((stream, slot)) = tokio::select! {
            accepted = accept(&self.listener, &connections) => accepted,
            () = shutdown.cancelled() => None,
        } {
            let connection = serve_connection(stream, Arc::clone(&self.state), shutdown.clone(), slot);
            self.state.tasks.spawn("admin-connection", connection);
        }
        drop(self.listener);
        // All slots are free once every connection has ended.
        let drained = connections.acquire_many(MAX_CONNECTIONS as u32);
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("admin connections still open at shutdown");
        }
    }
}

/// The next connection, when there is room for it; `None` never comes.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => return Some((stream, slot)),
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Serves one connection; at shutdown it ends after the answer under way.
async fn serve_connection(
    stream: TcpStream,
    state: Arc<State>,
    shutdown: CancellationToken,
    _slot: OwnedSemaphorePermit,
) {
    let service = service_fn(move |request| answer(Arc::clone(&state), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = async {
        // Cancel-safe: the connection is only borrowed, and polled again.
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        // The peer's business: it went away or spoke no HTTP.
        Ok(Err(error)) => tracing::debug!(error = %error, "admin connection broke"),
        Err(_elapsed) => tracing::debug!("admin connection was open for too long"),
    }
}

/// One answer. Never an error: whatever goes wrong has a status.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match (request.uri().path(), request.method()) {
        ("/metrics" | "/live" | "/ready", method) if method != Method::GET && method != Method::HEAD => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        ("/live", _) => text(StatusCode::OK, "live\n"),
        ("/ready", _) => ready(&state.readiness),
        ("/metrics", _) => scrape(state.metrics.clone()).await,
        _ => text(StatusCode::NOT_FOUND, "here are /metrics, /live and /ready\n"),
    })
}

/// What is missing, as JSON; 200 if nothing is.
fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let missing = readiness.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": missing.is_empty(), "missing": missing });
    respond(status, "application/json", format!("{body}\n"))
}

async fn scrape(metrics: Metrics) -> Response<Full<Bytes>> {
    // Reading the samples of a thousand sandboxes takes milliseconds.
    match tokio::task::spawn_blocking(move || metrics.encode()).await {
        Ok(Ok(body)) => respond(StatusCode::OK, metrics::CONTENT_TYPE, body),
        Ok(Err(error)) => failed_scrape(&error),
        Err(error) => failed_scrape(&error),
    }
}

fn failed_scrape(error: &dyn std::error::Error) -> Response<Full<Bytes>> {
    tracing::error!(error = %error, "cannot encode metrics");
    text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded: see the log of roostd\n")
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
