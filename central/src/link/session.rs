//! One node's session: heartbeats in, desired state and tunnels out.
//!
//! ```text
//!   Hello ─▶ version, fence ─▶ Welcome ─┬─ receive: heartbeats, acks ─┬─▶ end
//!                                       └─ push: desired, tunnels ────┘
//! ```
//!
//! Both halves run in one task; whichever ends first ends the session, and the
//! node dials again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use roost_proto::id::NodeId;
use roost_proto::model::NodeCertificate;
use roost_proto::node::central_message::Body as Out;
use roost_proto::node::node_message::Body as In;
use roost_proto::node::{CentralMessage, CertificateAdopted, DesiredAck, Hello, NodeMessage, Welcome};
use roost_proto::protocol::negotiate;
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::admission::shutting_down;
use super::heartbeat::Heartbeats;
use super::identity::{removed, store_status};
use super::pressure::Pace;
use super::push::Push;
use super::sessions::End;
use crate::app::Central;
use crate::ca;
use crate::changes::lock;
use crate::clock;
use crate::store::{Fence, LinkNode};

/// Wait after the database has failed: nodes and sessions try again, and must
/// not do so as fast as they can.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Time until a new session has said hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// First version of the protocol that takes trust bundles and asked renewals,
/// sends parts and reads the acknowledgements' figures.
pub(super) const VERSION_2: u32 = 2;
/// Abilities that this central offers.
const FEATURES: [&str; 1] = ["tunnel"];

pub(super) type OutTx = mpsc::Sender<Result<CentralMessage, Status>>;

/// A session that begins.
pub(super) struct Session {
    pub(super) central: Arc<Central>,
    pub(super) node: NodeId,
    /// What the node has presented.
    certificate: NodeCertificate,
    pace: Pace,
}

/// What both halves share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Highest generation of desired state that the node has made durable.
    pub(super) acked: AtomicU64,
    /// Woken when the node asks for the whole desired state.
    pub(super) resend: Notify,
    /// Key id of the CA that issued the certificate which the node uses.
    ca_key_id: Mutex<String>,
}

impl Shared {
    /// Key id of the CA that issued the certificate which the node uses.
    pub(super) fn ca_key_id(&self) -> MutexGuard<'_, String> {
        lock(&self.ca_key_id)
    }
}

impl Session {
    pub(super) fn new(central: Arc<Central>, node: NodeId, certificate: NodeCertificate, pace: Pace) -> Self {
        Self { central, node, certificate, pace }
    }

    /// Runs to the end and tells the node why, if it was not the node's wish.
    pub(super) async fn run(self, inbound: Streaming<NodeMessage>, out_tx: OutTx, ending: CancellationToken) {
        // Both arms may be dropped anywhere: what the store has taken stays,
        // what it has not is sent again by the node.
        let end = tokio::select! {
            end = self.serve(inbound, &out_tx) => end,
            () = ending.cancelled() => Err(shutting_down(self.central.sessions.count())),
        };
        match end {
            Ok(()) => tracing::info!("session ended by the node"),
            Err(status) => {
                tracing::info!(code = ?status.code(), reason = status.message(), "session ended");
                // Fails only when the node is gone already.
                drop(out_tx.send(Err(status)).await);
            }
        }
    }

    async fn serve(&self, mut inbound: Streaming<NodeMessage>, out_tx: &OutTx) -> Result<(), Status> {
        let (hello, version) = hello(&mut inbound).await?;
        let mut registration = self.central.sessions.open(&self.node, version);
        let desired_rx = self.central.changes.watch_desired(&self.node);
        // Marked as seen before the Welcome, which brings what it says.
        let authorities_rx = self.central.ca.subscribe();
        self.central.live.heard(&self.node, None, clock::now_unix_ms());
        send(out_tx, Out::Welcome(self.welcome(version))).await?;
        let (stored, unsettled) = self.stored(&hello).await?;
        self.hold().await?;
        // It may lack a pool, or keep one that nobody wants any more.
        self.central.pools.wake();
        tracing::info!(instance = hello.instance_id, version, generation = hello.desired_generation, "session begun");
        let shared = Shared {
            acked: AtomicU64::new(hello.desired_generation),
            ca_key_id: Mutex::new(self.certificate.ca_key_id.clone()),
            ..Shared::default()
        };
        let is_new_process = stored.instance_id != hello.instance_id;
        let Central { store, replica, .. } = &*self.central;
        let fence = Fence { closed: registration.closed.clone(), replica: store.is_shared().then(|| replica.clone()) };
        let (central, node) = (self.central.clone(), self.node.clone());
        let heartbeats = Heartbeats::new(central, node, hello.instance_id, is_new_process, fence)
            .with_pace((version >= VERSION_2).then_some(self.pace));
        let held = hello.desired_generation;
        let sent = (unsettled.is_none() && held == stored.desired_generation).then_some(held);
        let push =
            Push { session: self, shared: &shared, out_tx, version, sent, unsettled, desired_rx, authorities_rx };
        let end = registration.end.clone();
        // Any arm may be dropped when another ends: see `run`.
        tokio::select! {
            end = self.receive(inbound, heartbeats, &shared, out_tx) => end,
            end = push.run(&mut registration) => end,
            why = end.ended() => Err(match why {
                End::Newer => Status::aborted("a newer session of this node has begun"),
                End::Removed => removed(&self.node),
            }),
        }
    }

    /// Takes heartbeats and acks until the node ends the stream.
    async fn receive(
        &self,
        mut inbound: Streaming<NodeMessage>,
        mut heartbeats: Heartbeats,
        shared: &Shared,
        out_tx: &OutTx,
    ) -> Result<(), Status> {
        while let Some(message) = inbound.message().await? {
            match message.body {
                Some(In::Heartbeat(heartbeat)) => {
                    let ack = heartbeats.take(heartbeat, shared.acked.load(Ordering::Relaxed)).await;
                    send(out_tx, Out::HeartbeatAck(ack)).await?;
                }
                Some(In::DesiredAck(ack)) => acknowledged(&ack, shared),
                Some(In::CertificateAdopted(adopted)) => self.adopted(adopted, shared).await?,
                Some(In::Hello(_)) => return Err(Status::invalid_argument("Hello must be the first message only")),
                // A newer node may say more than we understand.
                None => tracing::debug!("unknown message ignored"),
            }
        }
        Ok(())
    }

    /// Takes note of the certificate that the node uses from now on.
    async fn adopted(&self, adopted: CertificateAdopted, shared: &Shared) -> Result<(), Status> {
        let certificate = CertificateDer::from(adopted.certificate_der);
        let read = ca::node_of(&certificate).and_then(|node| Ok((node, ca::describe(&certificate)?)));
        let (node, certificate) = read.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if node != self.node {
            return Err(Status::invalid_argument("certificate_adopted: the certificate names another node"));
        }
        *shared.ca_key_id() = certificate.ca_key_id.clone();
        let system = self.central.store.system();
        system.save_certificate(node, certificate).await.map_err(|error| store_status(&error))
    }

    fn welcome(&self, version: u32) -> Welcome {
        Welcome {
            protocol_version: version,
            features: FEATURES.map(String::from).to_vec(),
            heartbeat_period_ms: self.pace.period_ms,
            central_unix_ms: clock::now_unix_ms(),
            ca_pem: if version < VERSION_2 { String::new() } else { self.central.ca.present().trust_pem() },
        }
    }

    /// What the store knows of the node; beside it, where the database went
    /// back in time, the generation from which the node is to be settled.
    async fn stored(&self, hello: &Hello) -> Result<(LinkNode, Option<u64>), Status> {
        let system = self.central.store.system();
        let removed = || removed(&self.node);
        let fault = |error| store_status(&error);
        let held = hello.desired_generation;
        let stored = system.link_node(self.node.clone()).await.map_err(fault)?.ok_or_else(removed)?;
        if stored.is_unsettled {
            return Ok((stored, Some(held)));
        }
        if stored.desired_generation >= held {
            return Ok((stored, None));
        }
        let central_holds = stored.desired_generation;
        if stored.instance_id.is_empty() {
            // It has joined anew and was told to give up what it holds.
            tracing::warn!(node_holds = held, central_holds, "node was another one before: all is sent to it");
            system.raise_generation(self.node.clone(), held).await.map_err(fault)?;
            return Ok((system.link_node(self.node.clone()).await.map_err(fault)?.ok_or_else(removed)?, None));
        }
        // Nobody but a restore makes a node know more than the database. What is
        // true of this node may be hidden at others, whose generation was
        // overtaken since.
        tracing::warn!(node_holds = held, central_holds, "node is ahead of the database, which went back in time");
        system.mark_restored(clock::now_unix_ms()).await.map_err(fault)?;
        Ok((stored, Some(held)))
    }

    /// Where other replicas serve the same nodes: says that the session is
    /// here, and forgets what was known before it was elsewhere.
    async fn hold(&self) -> Result<(), Status> {
        let Central { store, replica, live, .. } = &*self.central;
        if !store.is_shared() {
            return Ok(());
        }
        live.begin_anew(&self.node);
        let held = store.system().hold_node(self.node.clone(), replica.clone(), clock::now_unix_ms()).await;
        held.map_err(|error| store_status(&error))
    }
}

/// Reads the first message and agrees on a version.
async fn hello(inbound: &mut Streaming<NodeMessage>) -> Result<(Hello, u32), Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))??;
    let Some(NodeMessage { body: Some(In::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("the first message of a session must be Hello"));
    };
    let version = negotiate(hello.protocol_version, hello.newest_protocol_version)
        .map_err(|error| Status::failed_precondition(format!("central cannot talk to the node: {error}")))?;
    if hello.instance_id.is_empty() || hello.instance_id.len() > 128 {
        return Err(Status::invalid_argument("hello.instance_id: must have 1 to 128 characters"));
    }
    Ok((hello, version))
}

fn acknowledged(ack: &DesiredAck, shared: &Shared) {
    if ack.resync {
        tracing::info!(generation = ack.generation, "node asks for the whole desired state");
        shared.resend.notify_one();
    } else {
        tracing::debug!(generation = ack.generation, "desired state is durable on the node");
        shared.acked.fetch_max(ack.generation, Ordering::Relaxed);
    }
}

pub(super) async fn send(out_tx: &OutTx, body: Out) -> Result<(), Status> {
    let message = CentralMessage { body: Some(body) };
    out_tx.send(Ok(message)).await.map_err(|_| Status::cancelled("the node closed the session"))
}
