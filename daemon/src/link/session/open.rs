//! From a certificate to a welcomed stream.

use std::time::Duration;

use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::node_link_client::NodeLinkClient;
use roost_proto::node::node_message::Body as ToCentral;
use roost_proto::node::{Hello, Welcome};
use roost_proto::protocol::{PROTOCOL_OLDEST, PROTOCOL_VERSION, negotiate};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::super::clock::ClockEstimate;
use super::super::heartbeat::Heartbeats;
use super::super::heartbeat::parts::PART_MAX_BYTES;
use super::super::identity::Identity;
use super::super::{Link, dial, unix_ms};
use super::error::SessionError;
use super::{OUT_QUEUE, PERIOD_MS, Session, WELCOME_TIMEOUT, send};

/// Abilities beyond the protocol version.
const FEATURES: [&str; 1] = ["tunnel"];
/// Largest message in: every spec of a full node.
const MESSAGE_MAX_BYTES: usize = 64 << 20;
/// First version with parts, adoptions and trust bundles.
const VERSION_2: u32 = 2;

/// Dials, says hello and waits for the welcome.
pub(super) async fn open(link: &Link, identity: &Identity) -> Result<Session, SessionError> {
    let endpoint = dial::mutual(&link.endpoint, identity).map_err(SessionError::Dial)?;
    let channel = endpoint.connect().await.map_err(SessionError::dial)?;
    let mut client = NodeLinkClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let (outbound, outbound_rx) = mpsc::channel(OUT_QUEUE);
    let begin = Instant::now();
    // Queued before the call, since a server may answer only to a first message.
    send(&outbound, ToCentral::Hello(hello(link))).await?;
    let call = timeout(WELCOME_TIMEOUT, client.session(ReceiverStream::new(outbound_rx))).await;
    let mut inbound = call.map_err(|_| SessionError::Timeout { what: "open the stream" })??.into_inner();
    let first = timeout(WELCOME_TIMEOUT, inbound.message()).await;
    let first = first.map_err(|_| SessionError::Timeout { what: "welcome the node" })??;
    let Some(FromCentral::Welcome(welcome)) = first.ok_or(SessionError::Closed)?.body else {
        return Err(SessionError::Protocol("its first message is no Welcome"));
    };
    let version = negotiate(welcome.protocol_version, 0)?;
    let has_2 = version >= VERSION_2;
    let heartbeats = Heartbeats::new(period(&welcome)?, has_2.then_some(PART_MAX_BYTES));
    let clock = welcomed(link, &welcome, version, begin.elapsed());
    if !welcome.ca_pem.is_empty() {
        link.take_trust(&welcome.ca_pem)?;
    }
    let certificate_pem = identity.certificate_pem.clone();
    Ok(Session { client, outbound, inbound, begin, heartbeats, clock, has_2, certificate_pem })
}

fn hello(link: &Link) -> Hello {
    Hello {
        protocol_version: PROTOCOL_OLDEST,
        features: FEATURES.map(Into::into).to_vec(),
        instance_id: link.instance_id.clone(),
        desired_generation: link.parts.sandboxes.central_generation(),
        newest_protocol_version: PROTOCOL_VERSION,
    }
}

fn period(welcome: &Welcome) -> Result<Duration, SessionError> {
    if !PERIOD_MS.contains(&welcome.heartbeat_period_ms) {
        return Err(SessionError::Protocol("its heartbeat_period_ms is not within 50 to 60000"));
    }
    Ok(Duration::from_millis(welcome.heartbeat_period_ms.into()))
}

/// Publishes that the node is connected, with the first look at central's clock.
fn welcomed(link: &Link, welcome: &Welcome, version: u32, round_trip: Duration) -> ClockEstimate {
    let mut clock = ClockEstimate::default();
    let now = unix_ms();
    clock.add(welcome.central_unix_ms, now, round_trip);
    link.state.send_modify(|state| state.connected(now, version));
    link.see_clock(clock.offset_ms());
    tracing::info!(address = link.config.address, version, clock_offset_ms = clock.offset_ms(), "connected to central");
    clock
}
