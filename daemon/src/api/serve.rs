//! One HTTP/2 connection, from whatever transport, answered by the services.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use roost_proto::node::node_api_server::NodeApiServer;
use roost_proto::node::node_debug_server::NodeDebugServer;
use roost_proto::node::node_support_server::NodeSupportServer;
use roost_proto::node::node_volumes_server::NodeVolumesServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Service, ServiceBuilder};
use tracing::Instrument;

use super::peer::Caller;
use super::service::{NodeApiService, NodeDebugService, Shared};
use super::support::NodeSupportService;
use super::volume::NodeVolumesService;

/// Largest message in: an archive's data comes in pieces of at most 1 MiB,
/// everything else is far smaller.
const MESSAGE_IN_MAX_BYTES: usize = 4 << 20;
/// Largest message out: a PNG of the largest screen, or a state dump.
const MESSAGE_OUT_MAX_BYTES: usize = 64 << 20;
/// Calls of one connection at once: a dashboard watches tens of sandboxes.
const STREAMS_MAX: u32 = 256;
/// Calls that are being accepted at once, all connections together. A stream
/// counts until its first answer only.
const CALLS_MAX: usize = 512;
/// A peer that answers no ping within both is gone; the exec and follow calls
/// that it left behind end with the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that one call may have under way, and all calls of a connection:
/// enough for an archive at disk speed, little enough for many idle peers.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// The services behind one kind of connection; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Server {
    routes: Routes,
    limit: GlobalConcurrencyLimitLayer,
}

impl Server {
    /// For the unix socket: every service.
    pub(super) fn local(shared: &Arc<Shared>) -> Self {
        let debug = NodeDebugServer::new(NodeDebugService(shared.clone()))
            .max_decoding_message_size(MESSAGE_IN_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_OUT_MAX_BYTES);
        Self::new(api_routes(shared).add_service(debug))
    }

    /// For tunnels: looking into the daemon is not central's business.
    pub(super) fn tunnel(shared: &Arc<Shared>) -> Self {
        Self::new(api_routes(shared))
    }

    fn new(routes: Routes) -> Self {
        Self { routes: routes.prepare(), limit: GlobalConcurrencyLimitLayer::new(CALLS_MAX) }
    }

    /// Answers one connection until it ends; after `shutdown`, until the calls
    /// under way have ended.
    pub(super) async fn serve_connection<I>(&self, io: I, caller: Caller, shutdown: CancellationToken)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let routes = self.routes.clone();
        let service = ServiceBuilder::new()
            .layer(self.limit.clone())
            .service(tower::service_fn(move |request: Request<Incoming>| answer(routes.clone(), request, caller)));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            // Polled by reference, so nothing is lost when the other arm wins.
            ended = connection.as_mut() => ended,
            // Cancel-safe: a token only remembers that it was cancelled.
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%caller, %error, "API connection broke");
        }
    }
}

fn api_routes(shared: &Arc<Shared>) -> Routes {
    let api = NodeApiServer::new(NodeApiService(shared.clone()))
        .max_decoding_message_size(MESSAGE_IN_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_OUT_MAX_BYTES);
    let support = NodeSupportServer::new(NodeSupportService(shared.clone()))
        .max_decoding_message_size(MESSAGE_IN_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_OUT_MAX_BYTES);
    let volumes = NodeVolumesServer::new(NodeVolumesService(shared.clone()))
        .max_decoding_message_size(MESSAGE_IN_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_OUT_MAX_BYTES);
    Routes::new(api).add_service(support).add_service(volumes)
}

/// Runs one call in its own span; a panic costs the call, not the connection.
async fn answer(mut routes: Routes, request: Request<Incoming>, caller: Caller) -> Result<Response<Body>, Infallible> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let span = tracing::info_span!("call", method, %caller);
    let call = async move {
        let begin = tokio::time::Instant::now();
        let answer = match AssertUnwindSafe(routes.call(request)).catch_unwind().await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::error!("API handler panicked");
                Ok(Status::internal("the daemon hit a bug in this call; its log has the place").into_http())
            }
        };
        tracing::debug!(took_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX), "call answered");
        answer
    };
    call.instrument(span).await
}
