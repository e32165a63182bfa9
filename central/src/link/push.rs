//! What central says to a node of its own accord: desired state, tunnels,
//! whom to trust, and when to renew.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::convert::WireEnum;
use roost_proto::model::Sandbox;
use roost_proto::node::central_message::Body as Out;
use roost_proto::node::{DesiredSandbox, DesiredState, OpenTunnel, RenewNow, TrustBundle};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::session::{OutTx, STORE_PAUSE, Session, Shared, VERSION_2, send};
use super::sessions::Registration;
use super::settle;
use crate::ca::Authorities;

/// Time over which renewals of a rotated CA are spread, per node and at most,
/// so that a fleet does not ask for its certificates in one moment.
const RENEWAL_SPREAD_PER_NODE: Duration = Duration::from_millis(5);
const RENEWAL_SPREAD_MAX: Duration = Duration::from_secs(60);
/// A node that was asked to renew and did not is asked again after so long.
const RENEWAL_PERIOD: Duration = Duration::from_secs(600);

/// The outgoing half of a session.
pub(super) struct Push<'a> {
    pub(super) session: &'a Session,
    pub(super) shared: &'a Shared,
    pub(super) out_tx: &'a OutTx,
    pub(super) version: u32,
    /// Generation of desired state that the node has; none = send all.
    pub(super) sent: Option<u64>,
    /// Generation that the node has made durable, where the database went back
    /// in time and the node is to be told nothing before both were compared.
    pub(super) unsettled: Option<u64>,
    pub(super) desired_rx: watch::Receiver<u64>,
    pub(super) authorities_rx: watch::Receiver<Arc<Authorities>>,
}

impl Push<'_> {
    /// Sends whatever is new, until the session ends.
    pub(super) async fn run(mut self, registration: &mut Registration) -> Result<(), Status> {
        let mut newest = self.sent.is_none().then_some(0);
        let mut renew_at = self.renewal();
        let (central, node) = (self.session.central.clone(), self.session.node.clone());
        let mut settling = pin!(settle::until_settled(central, node, self.unsettled.unwrap_or_default()));
        loop {
            let mut retry = None;
            if self.unsettled.is_none() && newest.is_some_and(|newest| self.sent != Some(newest)) {
                match self.desired().await? {
                    Some(generation) => self.sent = Some(generation),
                    // The session outlives an outage of the database.
                    None => retry = newest,
                }
            }
            // Cancel-safe arms: the comparison goes on where it was, watches, wake-ups, a time and a queue keep
            // what was not taken from them, and a sleep that is cut short by
            // news is followed by another look at what is to be sent.
            tokio::select! {
                changed = self.desired_rx.changed() => {
                    changed.map_err(|_| Status::unavailable("central shuts down"))?;
                    newest = Some(*self.desired_rx.borrow_and_update());
                }
                () = &mut settling, if self.unsettled.is_some() => {
                    (self.unsettled, self.sent, newest) = (None, None, Some(0));
                }
                () = tokio::time::sleep(STORE_PAUSE), if retry.is_some() => newest = retry,
                () = self.shared.resend.notified() => (self.sent, newest) = (None, Some(0)),
                Some(id) = registration.tunnels_rx.recv() => {
                    send(self.out_tx, Out::OpenTunnel(OpenTunnel { tunnel_id: id.to_string() })).await?;
                    newest = retry;
                }
                Ok(()) = self.authorities_rx.changed() => {
                    self.trust().await?;
                    renew_at = self.renewal();
                    newest = retry;
                }
                () = registration.renew.notified() => {
                    self.renew().await?;
                    newest = retry;
                }
                () = until(renew_at) => {
                    if self.is_behind() {
                        self.renew().await?;
                    }
                    renew_at = self.renewal().map(|_| Instant::now() + RENEWAL_PERIOD);
                    newest = retry;
                }
            }
        }
    }

    /// Whether the node's certificate is of a CA that signs no more.
    fn is_behind(&self) -> bool {
        *self.shared.ca_key_id() != *self.authorities_rx.borrow().issuing().key_id()
    }

    /// When the node is to be asked to renew, if it has to be.
    fn renewal(&self) -> Option<Instant> {
        if self.version < VERSION_2 || !self.is_behind() {
            return None;
        }
        let nodes = u32::try_from(self.session.central.sessions.count()).unwrap_or(u32::MAX);
        let spread = RENEWAL_SPREAD_PER_NODE.saturating_mul(nodes).min(RENEWAL_SPREAD_MAX);
        Some(Instant::now() + spread.mul_f64(rand::random()))
    }

    async fn renew(&self) -> Result<(), Status> {
        if self.version < VERSION_2 {
            return Ok(());
        }
        send(self.out_tx, Out::RenewNow(RenewNow {})).await
    }

    async fn trust(&mut self) -> Result<(), Status> {
        let ca_pem = self.authorities_rx.borrow_and_update().trust_pem();
        if self.version < VERSION_2 {
            return Ok(());
        }
        send(self.out_tx, Out::TrustBundle(TrustBundle { ca_pem })).await
    }

    /// Sends what is wanted beyond what was sent, or all of it; the generation
    /// sent, or none while the database does not answer.
    async fn desired(&self) -> Result<Option<u64>, Status> {
        let system = self.session.central.store.system();
        let desired = match system.desired(self.session.node.clone(), self.sent).await {
            Ok(desired) => desired,
            Err(error) => {
                tracing::warn!(error = crate::log::chain(&error), "desired state could not be read");
                return Ok(None);
            }
        };
        let generation = desired.generation;
        match self.sent {
            // News of a state that was sent already.
            Some(sent) if generation == sent => return Ok(Some(generation)),
            Some(sent) if generation < sent => {
                tracing::warn!(generation, sent, "the database went back in time under a session");
                return Err(Status::aborted("central's database went back in time: connect again"));
            }
            _ => {}
        }
        let message = DesiredState {
            generation,
            full: self.sent.is_none(),
            base_generation: self.sent.unwrap_or(0),
            sandboxes: desired.sandboxes.into_iter().map(to_wire).collect(),
        };
        tracing::debug!(generation, full = message.full, sandboxes = message.sandboxes.len(), "desired state sent");
        send(self.out_tx, Out::DesiredState(message)).await?;
        Ok(Some(generation))
    }
}

/// Waits for a time; for ever if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn to_wire(sandbox: Sandbox) -> DesiredSandbox {
    DesiredSandbox {
        sandbox_id: sandbox.id.into(),
        generation: sandbox.generation,
        run_state: sandbox.run_state.to_wire(),
        restart_count: sandbox.restart_count,
        spec: Some(sandbox.spec.into()),
        tenant: sandbox.tenant.into(),
        name: sandbox.name.map(Into::into).unwrap_or_default(),
        resources: sandbox.resources.map(Into::into),
        // Claims are the node's own knowledge: it has them from the call.
        binding: None,
        pool: String::new(),
        paused: sandbox.paused,
        lifetime: sandbox.lifetime.map(Into::into),
        ttl_count: sandbox.ttl_count,
    }
}
