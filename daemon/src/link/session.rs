//! One stream to central, from Hello to whatever ends it.

use std::time::Duration;

use roost_proto::PROTOCOL_VERSION;
use roost_proto::convert::InvalidMessage;
use roost_proto::id::{ParseIdError, TunnelId};
use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::node_link_client::NodeLinkClient;
use roost_proto::node::node_message::Body as ToCentral;
use roost_proto::node::{CentralMessage, DesiredAck, DesiredState, Hello, NodeMessage, OpenTunnel, Welcome};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::heartbeat::{Heartbeats, Next, UnknownAck};
use super::identity::Identity;
use super::tunnel::Tunnels;
use super::{Link, NodeSandboxes, desired, dial, unix_ms};
use crate::sandbox::ApplyError;

/// Abilities beyond the protocol version.
const FEATURES: [&str; 1] = ["tunnel"];
/// Time for central to open the stream, and again for its Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait for the connection: a window of heartbeats and acks.
const OUT_QUEUE: usize = 8;
/// Desired states that wait for the ledger. Central sends few at a time; one
/// that overruns this is answered by a new stream, which begins with all.
const DESIRED_QUEUE: usize = 64;
/// Largest message in: every spec of a full node.
const MESSAGE_MAX_BYTES: usize = 64 << 20;
/// Bounds of the heartbeat period that central may ask for.
const PERIOD_MS: std::ops::RangeInclusive<u32> = 50..=60_000;
/// Pause before central is asked to send again what the ledger refused.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);
/// While the connection takes nothing, how often it is asked whether central
/// has been silent for too long.
const STALL_LOOK: Duration = Duration::from_secs(1);
/// Difference of the clocks from which on times in logs mislead people.
const CLOCK_OFFSET_WARN_MS: u64 = 5_000;

/// Why a stream ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("cannot reach central")]
    Dial(#[source] tonic::transport::Error),
    #[error("central ended the connection")]
    Status(#[source] Status),
    #[error("central did not {what} within {} s", WELCOME_TIMEOUT.as_secs())]
    Timeout { what: &'static str },
    #[error("central closed the connection")]
    Closed,
    #[error("central speaks protocol version {theirs}, this daemon {PROTOCOL_VERSION}: upgrade the older one")]
    Version { theirs: u32 },
    #[error("central broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("central acknowledges no heartbeat any more")]
    Silent,
    #[error(transparent)]
    Ack(#[from] UnknownAck),
}

impl SessionError {
    /// Whether central has said that it does not know this node.
    pub(super) fn is_rejection(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == tonic::Code::Unauthenticated)
    }
}

impl From<Status> for SessionError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Connects and keeps the stream until it breaks; says why it did.
pub(super) async fn run(link: &Link, identity: &Identity, shutdown: &CancellationToken) -> SessionError {
    match open(link, identity).await {
        Ok(session) => session.run(link, shutdown).await,
        Err(error) => error,
    }
}

/// An open stream after its Welcome.
struct Session {
    client: NodeLinkClient<Channel>,
    outbound: mpsc::Sender<NodeMessage>,
    inbound: Streaming<CentralMessage>,
    begin: Instant,
    heartbeats: Heartbeats,
}

async fn open(link: &Link, identity: &Identity) -> Result<Session, SessionError> {
    let endpoint = dial::mutual(&link.endpoint, identity).map_err(SessionError::Dial)?;
    let channel = endpoint.connect().await.map_err(SessionError::Dial)?;
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
    let heartbeats = Heartbeats::new(period(&welcome)?);
    publish_welcome(link, &welcome, begin.elapsed());
    Ok(Session { client, outbound, inbound, begin, heartbeats })
}

fn hello(link: &Link) -> Hello {
    Hello {
        protocol_version: PROTOCOL_VERSION,
        features: FEATURES.map(Into::into).to_vec(),
        instance_id: link.instance_id.clone(),
        desired_generation: link.parts.sandboxes.central_generation(),
    }
}

fn period(welcome: &Welcome) -> Result<Duration, SessionError> {
    if welcome.protocol_version != PROTOCOL_VERSION {
        return Err(SessionError::Version { theirs: welcome.protocol_version });
    }
    if !PERIOD_MS.contains(&welcome.heartbeat_period_ms) {
        return Err(SessionError::Protocol("its heartbeat_period_ms is not within 50 to 60000"));
    }
    Ok(Duration::from_millis(welcome.heartbeat_period_ms.into()))
}

/// Half of the round trip is the best guess at how old central's clock is.
fn publish_welcome(link: &Link, welcome: &Welcome, round_trip: Duration) {
    let now = unix_ms();
    let theirs = welcome.central_unix_ms.saturating_add(micros(round_trip) / 2_000);
    let clock_offset_ms = i64::try_from(i128::from(theirs) - i128::from(now)).unwrap_or(i64::MAX);
    if clock_offset_ms.unsigned_abs() > CLOCK_OFFSET_WARN_MS {
        tracing::warn!(clock_offset_ms, "clocks of node and central differ: set up time synchronisation");
    }
    link.state.send_modify(|state| state.connected(now, clock_offset_ms));
    tracing::info!(address = link.config.address, clock_offset_ms, "connected to central");
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn send(outbound: &mpsc::Sender<NodeMessage>, body: ToCentral) -> Result<(), SessionError> {
    outbound.send(NodeMessage { body: Some(body) }).await.map_err(|_| SessionError::Closed)
}

impl Session {
    async fn run(mut self, link: &Link, shutdown: &CancellationToken) -> SessionError {
        let (desired_tx, desired_rx) = mpsc::channel(DESIRED_QUEUE);
        let outbound = self.outbound.clone();
        tokio::select! {
            // Both arms may be dropped: whichever ends, the stream is over, and
            // the next one tells central what was made durable here.
            error = self.talk(link, &desired_tx, shutdown) => error,
            error = apply(&*link.parts.sandboxes, desired_rx, &outbound) => error,
        }
    }

    async fn talk(
        &mut self,
        link: &Link,
        desired: &mpsc::Sender<DesiredState>,
        shutdown: &CancellationToken,
    ) -> SessionError {
        let mut tunnels = Tunnels::new(self.client.clone(), link.parts.api.clone(), shutdown.clone());
        let outbound = self.outbound.clone();
        let mut changes = link.parts.sandboxes.subscribe();
        let mut status = link.parts.status.clone();
        loop {
            let next = self.heartbeats.next(self.begin.elapsed());
            let wake = match next {
                Next::Dead => return SessionError::Silent,
                Next::Send(_) => Instant::now() + STALL_LOOK,
                Next::WaitUntil(time) => self.begin + time,
            };
            tokio::select! {
                // Cancel-safe: a half-received message stays in the stream.
                message = self.inbound.message() => {
                    if let Err(error) = self.take(message, link, desired, &mut tunnels) {
                        return error;
                    }
                }
                // Cancel-safe: a place in the queue that is not used is free again.
                permit = outbound.reserve(), if matches!(next, Next::Send(_)) => {
                    let (Ok(permit), Next::Send(kind)) = (permit, next) else { return SessionError::Closed };
                    let changed_since = |change| link.parts.sandboxes.changed_since(change);
                    let now = self.begin.elapsed();
                    let heartbeat = self.heartbeats.build(kind, now, unix_ms(), &status.borrow(), changed_since);
                    if let Some(heartbeat) = heartbeat {
                        permit.send(NodeMessage { body: Some(ToCentral::Heartbeat(heartbeat)) });
                    }
                }
                // Cancel-safe: a change that was not seen stays unseen. The
                // domain ends only with the process, so an error waits for that.
                Ok(()) = changes.changed() => self.heartbeats.mark_dirty(),
                Ok(()) = status.changed() => self.heartbeats.mark_dirty(),
                // Cancel-safe: a sleep to a fixed time.
                () = tokio::time::sleep_until(wake) => {}
                // Cancel-safe: only removes what has ended.
                () = tunnels.reap() => {}
            }
        }
    }

    /// Handles one message; never waits.
    fn take(
        &mut self,
        message: Result<Option<CentralMessage>, Status>,
        link: &Link,
        desired: &mpsc::Sender<DesiredState>,
        tunnels: &mut Tunnels,
    ) -> Result<(), SessionError> {
        match message?.ok_or(SessionError::Closed)?.body {
            Some(FromCentral::HeartbeatAck(ack)) => {
                if let Some(round_trip) = self.heartbeats.ack(ack, self.begin.elapsed())? {
                    link.state.send_modify(|state| state.rtt_us = Some(micros(round_trip)));
                }
            }
            Some(FromCentral::DesiredState(state)) => desired.try_send(state).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    SessionError::Protocol("it sends desired state faster than it is kept")
                }
                mpsc::error::TrySendError::Closed(_) => SessionError::Closed,
            })?,
            Some(FromCentral::OpenTunnel(open)) => open_tunnel(tunnels, &open),
            Some(FromCentral::Welcome(_)) => return Err(SessionError::Protocol("it welcomed the node twice")),
            // Of a later version; what the node must understand is behind a feature.
            None => tracing::debug!("unknown message from central ignored"),
        }
        Ok(())
    }
}

fn open_tunnel(tunnels: &mut Tunnels, open: &OpenTunnel) {
    let id: Result<TunnelId, ParseIdError> = open.tunnel_id.parse();
    match id {
        Ok(id) => tunnels.open(id),
        Err(error) => tracing::warn!(%error, "tunnel refused"),
    }
}

/// Applies desired states in their order and acknowledges what is durable;
/// returns only when the stream is over.
async fn apply(
    sandboxes: &dyn NodeSandboxes,
    mut states: mpsc::Receiver<DesiredState>,
    outbound: &mpsc::Sender<NodeMessage>,
) -> SessionError {
    while let Some(state) = states.recv().await {
        let ack = match apply_one(sandboxes, state).await {
            Ok(ack) => ack,
            Err(error) => {
                // Not acknowledged: central shows the node as behind, and
                // sends all again with the next stream.
                tracing::error!(%error, "desired state cannot be read");
                continue;
            }
        };
        if let Err(error) = send(outbound, ToCentral::DesiredAck(ack)).await {
            return error;
        }
    }
    SessionError::Closed
}

async fn apply_one(sandboxes: &dyn NodeSandboxes, state: DesiredState) -> Result<DesiredAck, InvalidMessage> {
    let DesiredState { generation, full, base_generation, sandboxes: list } = state;
    let list = desired::read(list, unix_ms())?;
    Ok(match sandboxes.apply_central(generation, full, base_generation, list).await {
        Ok(held) => {
            tracing::debug!(generation, held, full, "desired state applied");
            DesiredAck { generation: held, resync: false }
        }
        Err(ApplyError::Base { base, held }) => {
            tracing::info!(base, held, "desired state builds on another generation: asking for all");
            DesiredAck { generation: held, resync: true }
        }
        Err(error @ ApplyError::Ledger(_)) => {
            let error = crate::api::status::chain(&error);
            tracing::error!(error, "desired state cannot be kept: asking for it again");
            tokio::time::sleep(LEDGER_PAUSE).await;
            DesiredAck { generation: sandboxes.central_generation(), resync: true }
        }
    })
}
