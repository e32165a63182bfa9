//! Serves one axum router on one listener, with TLS or without.
//!
//! Over axum's own loop this has: TLS, a deadline for handshake and request
//! head, no delay of small packets, and a drain that ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::info_span;

use crate::tasks::Tasks;

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the head of a request, so that idle senders hold no connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait after a failed accept (no descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 pings find dead connections.
const PING_PERIOD: Duration = Duration::from_secs(20);

/// Why a listener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} ({field}): choose another address or stop what listens there")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The field of the configuration.
        field: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key cannot be read.
    #[error("cannot read {path}")]
    Pem {
        /// The file.
        path: String,
        /// What the parser said.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not fit together.
    #[error("api.tls_cert and api.tls_key cannot be used")]
    Tls(#[source] rustls::Error),
}

/// Opens a listener; `field` names its address in the configuration.
///
/// # Errors
/// [`ServeError::Bind`].
pub async fn bind(address: SocketAddr, field: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, field, source })
}

/// Reads certificate chain and key for the API.
///
/// # Errors
/// [`ServeError::Pem`] and [`ServeError::Tls`].
pub fn tls(cert: &std::path::Path, key: &std::path::Path) -> Result<TlsAcceptor, ServeError> {
    let pem = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |source| ServeError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(pem(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(ServeError::Tls)?;
    // WebSockets need HTTP/1.1, gRPC needs HTTP/2: the client chooses.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until the tasks end; every connection is a task of its own.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, tasks: Tasks) {
    let ending = tasks.ending().clone();
    loop {
        // Both arms are cancel-safe: accept loses no connection.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let span = info_span!("connection", %peer);
                tasks.spawn(span, connection(stream, tls.clone(), router.clone(), tasks.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router, tasks: Tasks) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection without TCP_NODELAY");
    }
    let Some(tls) = tls else { return http(stream, router, tasks).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => http(stream, router, tasks).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, tasks: Tasks) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_PERIOD);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // The connection is polled on after the first arm; the second runs once.
    let end = tokio::select! {
        end = connection.as_mut() => end,
        () = tasks.ending().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = end {
        tracing::debug!(%error, "connection ended");
    }
}
