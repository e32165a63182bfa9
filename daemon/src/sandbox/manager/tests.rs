mod fencing;
mod order;

use std::sync::Arc;

use roost_proto::id::SandboxId;
use roost_proto::model::{ImageRef, Phase, ResourcesChange, RestartPolicy, SandboxSpec, UpdateSandbox};

use super::*;
use crate::metrics::Metrics;
use crate::reconcile::ledger::Change;
use crate::reconcile::ledger::{Ledger, Store};
use crate::reconcile::plan::plan;
use crate::sim::config::{NodeConfig, StartConfig};
use crate::sim::host::SimHost;
use crate::sim::memory::MemoryStore;
use crate::volume::VolumeTable;

use super::super::node_time::NodeTime;
use tokio::time::Instant;

const FIRST_ID: u32 = 1 << 20;

/// A node whose containers are played; its host and ledger outlive its daemons.
pub(super) struct Played {
    host: Arc<SimHost>,
    store: MemoryStore,
    time: NodeTime,
    pub(super) manager: Manager,
    shutdown: CancellationToken,
}

fn image() -> ImageRef {
    "roost/desktop:latest".parse().unwrap()
}

pub(super) fn spec() -> SandboxSpec {
    serde_json::from_str(r#"{"template":"desktop","image":"roost/desktop:latest"}"#).unwrap()
}

impl Played {
    pub(super) fn new() -> Self {
        let node = NodeConfig { images: vec![image()], busy: 0.0, ..NodeConfig::default() };
        let host = Arc::new(SimHost::new(Arc::new(StartConfig::default()), Arc::new(node)));
        Self::begin(host, MemoryStore::default(), NodeTime::new(0))
    }

    /// Starts a daemon on what an earlier one left.
    fn begin(host: Arc<SimHost>, store: MemoryStore, time: NodeTime) -> Self {
        let (tasks, shutdown) = (Tasks::default(), CancellationToken::new());
        let (ledger, contents) = Ledger::unthreaded(store.clone()).unwrap();
        let (_, pressures) = watch::channel(Vec::new());
        let metrics = Metrics::new(tasks.clone());
        let services = Arc::new(Services {
            runtime: host.clone(),
            ledger,
            metrics,
            pressures,
            volumes: VolumeTable::default(),
            time,
        });
        let limits = Limits { sandboxes_max: 10, first_id: FIRST_ID };
        let manager = Manager::new(services, tasks, limits, shutdown.clone());
        manager.restore(plan(contents.records, &host.existing()).adopt, contents.central_generation);
        Self { host, store, time, manager, shutdown }
    }

    pub(super) fn next_daemon(self) -> Self {
        self.shutdown.cancel();
        Self::begin(self.host, self.store, self.time)
    }

    pub(super) async fn until(&self, id: &SandboxId, phase: Phase) -> View {
        let mut changes = self.manager.subscribe();
        loop {
            if let Some(view) = self.manager.get(id).filter(|view| view.observed.phase == phase) {
                return view;
            }
            changes.changed().await.unwrap();
        }
    }

    pub(super) async fn make(&self, id: &SandboxId, spec: SandboxSpec) {
        self.manager.create(id.clone(), None, spec).await.unwrap();
        self.until(id, Phase::Ready).await;
    }

    /// Deletes a sandbox and makes sure that its driver ended.
    async fn delete(&self, id: &SandboxId) {
        self.manager.set_run_state(id, RunState::Deleted).await.unwrap();
        self.until(id, Phase::Gone).await;
        while self.manager.record(id).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets the workload end; it is seen at once.
    fn end(&self, id: &SandboxId, exit_code: i32) {
        assert!(self.host.end(id, exit_code));
        self.manager.hint([id]);
    }
}

fn pids(limit: u32) -> UpdateSandbox {
    let change = ResourcesChange { pids_limit: Some(limit), ..ResourcesChange::default() };
    UpdateSandbox { resources: Some(change), lifetime: None }
}

#[tokio::test(start_paused = true)]
async fn the_second_life_of_an_id_is_shown_gone_for_its_own_time() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, spec()).await;
    node.delete(&id).await;
    tokio::time::sleep(GONE_SHOWN_FOR / 2).await;
    node.make(&id, spec()).await;
    node.delete(&id).await;
    // The time of the first life is over, that of the second is not.
    tokio::time::sleep(GONE_SHOWN_FOR * 3 / 4).await;
    assert_eq!(node.manager.get(&id).map(|view| view.observed.phase), Some(Phase::Gone));
    tokio::time::sleep(GONE_SHOWN_FOR / 2).await;
    assert!(node.manager.get(&id).is_none());
}

#[tokio::test(start_paused = true)]
async fn of_two_sandboxes_with_the_same_ids_one_is_refused_and_said_to_be() {
    let node = Played::new();
    let (runs, stopped) = (SandboxId::random(), SandboxId::random());
    for id in [&runs, &stopped] {
        node.make(id, spec()).await;
    }
    node.manager.set_run_state(&stopped, RunState::Stopped).await.unwrap();
    node.until(&stopped, Phase::Stopped).await;
    // As a ledger that was put together from two would have it.
    let ids = node.manager.record(&runs).unwrap().first_id;
    let twice = Record { first_id: ids, ..node.manager.record(&stopped).unwrap() };
    let desired = Desired { run_state: RunState::Running, generation: 9, ..Desired::clone(&twice.desired) };
    let twice = Record { desired: Arc::new(desired), ..twice };
    node.manager.services.ledger.commit(vec![Change::Put(Box::new(twice))]).await.unwrap();

    let node = node.next_daemon();
    assert_eq!(node.until(&runs, Phase::Ready).await.observed.starts, 1, "what runs goes on");
    let refused = node.until(&stopped, Phase::Failed).await.observed;
    assert_eq!(refused.reason.as_deref(), Some("ids-taken"));
    assert!(refused.message.unwrap().contains(runs.as_str()));
    assert_eq!(node.manager.holdings().borrow().id_conflicts, std::slice::from_ref(&stopped));
    node.manager.set_run_state(&stopped, RunState::Running).await.unwrap();
    let generation = node.manager.get(&stopped).unwrap().desired.generation;
    let mut changes = node.manager.subscribe();
    while node.manager.get(&stopped).unwrap().observed.observed_generation < generation {
        changes.changed().await.unwrap();
    }
    node.until(&stopped, Phase::Failed).await;
    assert_eq!(node.host.existing().containers.len(), 2, "only one of them runs");

    node.delete(&stopped).await;
    assert!(node.manager.holdings().borrow().id_conflicts.is_empty());
    let next = SandboxId::random();
    node.make(&next, spec()).await;
    assert_ne!(node.manager.record(&next).unwrap().first_id, ids, "its end freed no ids of the other");
}

#[tokio::test(start_paused = true)]
async fn new_limits_do_not_start_what_has_failed_however_often_they_change() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, spec()).await;
    node.end(&id, 3);
    node.until(&id, Phase::Failed).await;
    for limit in [300, 301] {
        node.manager.update(&id, pids(limit)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let view = node.manager.get(&id).unwrap();
    assert_eq!((view.observed.phase, view.observed.starts), (Phase::Failed, 1));
    assert_eq!(view.observed.observed_generation, view.desired.generation, "the change is answered");

    let node = node.next_daemon();
    node.until(&id, Phase::Failed).await;
    node.manager.set_run_state(&id, RunState::Running).await.unwrap();
    assert_eq!(node.until(&id, Phase::Ready).await.observed.starts, 2, "a start still is one");
}

/// A sandbox whose workload is made again after 100 s.
fn patient() -> SandboxSpec {
    let mut spec = spec();
    spec.restart.application = RestartPolicy::Always;
    (spec.restart.backoff_ms, spec.restart.max_backoff_ms) = (100_000, 100_000);
    spec
}

#[tokio::test(start_paused = true)]
async fn new_limits_do_not_end_the_wait_for_a_restart() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, patient()).await;
    node.end(&id, 3);
    node.until(&id, Phase::Starting).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    node.manager.update(&id, pids(300)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(80)).await;
    let waiting = node.manager.get(&id).unwrap().observed;
    assert_eq!((waiting.phase, waiting.restarts), (Phase::Starting, 0), "90 s of 100 are over");
    assert_eq!(waiting.reason.as_deref(), Some("restart-backoff"));
    assert_eq!(node.until(&id, Phase::Ready).await.observed.restarts, 1);
}

/// The paused clock runs on while the wall clock stands still: a daemon that
/// looked at the wall clock would wait for ever.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_does_not_move_makes_no_wait_longer() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, patient()).await;
    node.end(&id, 3);
    node.until(&id, Phase::Starting).await;
    let begun = Instant::now();
    assert_eq!(node.until(&id, Phase::Ready).await.observed.restarts, 1);
    let waited = begun.elapsed();
    assert!((Duration::from_secs(100)..Duration::from_secs(125)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_another_clock_began_is_no_longer_than_its_policy_allows() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, patient()).await;
    node.end(&id, 3);
    node.until(&id, Phase::Starting).await;
    // The clock was an hour ahead when this was written.
    let mut progress = node.store.clone().load().unwrap().records.remove(0).1;
    progress.recovery.comeback.as_mut().unwrap().at_unix_ms += 3_600_000;
    node.manager.services.ledger.commit(vec![Change::Progress(id.clone(), Box::new(progress))]).await.unwrap();

    let begun = Instant::now();
    let node = node.next_daemon();
    node.until(&id, Phase::Ready).await;
    assert!(begun.elapsed() < Duration::from_secs(125), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_room_of_local_sandboxes_is_told_until_they_are_gone() {
    let node = Played::new();
    let mut holdings = node.manager.holdings();
    assert_eq!(*holdings.borrow_and_update(), Holdings::default());
    let id = SandboxId::random();
    node.make(&id, spec()).await;
    assert!(holdings.has_changed().unwrap());
    let held = holdings.borrow_and_update().clone();
    assert_eq!((held.cpu_millis, held.memory_bytes, held.sandboxes), (500, 512 << 20, 1));
    let change = ResourcesChange { cpu_request_millis: Some(700), ..ResourcesChange::default() };
    let change = UpdateSandbox { resources: Some(change), lifetime: None };
    node.manager.update(&id, change).await.unwrap();
    assert_eq!(holdings.borrow_and_update().cpu_millis, 700);
    node.manager.set_run_state(&id, RunState::Stopped).await.unwrap();
    node.until(&id, Phase::Stopped).await;
    assert_eq!(holdings.borrow_and_update().sandboxes, 1, "a stopped one is to start again");
    node.delete(&id).await;
    assert_eq!(*holdings.borrow_and_update(), Holdings::default());
}
