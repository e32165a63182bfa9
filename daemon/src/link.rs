//! The connection to central: enrolment, heartbeats, desired state, tunnels.
//!
//! The node only dials out. One task holds one mTLS HTTP/2 connection:
//!
//! ```text
//!   no identity ── join token ──▶ enrol ─┐        ┌──────── renew at half life
//!        ▲                               ▼        ▼
//!        └────── expired ────────── identity ── connect ◀── backoff ◀─┐
//!                                                 │                   │
//!                                      Hello / Welcome             any error
//!                                                 ▼                   │
//!             heartbeats out · desired state in · tunnels ────────────┘
//! ```
//!
//! Nothing here can block the node: the sandboxes are asked and told through
//! [`NodeSandboxes`], every queue is bounded, every wait on central ends.

mod clock;
mod desired;
mod dial;
mod enrol;
mod heartbeat;
mod identity;
mod join;
mod pace;
mod pin;
mod renewal;
mod session;
mod state;
mod trust;
mod tunnel;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::model::{NodeStatus, Phase};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::Instrument;

use crate::api::Api;
use crate::sandbox::{ApplyError, Desired, Manager, Origin, View};
use crate::tasks::Tasks;
use identity::{Identity, IdentityStore};
use pace::Backoff;

pub use dial::AddressError;
pub use identity::IdentityError;
pub use join::{JoinString, ParseJoinStringError};
pub use state::{CLOCK_SKEW_LIMIT_MS, LinkPhase, LinkState};

/// Where central is and who this node is.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Address of central, e.g. `https://central.example:7701`.
    pub address: String,
    /// Directory of the node's own, for its key and certificate.
    pub state_dir: PathBuf,
    /// Name that the node would like to be listed under.
    pub node_name: String,
    /// What a node without certificate joins with; ignored once it has one.
    pub join: Option<JoinString>,
    /// Whether a new enrolment may delete the sandboxes of an earlier one.
    pub abandon_sandboxes: bool,
}

/// The sandboxes, as central's connection needs them.
#[tonic::async_trait]
pub trait NodeSandboxes: Send + Sync + 'static {
    /// Takes central's desired state; returns the generation held now, once
    /// it is durable.
    ///
    /// # Errors
    /// See [`ApplyError`].
    async fn apply_central(
        &self,
        generation: u64,
        full: bool,
        base_generation: u64,
        sandboxes: Vec<Desired>,
    ) -> Result<u64, ApplyError>;

    /// Generation of central's desired state that is durable here; 0 = none.
    fn central_generation(&self) -> u64;

    /// Sandboxes whose last change lies after `change` (0 = all), oldest
    /// change first.
    fn changed_since(&self, change: u64) -> Vec<View>;

    /// Number of the newest change; wakes when it rises.
    fn subscribe(&self) -> watch::Receiver<u64>;
}

#[tonic::async_trait]
impl NodeSandboxes for Manager {
    async fn apply_central(
        &self,
        generation: u64,
        full: bool,
        base_generation: u64,
        sandboxes: Vec<Desired>,
    ) -> Result<u64, ApplyError> {
        Self::apply_central(self, generation, full, base_generation, sandboxes).await
    }

    fn central_generation(&self) -> u64 {
        Self::central_generation(self)
    }

    fn changed_since(&self, change: u64) -> Vec<View> {
        Self::changed_since(self, change)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        Self::subscribe(self)
    }
}

/// What the connection reports, drives and offers.
pub struct LinkParts {
    /// Reported by heartbeats, driven by desired state.
    pub sandboxes: Arc<dyn NodeSandboxes>,
    /// What the node is and can hold.
    pub status: watch::Receiver<NodeStatus>,
    /// Answers central inside a tunnel.
    pub api: Api,
    /// Where the connection's task runs.
    pub tasks: Tasks,
}

impl std::fmt::Debug for LinkParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkParts").field("api", &self.api).finish_non_exhaustive()
    }
}

/// Why the connection could not even begin to be tried.
#[derive(Debug, thiserror::Error)]
pub enum StartLinkError {
    /// The configured address is no address.
    #[error("central.address cannot be used")]
    Address(#[source] AddressError),
    /// What is kept of the node's identity cannot be used.
    #[error("the node's identity cannot be used")]
    Identity(#[source] IdentityError),
}

/// The running connection.
#[derive(Debug)]
pub struct LinkHandle {
    state: watch::Receiver<LinkState>,
    cut: Arc<Notify>,
    task: JoinHandle<()>,
}

impl LinkHandle {
    /// How the connection does.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Breaks the present connection, as a network would; the next one is
    /// dialled after the usual pause.
    pub fn reconnect(&self) {
        self.cut.notify_waiters();
    }

    /// Waits until the connection is closed after its shutdown was asked;
    /// after `grace` it is cut off.
    pub async fn stopped(mut self, grace: Duration) {
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            tracing::warn!("connection to central cut off at the end of the grace period");
            self.task.abort();
        }
    }
}

/// Begins to hold the connection until `shutdown`; central need not be there.
///
/// # Errors
/// When the configuration or the kept identity cannot be used.
pub fn start(config: LinkConfig, parts: LinkParts, shutdown: CancellationToken) -> Result<LinkHandle, StartLinkError> {
    let endpoint = dial::endpoint(&config.address).map_err(StartLinkError::Address)?;
    let store = IdentityStore::new(config.state_dir.clone());
    let identity = store.load().map_err(StartLinkError::Identity)?.map(Arc::new);
    let (state_tx, state_rx) = watch::channel(LinkState::new(config.address.clone(), identity.as_deref()));
    let (tasks, cut) = (parts.tasks.clone(), Arc::new(Notify::new()));
    let link = Link {
        endpoint,
        store,
        parts,
        identity: watch::Sender::new(identity),
        state: state_tx,
        renew_now: Notify::new(),
        cut: cut.clone(),
        instance_id: format!("{:032x}", rand::random::<u128>()),
        config,
    };
    let task = tasks.spawn("link", link.run(shutdown).instrument(tracing::info_span!("link")));
    Ok(LinkHandle { state: state_rx, cut, task })
}

/// Everything that the parts of the connection share.
struct Link {
    config: LinkConfig,
    endpoint: Endpoint,
    store: IdentityStore,
    parts: LinkParts,
    identity: watch::Sender<Option<Arc<Identity>>>,
    state: watch::Sender<LinkState>,
    /// Woken when central wants the certificate renewed at once.
    renew_now: Notify,
    /// Told when the present connection is to break.
    cut: Arc<Notify>,
    instance_id: String,
}

impl Link {
    async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            // All arms may be dropped: the process ends the connection, and
            // whatever was not acknowledged is sent again by the next one.
            () = self.hold(&shutdown) => {}
            () = renewal::keep_fresh(&self) => {}
            () = shutdown.cancelled() => {}
        }
        tracing::info!("connection to central closed");
    }

    /// Whether sandboxes of an earlier enrolment are here. A new node id begins
    /// with an empty list of central, which would delete them.
    fn holds_sandboxes(&self) -> bool {
        let is_central = |view: &View| view.desired.origin == Origin::Central && view.observed.phase != Phase::Gone;
        self.parts.sandboxes.changed_since(0).iter().any(is_central)
    }

    /// Connects, again and again.
    async fn hold(&self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new(pace::CONNECT_BACKOFF);
        let mut join = self.config.join.clone();
        let mut is_rejected = false;
        loop {
            let begin = tokio::time::Instant::now();
            self.state.send_modify(|state| state.attempts += 1);
            let (identity, mut retry_after) = self.ensure_identity(&mut join, is_rejected).await;
            if let Some(identity) = identity {
                // Cancel-safe: a stream may break anywhere.
                let error = tokio::select! {
                    error = session::run(self, &identity, shutdown) => error,
                    () = self.cut.notified() => session::SessionError::Cut,
                };
                is_rejected = error.is_rejection();
                retry_after = error.retry_after();
                let error = crate::api::status::chain(&error);
                tracing::warn!(error, "connection to central ended");
                self.state.send_modify(|state| state.disconnected(error));
            }
            if begin.elapsed() > pace::CONNECT_BACKOFF.max {
                backoff.reset();
            }
            let chance = rand::random();
            let pause = retry_after.map_or_else(|| backoff.next(chance), |asked| pace::spread(asked, chance));
            tokio::time::sleep(pause).await;
        }
    }

    /// The identity to connect with: the kept one while it is good, else a
    /// new one while there is a join token that was not used yet. A kept one
    /// that is not good is tried all the same: it may be our clock that is
    /// wrong, or central that is being restored.
    ///
    /// Beside it, when central wants to be asked again.
    async fn ensure_identity(
        &self,
        join: &mut Option<JoinString>,
        is_rejected: bool,
    ) -> (Option<Arc<Identity>>, Option<Duration>) {
        let kept = self.identity.borrow().clone();
        let problem = match &kept {
            None => Some(state::NOT_ENROLLED),
            Some(kept) if pace::is_expired(kept.not_after_unix_ms, unix_ms()) => Some(state::CERTIFICATE_EXPIRED),
            Some(_) => is_rejected.then_some(state::NODE_REMOVED),
        };
        let Some(problem) = problem else { return (kept, None) };
        let Some(token) = join else {
            self.report(problem);
            return (kept, None);
        };
        if self.holds_sandboxes() && !self.config.abandon_sandboxes {
            self.report(state::HOLDS_SANDBOXES);
            return (kept, None);
        }
        match enrol::enrol(&self.endpoint, token, &self.config.node_name).await {
            Ok(identity) => {
                *join = None;
                tracing::info!(node = %identity.node_id, "node enrolled");
                (Some(self.adopt(identity)), None)
            }
            Err(error) => {
                // Central's word is final: the token was used, is expired or
                // was never made. Asking again cannot help.
                if error.is_refusal() {
                    *join = None;
                }
                let retry_after = error.retry_after();
                let error = crate::api::status::chain(&error);
                tracing::error!(error, "node cannot enrol");
                self.state.send_modify(|state| state.disconnected(error));
                (kept, retry_after)
            }
        }
    }

    /// Takes what central says is to be trusted from now on. The connection
    /// that brought it was verified by what is trusted now.
    fn take_trust(&self, ca_pem: &str) -> Result<(), trust::TrustError> {
        let Some(present) = self.identity.borrow().clone() else { return Ok(()) };
        if let Some(ca_pem) = trust::replace(&present.ca_pem, ca_pem)? {
            tracing::info!("the CA certificates of central have changed");
            self.adopt(present.with_trust(ca_pem));
        }
        Ok(())
    }

    /// Publishes how far the clocks differ, and says so once when it is too far.
    fn see_clock(&self, clock_offset_ms: Option<i64>) {
        let had_skew = self.state.borrow().clock_skew().is_some();
        self.state.send_modify(|state| state.clock_offset_ms = clock_offset_ms);
        let skew = self.state.borrow().clock_skew();
        if let (false, Some(skew)) = (had_skew, skew) {
            tracing::warn!(clock_offset_ms, message = skew.message, "clocks of node and central differ");
        }
    }

    fn report(&self, problem: &'static str) {
        if self.state.send_if_modified(|state| state.unusable(problem)) {
            tracing::error!(problem, "node cannot connect to central");
        }
    }

    /// Keeps a new identity and makes it the one in use. If it cannot be
    /// kept it is used nevertheless: the node works until its next restart,
    /// and the log says why it will not come back.
    fn adopt(&self, identity: Identity) -> Arc<Identity> {
        if let Err(error) = self.store.save(&identity) {
            let error = crate::api::status::chain(&error);
            tracing::error!(error, "certificate cannot be kept: it is lost with this process");
        }
        let identity = Arc::new(identity);
        self.state.send_modify(|state| state.adopted(&identity));
        self.identity.send_replace(Some(identity.clone()));
        identity
    }
}

/// Wall clock, Unix time in milliseconds; 0 before 1970.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
