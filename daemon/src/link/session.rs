//! One stream to central, from Hello to whatever ends it.

mod apply;
mod error;
mod open;

use std::time::Duration;

use roost_proto::id::{ParseIdError, TunnelId};
use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::node_link_client::NodeLinkClient;
use roost_proto::node::node_message::Body as ToCentral;
use roost_proto::node::{CentralMessage, CertificateAdopted, DesiredState, HeartbeatAck, NodeMessage, OpenTunnel};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::clock::ClockEstimate;
use super::heartbeat::{Heartbeats, Next};
use super::identity::Identity;
use super::tunnel::Tunnels;
use super::{Link, unix_ms};
use apply::apply;
pub(super) use error::SessionError;

/// Time for central to open the stream, and again for its Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait for the connection: a window of heartbeats and acks.
const OUT_QUEUE: usize = 8;
/// Desired states that wait for the ledger. Central sends few at a time; one
/// that overruns this is answered by a new stream, which begins with all.
const DESIRED_QUEUE: usize = 64;
/// Bounds of the heartbeat period that central may ask for.
const PERIOD_MS: std::ops::RangeInclusive<u32> = 50..=60_000;
/// While the connection takes nothing, how often it is asked whether central
/// has been silent for too long.
const STALL_LOOK: Duration = Duration::from_secs(1);

/// Connects and keeps the stream until it breaks; says why it did.
pub(super) async fn run(link: &Link, identity: &Identity, shutdown: &CancellationToken) -> SessionError {
    match open::open(link, identity).await {
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
    clock: ClockEstimate,
    /// Whether the stream speaks version 2.
    has_2: bool,
    /// The certificate by which central knows the node, in PEM.
    certificate_pem: String,
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
        let known = self.has_2.then(|| self.certificate_pem.clone());
        tokio::select! {
            // All arms may be dropped: whichever ends, the stream is over, and
            // the next one tells central what was made durable here, by the
            // certificate that is in use then.
            error = self.talk(link, &desired_tx, shutdown) => error,
            error = apply(&*link.parts.sandboxes, desired_rx, &outbound) => error,
            error = tell_adoptions(link, known, &outbound) => error,
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
            Some(FromCentral::HeartbeatAck(ack)) => self.acknowledged(&ack, link)?,
            Some(FromCentral::DesiredState(state)) => desired.try_send(state).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    SessionError::Protocol("it sends desired state faster than it is kept")
                }
                mpsc::error::TrySendError::Closed(_) => SessionError::Closed,
            })?,
            Some(FromCentral::OpenTunnel(open)) => open_tunnel(tunnels, &open),
            Some(FromCentral::Welcome(_)) => return Err(SessionError::Protocol("it welcomed the node twice")),
            Some(FromCentral::TrustBundle(bundle)) => link.take_trust(&bundle.ca_pem)?,
            Some(FromCentral::RenewNow(_)) => link.renew_now.notify_one(),
            // Of a later version; what the node must understand is behind a feature.
            None => tracing::debug!("unknown message from central ignored"),
        }
        Ok(())
    }

    fn acknowledged(&mut self, ack: &HeartbeatAck, link: &Link) -> Result<(), SessionError> {
        if ack.heartbeat_period_ms != 0 {
            let period_ms = ack.heartbeat_period_ms.clamp(*PERIOD_MS.start(), *PERIOD_MS.end());
            self.heartbeats.set_period(Duration::from_millis(period_ms.into()));
        }
        let Some(round_trip) = self.heartbeats.ack(ack, self.begin.elapsed())? else { return Ok(()) };
        link.state.send_modify(|state| state.rtt_us = Some(micros(round_trip)));
        if ack.central_unix_ms != 0 {
            self.clock.add(ack.central_unix_ms, unix_ms(), round_trip);
            link.see_clock(self.clock.offset_ms());
        }
        Ok(())
    }
}

/// Tells central of each certificate that the node has kept since `known`;
/// returns only when the stream is over. Without `known` central takes none.
async fn tell_adoptions(link: &Link, known: Option<String>, outbound: &mpsc::Sender<NodeMessage>) -> SessionError {
    let Some(mut known) = known else { return std::future::pending().await };
    let mut identities = link.identity.subscribe();
    loop {
        let present = identities.borrow_and_update().as_ref().map(|identity| identity.certificate_pem.clone());
        if let Some(present) = present.filter(|present| *present != known) {
            // What is kept was parsed when it came.
            if let Ok(leaf) = CertificateDer::from_pem_slice(present.as_bytes()) {
                let adopted = CertificateAdopted { certificate_der: leaf.to_vec() };
                if let Err(error) = send(outbound, ToCentral::CertificateAdopted(adopted)).await {
                    return error;
                }
            }
            known = present;
        }
        // The sender lives in `link`, so this cannot end.
        if identities.changed().await.is_err() {
            return SessionError::Closed;
        }
    }
}

fn open_tunnel(tunnels: &mut Tunnels, open: &OpenTunnel) {
    let id: Result<TunnelId, ParseIdError> = open.tunnel_id.parse();
    match id {
        Ok(id) => tunnels.open(id),
        Err(error) => tracing::warn!(%error, "tunnel refused"),
    }
}
