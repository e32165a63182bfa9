//! One simulated node: the daemon's own parts over a simulated host.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{NodeCapacity, NodeCondition, NodeFacts, NodeLoad, NodeStatus, Phase};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::{NodeConfig, SimConfig, StartConfig};
use super::host::SimHost;
use super::memory::MemoryStore;
use super::parts::{Parts, image};
use crate::api::logs::LogFiles;
use crate::api::{Api, ApiParts};
use crate::link::{self, JoinString, LinkConfig, LinkHandle, LinkParts, StartLinkError};
use crate::metrics::Metrics;
use crate::node::usage;
use crate::pool::Pools;
use crate::reconcile::ledger::{Ledger, LedgerError};
use crate::reconcile::plan::plan;
use crate::sandbox::manager::Limits;
use crate::sandbox::node_time::NodeTime;
use crate::sandbox::{Manager, Services};
use crate::tasks::Tasks;
use crate::volume::VolumeTable;

/// First id of the ranges, as in a real daemon's default.
const FIRST_ID: u32 = 1 << 20;
/// Compressed size of a simulated image, in bytes.
const IMAGE_BYTES: u64 = 400 << 20;
/// How long a connection may take to close.
const GRACE: Duration = Duration::from_secs(3);

/// Why a simulated node does not start.
#[derive(Debug, thiserror::Error)]
pub enum SimNodeError {
    /// The connection to central cannot be configured.
    #[error("the connection of {name} cannot be used")]
    Link {
        /// Which node.
        name: String,
        /// Why.
        #[source]
        source: StartLinkError,
    },
    /// Its ledger cannot be read.
    #[error("the ledger of {name} cannot be used")]
    Ledger {
        /// Which node.
        name: String,
        /// Why.
        #[source]
        source: LedgerError,
    },
}

/// What all nodes of a fleet share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What is played.
    pub config: Arc<SimConfig>,
    /// How sandboxes start.
    pub start: Arc<StartConfig>,
    /// What each node is.
    pub node: Arc<NodeConfig>,
    /// Counts starts and failures of the whole fleet.
    pub metrics: Metrics,
}

/// A simulated daemon that runs.
#[derive(Debug)]
struct Life {
    shutdown: CancellationToken,
    manager: Manager,
    link: LinkHandle,
    status: watch::Sender<NodeStatus>,
}

/// One simulated node: its host and ledger outlive its daemons.
#[derive(Debug)]
pub struct SimNode {
    name: String,
    shared: Shared,
    host: Arc<SimHost>,
    store: MemoryStore,
    /// It outlives its daemons, too.
    time: NodeTime,
    life: Mutex<Option<Life>>,
}

impl SimNode {
    /// A node that is switched off.
    #[must_use]
    pub fn new(number: u32, shared: Shared) -> Self {
        let name = format!("{}-{number:05}", shared.config.fleet.name_prefix);
        let host = Arc::new(SimHost::new(shared.start.clone(), shared.node.clone()));
        Self { name, shared, host, store: MemoryStore::default(), time: NodeTime::new(0), life: Mutex::default() }
    }

    /// The lock protects a plain option: whole even after a panic elsewhere.
    fn life(&self) -> MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts its daemon: adopts what runs and dials central. `join` is used
    /// while the node has no certificate. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`SimNodeError`].
    pub fn start(&self, join: Option<JoinString>) -> Result<(), SimNodeError> {
        let (tasks, shutdown) = (Tasks::default(), CancellationToken::new());
        let ledger = |source| SimNodeError::Ledger { name: self.name.clone(), source };
        let (ledger, contents) = Ledger::unthreaded(self.store.clone()).map_err(ledger)?;
        let metrics = self.shared.metrics.clone();
        // A simulated node is never short of anything.
        let (_, pressures) = watch::channel(Vec::new());
        let services = Arc::new(Services {
            runtime: self.host.clone(),
            ledger,
            metrics,
            pressures,
            volumes: VolumeTable::default(),
            time: self.time,
        });
        let sandboxes_max = usize::try_from(self.shared.node.sandboxes_max).unwrap_or(usize::MAX);
        let limits = Limits { sandboxes_max, first_id: FIRST_ID };
        let manager = Manager::new(services.clone(), tasks.clone(), limits, shutdown.clone());
        manager.restore(plan(contents.records, &self.host.existing()).adopt, contents.central_generation);
        let pools = Pools::start(manager.clone(), services, contents.pools, &tasks, shutdown.clone());
        let status = watch::Sender::new(self.status());
        let parts = Arc::new(Parts { host: self.host.clone(), manager: manager.clone(), status: status.clone() });
        let api = Api::new(ApiParts {
            sandboxes: Arc::new(manager.clone()),
            claims: Arc::new(pools),
            volumes: None,
            execs: parts.clone(),
            files: parts.clone(),
            screenshots: parts.clone(),
            images: parts.clone(),
            logs: LogFiles { dir: self.shared.config.fleet.state_dir.join("logs") },
            node: status.subscribe(),
            debug: parts.clone(),
            support: parts,
            tasks: tasks.clone(),
        });
        tasks.spawn("usage", until(shutdown.clone(), usage::sample(self.host.clone(), manager.clone())));
        let link = LinkParts { sandboxes: Arc::new(manager.clone()), status: status.subscribe(), api, tasks };
        let link = link::start(self.link_config(join), link, shutdown.clone());
        let link = link.map_err(|source| SimNodeError::Link { name: self.name.clone(), source })?;
        *self.life() = Some(Life { shutdown, manager, link, status });
        Ok(())
    }

    fn link_config(&self, join: Option<JoinString>) -> LinkConfig {
        LinkConfig {
            address: self.shared.config.central.address.clone(),
            state_dir: self.shared.config.fleet.state_dir.join(&self.name),
            node_name: self.name.clone(),
            join,
            abandon_sandboxes: false,
        }
    }

    fn status(&self) -> NodeStatus {
        let NodeConfig { cpus, memory_bytes, sandboxes_max, .. } = *self.shared.node;
        let facts = NodeFacts {
            hostname: self.name.clone(),
            kernel: "simulated".into(),
            architecture: std::env::consts::ARCH.into(),
            cpus,
            memory_bytes,
            cgroup_version: "v2".into(),
            containerd_version: "simulated".into(),
            daemon_version: env!("CARGO_PKG_VERSION").into(),
            ..NodeFacts::default()
        };
        let capacity = NodeCapacity {
            cpu_allocatable_millis: cpus.saturating_mul(1000),
            memory_allocatable_bytes: memory_bytes,
            sandboxes_max,
        };
        let condition = |kind: &str| NodeCondition {
            kind: kind.into(),
            is_true: true,
            reason: "Ok".into(),
            message: String::new(),
        };
        let images = self.host.images().iter().map(|reference| image(reference, IMAGE_BYTES)).collect();
        let conditions = ["ContainerdReady", "DisplayImageReady"].map(condition).to_vec();
        NodeStatus { facts, capacity, images, conditions, load: self.load(), ..NodeStatus::default() }
    }

    fn load(&self) -> NodeLoad {
        let total = self.shared.node.memory_bytes;
        let used = (rand::random::<f64>() * 0.5 * total as f64) as u64;
        NodeLoad {
            memory_used_bytes: used,
            memory_available_bytes: total - used,
            load1_milli: rand::random::<u32>() % 10_000,
            disk_free_bytes: total,
            ..NodeLoad::default()
        }
    }

    /// Changes what the node says of its load, as a real one would.
    pub fn breathe(&self) {
        let load = self.load();
        if let Some(life) = &*self.life() {
            life.status.send_modify(|status| status.load = load);
        }
    }

    /// Ends its daemon as a kill would: the sandboxes go on.
    pub async fn stop(&self) {
        let life = self.life().take();
        if let Some(Life { shutdown, link, .. }) = life {
            shutdown.cancel();
            link.stopped(GRACE).await;
        }
    }

    /// Kills its daemon and starts the next one, which adopts what runs.
    ///
    /// # Errors
    /// See [`SimNodeError`].
    pub async fn restart(&self) -> Result<(), SimNodeError> {
        self.stop().await;
        self.start(None)
    }

    /// Breaks its connection to central; it dials again.
    pub fn disconnect(&self) {
        if let Some(life) = &*self.life() {
            life.link.reconnect();
        }
    }

    /// Ends the workload of one of its sandboxes that are Ready, with this
    /// exit code; false if there is none.
    pub fn end_one(&self, exit_code: i32) -> bool {
        let Some(manager) = self.life().as_ref().map(|life| life.manager.clone()) else { return false };
        let Some(id) = pick(&manager) else { return false };
        let ended = self.host.end(&id, exit_code);
        manager.hint([&id]);
        ended
    }

    /// Whether central hears it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.life().as_ref().is_some_and(|life| life.link.state().borrow().is_connected())
    }

    /// Why its last connection ended, if it is not connected.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let state = self.life().as_ref()?.link.state().borrow().clone();
        if state.is_connected() { None } else { state.problem.map(Into::into).or(state.last_error) }
    }

    /// Its sandboxes, and how many of them are Ready.
    #[must_use]
    pub fn sandboxes(&self) -> (usize, usize) {
        self.life().as_ref().map_or((0, 0), |life| {
            let table = life.manager.table();
            (table.count(|observed| observed.phase != Phase::Gone), table.count(|o| o.phase == Phase::Ready))
        })
    }
}

/// A sandbox that is Ready, by chance.
fn pick(manager: &Manager) -> Option<SandboxId> {
    let ready = manager.changed_since(0).into_iter().filter(|view| view.observed.phase == Phase::Ready);
    let ready: Vec<SandboxId> = ready.map(|view| view.desired.id.clone()).collect();
    let index = (rand::random::<f64>() * ready.len() as f64) as usize;
    ready.into_iter().nth(index)
}

/// Runs `endless` until `shutdown`.
async fn until(shutdown: CancellationToken, endless: impl Future<Output = ()>) {
    // Cancel-safe: what is sampled is sampled again.
    tokio::select! {
        () = endless => {}
        () = shutdown.cancelled() => {}
    }
}
