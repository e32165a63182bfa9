//! The listener of NodeLink: its certificate, and a bound on handshakes.
//!
//! Each handshake takes the TLS configuration of its moment, so that a CA or a
//! certificate of central's own is replaced while connections stay open.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::info_span;

use super::ServeLinkError;
use crate::ca::{Authorities, Keeper};
use crate::tasks::Tasks;

/// Time for the TLS handshake of a node.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after a failed accept (no descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait for the HTTP/2 server, which takes them at once.
const READY_DEPTH: usize = 16;
/// Wait before a certificate that could not be made is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

type TlsConfig = Arc<rustls::ServerConfig>;

/// Connections whose handshake is over.
pub(super) type Incoming = ReceiverStream<std::io::Result<TlsStream<TcpStream>>>;

/// How the listener works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Handshakes at once.
    pub(super) handshakes_max: usize,
    /// Life of central's own certificate.
    pub(super) certificate_validity: Duration,
}

/// Begins to accept; ends with the tasks.
///
/// # Errors
/// When the first certificate cannot be made.
pub(super) fn open(
    listener: TcpListener,
    keeper: Arc<Keeper>,
    settings: Settings,
    tasks: &Tasks,
) -> Result<Incoming, ServeLinkError> {
    let config = tls_config(&keeper.present(), settings.certificate_validity)?;
    let configs = watch::Sender::new(config);
    let (ready_tx, ready_rx) = mpsc::channel(READY_DEPTH);
    let accept = Accept { listener, configs: configs.subscribe(), ready_tx, settings, tasks: tasks.clone() };
    tasks.spawn(info_span!("node-accept"), accept.run());
    tasks.spawn(info_span!("node-tls"), renew(keeper, configs, settings, tasks.ending().clone()));
    Ok(ReceiverStream::new(ready_rx))
}

/// A fresh certificate of central's own, and who may come with which.
fn tls_config(authorities: &Authorities, validity: Duration) -> Result<TlsConfig, ServeLinkError> {
    let identity = authorities.serving().server_identity(validity).map_err(ServeLinkError::Identity)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in authorities.trusted() {
        roots.add(authority.certificate().clone()).map_err(ServeLinkError::Tls)?;
    }
    // Optional, so that a new node can enrol; every other call asks for it.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| ServeLinkError::Tls(rustls::Error::General(error.to_string())))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ServeLinkError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .map_err(ServeLinkError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Replaces the configuration when the CAs change and at half of the life of
/// central's certificate.
async fn renew(keeper: Arc<Keeper>, configs: watch::Sender<TlsConfig>, settings: Settings, ending: CancellationToken) {
    let mut authorities = keeper.subscribe();
    let mut due = Instant::now() + settings.certificate_validity / 2;
    loop {
        // All arms only wait: cancel-safe. The keeper lives as long as this.
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            Ok(()) = authorities.changed() => {}
            () = ending.cancelled() => return,
        }
        let present = authorities.borrow_and_update().clone();
        due = match tls_config(&present, settings.certificate_validity) {
            Ok(config) => {
                configs.send_replace(config);
                tracing::info!(ca = present.serving().key_id(), "server certificate of NodeLink replaced");
                Instant::now() + settings.certificate_validity / 2
            }
            Err(error) => {
                tracing::error!(error = crate::log::chain(&error), "server certificate of NodeLink not replaced");
                Instant::now() + RETRY_PAUSE
            }
        };
    }
}

/// Takes connections and shakes hands with them.
struct Accept {
    listener: TcpListener,
    configs: watch::Receiver<TlsConfig>,
    ready_tx: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    settings: Settings,
    tasks: Tasks,
}

impl Accept {
    async fn run(self) {
        let permits = Arc::new(Semaphore::new(self.settings.handshakes_max.min(Semaphore::MAX_PERMITS)));
        let ending = self.tasks.ending().clone();
        loop {
            // Beyond the bound, connections wait in the kernel's queue. Both
            // arms are cancel-safe: accept loses no connection.
            let accepted = tokio::select! {
                accepted = async { (permits.clone().acquire_owned().await, self.listener.accept().await) } => accepted,
                () = ending.cancelled() => return,
            };
            let (permit, accepted) = accepted;
            match accepted {
                Ok((stream, peer)) => {
                    let acceptor = TlsAcceptor::from(self.configs.borrow().clone());
                    let ready_tx = self.ready_tx.clone();
                    let shake = async move {
                        shake_hands(acceptor, stream, ready_tx).await;
                        drop(permit);
                    };
                    self.tasks.spawn(info_span!("handshake", %peer), shake);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    ready_tx: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection without TCP_NODELAY");
    }
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        // Fails only when the server has ended.
        Ok(Ok(stream)) => drop(ready_tx.send(Ok(stream)).await),
        // A node with a certificate of another CA, or a clock far off: said
        // here too, as the node learns only that it was refused.
        Ok(Err(error)) => tracing::info!(%error, "TLS handshake of a node failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}
