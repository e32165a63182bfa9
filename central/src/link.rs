//! NodeLink: the only way in for nodes. Central never dials one.
//!
//! TLS with our own CA. A client certificate is optional to the listener, so
//! that a new node can enrol with its join token, and required by every other
//! call; who calls is what the certificate says and nothing else.

mod admission;
mod heartbeat;
mod identity;
mod listen;
mod order;
mod pressure;
mod push;
mod session;
mod sessions;
mod settle;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use rcgen::PublicKeyData;
use roost_proto::id::NodeId;
use roost_proto::node::node_link_server::{NodeLink, NodeLinkServer};
use roost_proto::node::{CentralMessage, EnrolRequest, EnrolResponse, NodeMessage, RenewRequest, TunnelData};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::info_span;

pub use admission::Admission;
pub use pressure::{Pace, Pressure};
pub use sessions::{AskRenewalError, NodeCallError, NodeClient, Sessions};
pub(crate) use settle::read as read_held;

use crate::app::Central;
use crate::ca::{self, CaError, Issued};
use crate::clock;
use crate::secret::SecretHash;
use crate::store::{EnrolError, Enrolment};
use crate::tasks::Tasks;
use session::Session;

/// Period of HTTP/2 pings, and how long an answer may take: together well
/// below the 45 s after which a node counts as stale.
const PING_PERIOD: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Window of one stream and of one connection: an image import must fill a
/// gigabit line over some milliseconds of distance.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Largest message in: a node of version 2 sends parts of 512 KiB, one of
/// version 1 everything at once, some thousand sandboxes.
const MESSAGE_IN_MAX_BYTES: usize = 16 << 20;
/// Largest message out, as large as nodes take it: every spec of a full node.
const MESSAGE_OUT_MAX_BYTES: usize = 64 << 20;
/// Messages to a node that wait for its connection: coalesced desired state
/// and tunnels, so that more than a few means a stuck connection.
const OUT_DEPTH: usize = 32;
/// Longest node name, as long as a host name.
const NAME_MAX_LEN: usize = 253;

/// Settings of the link.
#[derive(Debug, Clone, Copy)]
pub struct LinkSettings {
    /// Life of a node's certificate.
    pub certificate_validity: Duration,
    /// Life of central's own certificate.
    pub server_certificate_validity: Duration,
    /// TLS handshakes at once.
    pub handshakes_max: usize,
    /// Period of heartbeats, and how far it may be stretched.
    pub pace: Pace,
}

/// Why NodeLink cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeLinkError {
    /// No certificate of its own.
    #[error("cannot make the server certificate of NodeLink")]
    Identity(#[source] CaError),
    /// Certificates and keys do not fit together.
    #[error("cannot configure TLS for NodeLink")]
    Tls(#[source] rustls::Error),
    /// TLS or the transport failed.
    #[error("cannot serve NodeLink")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves NodeLink on `listener` until the tasks end.
///
/// # Errors
/// See [`ServeLinkError`].
pub async fn serve(
    listener: TcpListener,
    central: Arc<Central>,
    tasks: Tasks,
    settings: LinkSettings,
) -> Result<(), ServeLinkError> {
    let listening = listen::Settings {
        handshakes_max: settings.handshakes_max,
        certificate_validity: settings.server_certificate_validity,
    };
    let incoming = listen::open(listener, central.ca.clone(), listening, &tasks)?;
    let ending = tasks.ending().clone();
    let service = NodeLinkServer::new(LinkService { central, tasks, settings })
        .max_decoding_message_size(MESSAGE_IN_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_OUT_MAX_BYTES);
    Server::builder()
        .http2_keepalive_interval(Some(PING_PERIOD))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, ending.cancelled_owned())
        .await
        .map_err(ServeLinkError::Transport)
}

struct LinkService {
    central: Arc<Central>,
    tasks: Tasks,
    settings: LinkSettings,
}

impl LinkService {
    fn issue(&self, key: &impl PublicKeyData, node: &NodeId) -> Result<Issued, Status> {
        let authorities = self.central.ca.present();
        let issued = authorities.issuing().issue(key, node, self.settings.certificate_validity);
        issued.map_err(|error| ca_status(&error))
    }

    fn answer(&self, node: &NodeId, issued: Issued) -> Response<EnrolResponse> {
        Response::new(EnrolResponse {
            node_id: node.to_string(),
            certificate_pem: issued.certificate_pem,
            ca_pem: self.central.ca.present().trust_pem(),
            not_after_unix_ms: issued.not_after_unix_ms,
        })
    }
}

/// Whether a name can stand in tables and log lines.
///
/// # Errors
/// What a name must be.
pub(crate) fn check_node_name(name: &str) -> Result<(), String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if (1..=NAME_MAX_LEN).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(format!("use 1-{NAME_MAX_LEN} letters, digits, \"-\", \"_\" and \".\""))
}

fn ca_status(error: &CaError) -> Status {
    match error {
        CaError::Request(_) => Status::invalid_argument(format!("csr_der: {}", crate::log::chain(error))),
        _ => {
            tracing::error!(error = crate::log::chain(error), "certificate not issued");
            Status::internal("central could not issue a certificate: see its log")
        }
    }
}

fn enrol_status(error: &EnrolError) -> Status {
    match error {
        EnrolError::UnknownToken | EnrolError::UsedToken | EnrolError::ExpiredToken => {
            Status::unauthenticated(error.to_string())
        }
        EnrolError::Store(source) => identity::store_status(source),
    }
}

#[tonic::async_trait]
impl NodeLink for LinkService {
    type SessionStream = ReceiverStream<Result<CentralMessage, Status>>;
    type TunnelStream = ReceiverStream<Result<TunnelData, Status>>;

    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let _entry = self.central.admission.enter()?;
        let request = request.into_inner();
        let name = check_node_name(&request.node_name);
        name.map_err(|problem| Status::invalid_argument(format!("node_name: {problem}")))?;
        // What can be wrong with the request comes first, as the token is good
        // for one try only; the signature comes last, as strangers may ask.
        let key = ca::read_request(&request.csr_der).map_err(|error| ca_status(&error))?;
        let node_id = NodeId::random();
        // People may paste the whole join string.
        let secret = request.join_token.split('.').next().unwrap_or_default();
        let enrolment = Enrolment {
            token: SecretHash::of(secret),
            node_id: node_id.clone(),
            name: request.node_name,
            now_unix_ms: clock::now_unix_ms(),
        };
        self.central.store.system().enrol(enrolment).await.map_err(|error| enrol_status(&error))?;
        let issued = self.issue(&key, &node_id)?;
        tracing::info!(node = %node_id, "node enrolled");
        Ok(self.answer(&node_id, issued))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
        let _entry = self.central.admission.enter()?;
        let node_id = identity::enrolled(&self.central, &request).await?.node_id;
        let key = ca::read_request(&request.get_ref().csr_der).map_err(|error| ca_status(&error))?;
        let issued = self.issue(&key, &node_id)?;
        tracing::info!(node = %node_id, "node certificate renewed");
        Ok(self.answer(&node_id, issued))
    }

    async fn session(&self, request: Request<Streaming<NodeMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        let _entry = self.central.admission.enter()?;
        let caller = identity::enrolled(&self.central, &request).await?;
        identity::keep_certificate(&self.central, &caller).await?;
        let (out_tx, out_rx) = mpsc::channel(OUT_DEPTH);
        let span = info_span!("session", node = %caller.node_id, name = caller.node.name);
        let session = Session::new(self.central.clone(), caller.node_id, caller.certificate, self.settings.pace);
        let ending = self.tasks.ending().clone();
        // Its own task: a session must go on while its output waits.
        self.tasks.spawn(span, session.run(request.into_inner(), out_tx, ending));
        Ok(Response::new(ReceiverStream::new(out_rx)))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelData>>) -> Result<Response<Self::TunnelStream>, Status> {
        let (node_id, _) = identity::of(&request)?;
        let (out_tx, out_rx) = mpsc::channel(OUT_DEPTH);
        let span = info_span!("tunnel", node = %node_id);
        let sessions = self.central.sessions.clone();
        self.tasks.spawn(span, tunnel::accept(sessions, node_id, request.into_inner(), out_tx));
        Ok(Response::new(ReceiverStream::new(out_rx)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_node_names_and_markup_is_not() {
        assert!(check_node_name("gpu-7.rack_2.example").is_ok());
        for bad in ["", "a b", "<b>", "a\n", &"x".repeat(254)] {
            assert!(check_node_name(bad).is_err(), "{bad:?}");
        }
    }
}
