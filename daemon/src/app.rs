//! Builds the daemon from its configuration and starts all of its tasks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::model::{NodeCap, NodeCapacity, NodeCondition, NodeStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, AdminError, Readiness};
use crate::api::{Api, ApiHandle, ApiParts, ListenError, SocketConfig, logs::LogFiles};
use crate::config::{CentralConfig, Config};
use crate::containerd::image::{Images as ContainerdImages, SpoolConfig, UnpackLimits};
use crate::containerd::{self, Client, RuntimeOptions};
use crate::display::Screenshots;
use crate::facts;
use crate::host::cgroup::Cgroups;
use crate::host::{self, blocking, fault, files, mount, socket};
use crate::link::{self, JoinString, LinkConfig, LinkHandle, LinkParts, StartLinkError};
use crate::logging::LogControl;
use crate::metrics::Metrics;
use crate::node::debug::Inside;
use crate::node::pressure::PressureGuard;
use crate::node::{
    exec::Execs, files::WorkloadFiles, images::NodeImages, logs, samples::Samples, screenshots::Frames, status,
    support::Support, usage,
};
use crate::pool::Pools;
use crate::pull::Puller;
use crate::reconcile::ledger::LedgerError;
use crate::reconcile::plan::plan;
use crate::reconcile::{events, kills, startup};
use crate::registry::Registries;
use crate::sandbox::claim::WorkloadPids;
use crate::sandbox::image::Images;
use crate::sandbox::layout::Layout;
use crate::sandbox::manager::Limits;
use crate::sandbox::{Manager, Node, Services, node_time};
use crate::storage::Storage;
use crate::tasks::Tasks;
use crate::volume::checkpoint::Checkpoints;
use crate::volume::{Homes, VolumeError, VolumeTable, Volumes};

/// Cgroup of the shims, beside those of the sandboxes.
const SHIM_CGROUP: &str = "shims";
/// Pictures that are made at the same time: encoding only computes.
const SCREENSHOTS_AT_ONCE: usize = 4;
/// Between two looks at screenshot buffers that nobody uses.
const BUFFER_PERIOD: Duration = Duration::from_secs(5);
/// How long open calls may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(3);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host is not fit, or refuses a step.
    #[error("the host is not ready for roostd")]
    Host(#[from] host::Error),
    /// containerd's address or namespace cannot be used.
    #[error("containerd cannot be used")]
    Containerd(#[from] containerd::Error),
    /// The ledger cannot be opened.
    #[error("the ledger cannot be used")]
    Ledger(#[from] LedgerError),
    /// The volumes cannot be taken over.
    #[error("the volumes cannot be used")]
    Volumes(#[from] VolumeError),
    /// The unix socket cannot be opened.
    #[error("the API cannot be served")]
    Listen(#[from] ListenError),
    /// The port for metrics and probes cannot be opened.
    #[error("metrics and probes cannot be served")]
    Admin(#[from] AdminError),
    /// The facts of the machine cannot be read.
    #[error("the machine cannot be looked at")]
    Facts(#[from] facts::FactsError),
    /// The connection to central cannot be configured.
    #[error("the connection to central cannot be used")]
    Link(#[from] StartLinkError),
    /// The join token cannot be read.
    #[error("central.join_token_file: {0}")]
    JoinToken(String),
}

/// The running daemon.
#[derive(Debug)]
pub struct App {
    shutdown: CancellationToken,
    api: ApiHandle,
    link: Option<LinkHandle>,
    /// Held until the end: one daemon per root directory.
    _lock: host::lock::RootLock,
}

impl App {
    /// Starts everything, once containerd answers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config, log: LogControl, shutdown: CancellationToken) -> Result<Self, StartError> {
        let layout = Layout::new(&config.root);
        let lock = prepare_root(&layout)?;
        check_propagation(&config)?;
        let tasks = Tasks::default();
        let metrics = Metrics::new(tasks.clone());
        let readiness = Readiness::default();
        let conditions = (
            readiness.condition("containerd", "containerd was not heard yet"),
            readiness.condition("display-image", "images were not listed yet"),
        );
        let adopted = readiness.condition("adopted", "running sandboxes are not adopted yet");
        serve_admin(&config, &metrics, readiness, &tasks, &shutdown).await?;

        let (pressures_tx, pressures) = watch::channel(Vec::new());
        let basis = Basis { tasks: tasks.clone(), metrics: metrics.clone(), pressures: pressures.clone() };
        let Built { node, services, manager, pools, volumes } = build_node(&config, layout, &basis, &shutdown).await?;
        adopted.hold();
        let capacity = capacity(&config)?;
        // The survey has just heard of it.
        let (containerd_up, containerd_up_rx) = watch::channel(true);
        let (images_changed, images_changed_rx) = watch::channel(0);
        let (link_state_tx, link_state) = watch::channel(None);
        let (status_tx, status) = watch::channel(NodeStatus { capacity, ..NodeStatus::default() });
        let images =
            NodeImages::new(node.clone(), manager.clone(), spool(&config, &node), &config.images.keep, images_changed);
        let mut reporter = status::StatusReporter {
            node: node.clone(),
            config: config.clone(),
            abilities: Vec::new(),
            images: images.clone(),
            capacity,
            containerd: containerd_up_rx,
            images_changed: images_changed_rx,
            link: link_state.clone(),
            pressures,
            holdings: manager.holdings(),
            status: status_tx,
            ready: conditions,
        };
        guard_pressure(&config, &node, &manager, pressures_tx).await;
        reporter.report().await;
        tasks.spawn("node-status", reporter.run());
        tasks.spawn("containerd-events", events::follow(node.client.clone(), manager.clone(), containerd_up));
        tend(&config, &node, &manager, &images);

        let inside = Inside {
            node: node.clone(),
            manager: manager.clone(),
            config: config.clone(),
            status: status.clone(),
            link: link_state,
            log,
        };
        let api = api(inside, &pools, volumes, images, &metrics, &tasks);
        let api_handle = api.listen(socket_config(&config)?, shutdown.clone())?;
        let (sandboxes, status_of_link) = (Arc::new(manager.clone()), status.clone());
        let parts = LinkParts { sandboxes, status: status_of_link, api, tasks: tasks.clone() };
        let link = connect(&config, &node.layout, parts, link_state_tx, &shutdown)?;
        let link_state = link.as_ref().map(LinkHandle::state);
        let samples = Samples::new(services.ledger.clone(), manager, pools, capacity, status, link_state);
        metrics.attach(Arc::new(samples));
        tracing::info!(socket = %config.api.socket.display(), root = %config.root.display(), "roostd serves");
        Ok(Self { shutdown, api: api_handle, link, _lock: lock })
    }

    /// Ends the daemon; its sandboxes go on.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.api.stopped(GRACE).await;
        if let Some(link) = self.link {
            link.stopped(GRACE).await;
        }
    }
}

/// What the socket and the tunnels answer with.
fn api(inside: Inside, pools: &Pools, volumes: Volumes, images: NodeImages, metrics: &Metrics, tasks: &Tasks) -> Api {
    let (node, manager) = (inside.node.clone(), inside.manager.clone());
    Api::new(ApiParts {
        sandboxes: Arc::new(manager.clone()),
        claims: Arc::new(pools.clone()),
        volumes: Some(volumes),
        execs: Arc::new(Execs::new(node.clone(), manager.clone())),
        files: Arc::new(WorkloadFiles::new(node.clone(), manager.clone())),
        screenshots: Arc::new(Frames::new(node.clone(), manager)),
        images: Arc::new(images),
        logs: LogFiles { dir: node.layout.logs() },
        node: inside.status.clone(),
        debug: Arc::new(inside.clone()),
        support: Arc::new(Support::new(inside, metrics.clone(), tasks.clone())),
        tasks: tasks.clone(),
    })
}

/// Answers metrics and probes from now on.
async fn serve_admin(
    config: &Config,
    metrics: &Metrics,
    readiness: Readiness,
    tasks: &Tasks,
    shutdown: &CancellationToken,
) -> Result<(), AdminError> {
    let admin = Admin::bind(config.admin.listen, metrics.clone(), readiness, tasks.clone()).await?;
    tracing::info!(address = %admin.address(), "metrics and probes are served");
    tasks.spawn("admin", admin.serve(shutdown.clone()));
    Ok(())
}

/// Makes the directories of the root, and takes its lock.
fn prepare_root(layout: &Layout) -> Result<host::lock::RootLock, host::Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(host::Error::Unfit("roostd needs root: it mounts, makes namespaces and drives containerd".into()));
    }
    let create = |path: &Path| std::fs::create_dir_all(path).map_err(|e| host::Error::path("create", path, e));
    create(layout.root())?;
    let lock = host::lock::RootLock::take(layout.root())?;
    fault::arm(layout.root().join("fault"));
    files::set_mode(layout.root(), 0o711)?;
    files::require_traversable(layout.root())?;
    for (dir, mode) in [(layout.sandboxes(), 0o711), (layout.logs(), 0o700), (layout.spool(), 0o700)] {
        files::create_dir(&dir, mode)?;
    }
    Ok(lock)
}

/// What the daemon mounts, containerd must see: they share a mount namespace,
/// or the root passes mounts on.
fn check_propagation(config: &Config) -> Result<(), host::Error> {
    if mount::is_shared(&config.root)? {
        return Ok(());
    }
    match socket::server_pid(&config.containerd.socket).and_then(mount::same_mount_namespace) {
        Ok(true) => Ok(()),
        Ok(false) => Err(host::Error::Unfit(format!(
            "{} does not pass its mounts on and containerd lives in another mount namespace: mount it with shared \
             propagation (in a pod: mountPropagation: Bidirectional)",
            config.root.display()
        ))),
        // Not running yet, or not ours to look at: the first start tells.
        Err(error) => {
            tracing::debug!(%error, "containerd's mount namespace is not known");
            Ok(())
        }
    }
}

/// Starts what looks after the node by itself.
fn tend(config: &Config, node: &Arc<Node>, manager: &Manager, images: &NodeImages) {
    let tasks = &node.tasks;
    tasks.spawn("kernel-log", kills::follow(manager.clone()));
    tasks.spawn("usage", usage::sample(node.clone(), manager.clone()));
    tasks.spawn("log-rotation", logs::rotate(node.layout.logs(), config.sandboxes.log_max_bytes));
    tasks.spawn("screenshot-buffers", release_buffers(node.screenshots.clone()));
    tasks.spawn("image-arrivals", images.clone().follow_pulls());
    tasks.spawn("image-collection", images.clone().collect(config.images.gc));
}

/// Looks at what the node runs short of, once now and then for ever.
async fn guard_pressure(
    config: &Config,
    node: &Arc<Node>,
    manager: &Manager,
    conditions: watch::Sender<Vec<NodeCondition>>,
) {
    let thresholds = (config.pressure, &config.reserved);
    let snapshotter = &config.containerd.snapshotter;
    let mut guard = PressureGuard::new(node.clone(), manager.clone(), snapshotter, thresholds, conditions);
    guard.look().await;
    node.tasks.spawn("pressure", guard.run());
}

/// What the parts of a node are built on.
struct Basis {
    tasks: Tasks,
    metrics: Metrics,
    pressures: watch::Receiver<Vec<NodeCondition>>,
}

/// A node that runs.
struct Built {
    node: Arc<Node>,
    services: Arc<Services>,
    manager: Manager,
    pools: Pools,
    volumes: Volumes,
}

/// Opens the ledger, waits for containerd, adopts and reaps.
async fn build_node(
    config: &Config,
    layout: Layout,
    basis: &Basis,
    shutdown: &CancellationToken,
) -> Result<Built, StartError> {
    let client = Client::connect(&config.containerd.socket, &config.containerd.namespace)?;
    let Basis { tasks, metrics, pressures } = basis;
    let mut cgroups = Cgroups::new(&config.sandboxes.cgroup_parent);
    cgroups.create_plain(SHIM_CGROUP)?;
    let cap = cgroups.set_cap(cap(config)?)?;
    tracing::info!(?cap, "all sandboxes together are capped");
    std::fs::create_dir_all(&config.runc_state).map_err(|e| host::Error::path("create", &config.runc_state, e))?;
    let (ledger, contents, is_lost) = startup::open_ledger(&layout)?;
    fault::pass("adopt.ledger");
    let storage = Storage::find(layout.root(), config.storage.limit_by, layout.blanks())?;
    let disk_limits = storage.kind().as_str();
    tracing::info!(cgroup = cgroups.version().as_str(), disk_limits, "host looked at");
    let homes = Homes::new(layout.volumes(), storage.clone(), VolumeTable::default());
    let checkpoints = Checkpoints::configured(&config.checkpoints, &layout.checkpoints(), &cgroups, tasks);
    let checkpoints = checkpoints.map_err(VolumeError::from)?;
    let volumes = Volumes::start(homes.clone(), ledger.clone(), contents.volumes, tasks.clone(), checkpoints).await?;
    let (images, puller) = build_images(config, &client, tasks);
    let node = Arc::new(Node {
        runtime: RuntimeOptions {
            shim_cgroup: cgroups.path(SHIM_CGROUP),
            runc_root: config.runc_state.display().to_string(),
            binary: config.containerd.runtime_binary.clone(),
        },
        images,
        puller,
        display_images: (config.sandboxes.display_image.clone(), config.sandboxes.display_glx_image.clone()),
        screenshots: Screenshots::new(SCREENSHOTS_AT_ONCE),
        workload_pids: WorkloadPids::default(),
        tasks: tasks.clone(),
        client,
        layout,
        cgroups,
        storage,
        homes: homes.clone(),
    });
    let (uptime, time) = startup::resume_time(&ledger, contents.uptime.as_ref()).await?;
    let services = Arc::new(Services {
        runtime: node.clone(),
        ledger,
        metrics: metrics.clone(),
        pressures: pressures.clone(),
        volumes: homes.table.clone(),
        time,
    });
    let limits = Limits { sandboxes_max: config.sandboxes.max, first_id: config.sandboxes.first_id };
    let manager = Manager::new(services.clone(), tasks.clone(), limits, shutdown.clone());
    let (mut existing, carried) = startup::survey(&node).await;
    fault::pass("adopt.surveyed");
    if is_lost {
        // Directories that no container tells of may be stopped sandboxes:
        // they are kept for central, which lists them again.
        existing.names.clear();
    }
    let records = startup::recover(&services.ledger, contents.records, carried, time).await?;
    fault::pass("adopt.recovered");
    let plan = plan(records, &existing);
    tracing::info!(adopt = plan.adopt.len(), reap = plan.reap.len(), "first reconciliation");
    startup::reap(&node, &manager, tasks, plan.reap);
    manager.restore(plan.adopt, contents.central_generation);
    fault::pass("adopt.restored");
    blocking(move || homes.close_unused()).await?;
    volumes.checkpoint_periodically();
    if let Err(error) = node.images.store().forget_broken_imports().await {
        tracing::warn!(%error, "leases of broken imports stay until they expire");
    }
    tasks.spawn("node-time", node_time::keep(uptime, services.ledger.clone(), manager.clone(), shutdown.clone()));
    let pools = Pools::start(manager.clone(), services.clone(), contents.pools, tasks, shutdown.clone());
    Ok(Built { node, services, manager, pools, volumes })
}

/// Where archives are kept while they are imported.
fn spool(config: &Config, node: &Node) -> SpoolConfig {
    SpoolConfig {
        directory: node.layout.spool(),
        max_bytes: config.sandboxes.archive_max_bytes,
        reserve_bytes: config.reserved.disk_bytes,
    }
}

/// The node's images, and what brings them from registries.
fn build_images(config: &Config, client: &Client, tasks: &Tasks) -> (Images, Puller) {
    let limits = UnpackLimits {
        max_bytes: config.images.max_unpacked_bytes,
        max_files: config.images.max_files,
        reserve_bytes: config.reserved.disk_bytes,
    };
    let store = ContainerdImages::new(client.clone(), config.containerd.snapshotter.as_str()).with_limits(limits);
    let images = Images::new(client.clone(), store, &config.containerd.snapshotter);
    let registries = Registries::new(config.images.clone());
    (images.clone(), Puller::new(images, registries, tasks.clone()))
}

/// What sandboxes may request of this machine.
fn capacity(config: &Config) -> Result<NodeCapacity, facts::FactsError> {
    let facts = facts::node_facts("", "")?;
    Ok(NodeCapacity {
        cpu_allocatable_millis: facts.cpus.saturating_mul(1000).saturating_sub(config.reserved.cpu_millis),
        memory_allocatable_bytes: facts.memory_bytes.saturating_sub(config.reserved.memory_bytes),
        sandboxes_max: u32::try_from(config.sandboxes.max).unwrap_or(u32::MAX),
    })
}

/// What the kernel is to let all sandboxes together use.
fn cap(config: &Config) -> Result<NodeCap, StartError> {
    let (capacity, reserved) = (capacity(config)?, &config.reserved);
    let pids_max = facts::pids_max()?;
    let cap = NodeCap {
        cpu_millis: capacity.cpu_allocatable_millis,
        memory_bytes: capacity.memory_allocatable_bytes,
        pids: pids_max.saturating_sub(reserved.pids),
    };
    for (left, field) in [
        (cap.cpu_millis > 0, "reserved.cpu_millis"),
        (cap.memory_bytes > 0, "reserved.memory_bytes"),
        (cap.pids > 0, "reserved.pids"),
    ] {
        if !left {
            let problem = format!("{field} is all that the machine has: nothing is left for sandboxes, lower it");
            return Err(host::Error::Unfit(problem).into());
        }
    }
    Ok(cap)
}

fn socket_config(config: &Config) -> Result<SocketConfig, host::Error> {
    if let Some(dir) = config.api.socket.parent() {
        std::fs::create_dir_all(dir).map_err(|e| host::Error::path("create", dir, e))?;
    }
    Ok(SocketConfig {
        path: config.api.socket.clone(),
        group_gid: config.api.group_gid,
        allowed_uids: config.api.allowed_uids.clone(),
        allowed_gids: config.api.allowed_gids.clone(),
    })
}

fn link_config(config: &Config, central: &CentralConfig, layout: &Layout) -> Result<LinkConfig, StartError> {
    let join = match &central.join_token_file {
        Some(path) if path.exists() => Some(read_join(path)?),
        _ => None,
    };
    let name = if config.name.is_empty() { facts::node_facts("", "")?.hostname } else { config.name.clone() };
    Ok(LinkConfig {
        address: central.address.clone(),
        state_dir: layout.root().join("identity"),
        node_name: name,
        join,
        abandon_sandboxes: central.abandon_sandboxes,
    })
}

fn read_join(path: &Path) -> Result<JoinString, StartError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| StartError::JoinToken(format!("cannot read {}: {e}", path.display())))?;
    text.trim().parse().map_err(|e| StartError::JoinToken(format!("{}: {e}", path.display())))
}

/// Begins the connection to central, where there is one.
fn connect(
    config: &Config,
    layout: &Layout,
    parts: LinkParts,
    state: watch::Sender<Option<link::LinkState>>,
    shutdown: &CancellationToken,
) -> Result<Option<LinkHandle>, StartError> {
    let Some(central) = &config.central else { return Ok(None) };
    let tasks = parts.tasks.clone();
    let link = link::start(link_config(config, central, layout)?, parts, shutdown.clone())?;
    tasks.spawn("link-state", copy_state(link.state(), state));
    Ok(Some(link))
}

async fn copy_state(mut from: watch::Receiver<link::LinkState>, to: watch::Sender<Option<link::LinkState>>) {
    loop {
        let state = from.borrow_and_update().clone();
        to.send_replace(Some(state));
        if from.changed().await.is_err() {
            return;
        }
    }
}

async fn release_buffers(screenshots: Screenshots) {
    loop {
        tokio::time::sleep(BUFFER_PERIOD).await;
        screenshots.release_idle();
    }
}
