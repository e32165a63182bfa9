//! The simulated containers of one node.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{ImageRef, Resources, Stage, Usage};
use tokio::time::Instant;

use super::config::{NodeConfig, StartConfig};
use super::fault::Fault;
use crate::containerd::{ContainerId, Role, TaskRecord, TaskStatus};
use crate::host;
use crate::host::cgroup::LimitsSet;
use crate::reconcile::plan::Existing;
use crate::sandbox::Desired;
use crate::sandbox::claim::{BindError, Bound};
use crate::sandbox::ensure::{Ended, Watch};
use crate::sandbox::failure::StartError;
use crate::sandbox::image::ImageError;
use crate::sandbox::runtime::{Bind, Liveness, Runtime, Start};
use crate::sandbox::teardown::TeardownError;

/// Share of a whole start that each stage takes, in thousandths, as measured
/// on a real node (docs/spec.md).
const STAGES: [(Stage, u32); 7] = [
    (Stage::Namespaces, 10),
    (Stage::Rootfs, 6),
    (Stage::DisplayContainer, 238),
    (Stage::DisplayServer, 270),
    (Stage::Workload, 34),
    (Stage::WindowManager, 428),
    (Stage::FirstFrame, 14),
];
/// Memory of an idle desktop, in bytes (docs/spec.md).
const IDLE_BYTES: u64 = 18 << 20;
/// Memory that the busiest desktops use on top of it, in bytes.
const BUSY_BYTES: u64 = 512 << 20;
/// Processes of an idle desktop.
const IDLE_PIDS: u32 = 6;
/// Part of a core that a busy desktop uses, in thousandths.
const BUSY_MILLIS: u64 = 50;

/// A sandbox that runs, or has ended by itself.
#[derive(Debug)]
struct Body {
    began: Instant,
    ended: Option<Ended>,
}

/// One node's containers, as its drivers see them. They outlive the simulated
/// daemon, as real ones do.
#[derive(Debug)]
pub struct SimHost {
    start: Arc<StartConfig>,
    node: Arc<NodeConfig>,
    images: Mutex<Vec<ImageRef>>,
    bodies: Mutex<HashMap<SandboxId, Body>>,
}

/// A number that is always the same for one sandbox.
fn number_of(id: &SandboxId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl SimHost {
    /// A host without sandboxes, with the configured images.
    #[must_use]
    pub fn new(start: Arc<StartConfig>, node: Arc<NodeConfig>) -> Self {
        let images = Mutex::new(node.images.clone());
        Self { start, node, images, bodies: Mutex::default() }
    }

    /// A plain map: whole even after a panic elsewhere.
    fn bodies(&self) -> MutexGuard<'_, HashMap<SandboxId, Body>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Images that sandboxes can be started from.
    pub fn images(&self) -> MutexGuard<'_, Vec<ImageRef>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a running workload with this exit code; false if it does not run.
    /// Its driver learns of it by a hint, as from containerd.
    pub fn end(&self, id: &SandboxId, exit_code: i32) -> bool {
        let ended = Some(Ended { role: Role::Workload, exit_code: Some(exit_code) });
        let mut bodies = self.bodies();
        let running = bodies.get_mut(id).filter(|body| body.ended.is_none());
        running.map(|body| body.ended = ended).is_some()
    }

    /// What a daemon that starts would find.
    #[must_use]
    pub fn existing(&self) -> Existing {
        let bodies = self.bodies();
        let task = |(id, body): (&SandboxId, &Body), role| {
            let ended = body.ended.filter(|ended| ended.role == role);
            let status =
                ended.map_or(TaskStatus::Running, |ended| TaskStatus::Stopped(ended.exit_code.unwrap_or_default()));
            TaskRecord { id: ContainerId::new(id, role), pid: 0, status }
        };
        let tasks: Vec<TaskRecord> = bodies.iter().flat_map(|body| Role::ALL.map(|role| task(body, role))).collect();
        Existing { containers: tasks.iter().map(|task| task.id.clone()).collect(), tasks, names: Vec::new() }
    }

    /// The failure that the dice say, if any.
    fn fault(&self) -> Option<Fault> {
        if rand::random::<f64>() >= self.start.fail {
            return None;
        }
        let faults = &self.start.faults;
        // A share of the length is a place within it.
        let index = (rand::random::<f64>() * faults.len() as f64) as usize;
        faults.get(index).copied()
    }
}

#[tonic::async_trait]
impl Runtime for SimHost {
    async fn start(&self, start: Start<'_>) -> Result<(), StartError> {
        let Start { desired, record, publisher, mut watch } = start;
        let (whole, fault) = (self.start.time_ms.draw(rand::random), self.fault());
        let image = &desired.spec.image;
        self.bodies().insert(desired.id.clone(), Body { began: Instant::now(), ended: None });
        for (stage, thousandths) in STAGES {
            publisher.stage(stage);
            if stage == Stage::Namespaces && !self.images().contains(image) {
                return Err(StartError::Image { reference: image.clone(), source: ImageError::Missing });
            }
            let time = whole * thousandths / 1000;
            if !time.is_zero() {
                watch.during(tokio::time::sleep(time)).await?;
            }
            watch.check()?;
            if let Some(fault) = fault.filter(|fault| fault.stage() == stage) {
                return Err(fault.error(&desired.spec));
            }
            if stage == Stage::DisplayServer {
                publisher.display(record.display_number);
            }
        }
        publisher.end_stage();
        Ok(())
    }

    async fn bind(&self, bind: Bind) -> Result<Bound, BindError> {
        match self.look(&bind.desired.id).await {
            Liveness::Runs => {
                let hook_exit_code = bind.desired.spec.claim.hook.then_some(0);
                Ok(Bound { hook_exit_code, ..Bound::default() })
            }
            Liveness::Ended(_) | Liveness::Unknown => Err(BindError::NotRunning),
        }
    }

    async fn verify(
        &self,
        desired: &Desired,
        _display_number: u32,
        _watch: &mut Watch<'_>,
        _timeout: Duration,
    ) -> Result<(), StartError> {
        match self.look(&desired.id).await {
            Liveness::Ended(ended) => {
                Err(StartError::Exited { role: ended.role.as_str(), exit_code: ended.exit_code.unwrap_or_default() })
            }
            Liveness::Runs | Liveness::Unknown => Ok(()),
        }
    }

    async fn look(&self, id: &SandboxId) -> Liveness {
        match self.bodies().get(id) {
            Some(Body { ended: None, .. }) => Liveness::Runs,
            Some(Body { ended: Some(ended), .. }) => Liveness::Ended(*ended),
            None => Liveness::Ended(Ended { role: Role::Workload, exit_code: None }),
        }
    }

    async fn stop(&self, id: &SandboxId, grace: Duration) -> Result<(), TeardownError> {
        let runs = self.bodies().get(id).is_some_and(|body| body.ended.is_none());
        if runs && !grace.is_zero() {
            tokio::time::sleep(self.start.stop_ms.draw(rand::random).min(grace)).await;
        }
        self.bodies().remove(id);
        Ok(())
    }

    async fn remove_files(&self, _id: &SandboxId) -> Result<(), TeardownError> {
        Ok(())
    }

    async fn set_limits(&self, _id: &SandboxId, wanted: &Resources) -> Result<LimitsSet, host::Error> {
        Ok(LimitsSet { in_force: wanted.clone(), refused: Vec::new() })
    }

    fn usage(&self, id: &SandboxId) -> Result<Usage, host::Error> {
        let runs_for = self.bodies().get(id).filter(|body| body.ended.is_none()).map(|body| body.began.elapsed());
        let runs_for = runs_for.ok_or_else(|| host::Error::Unfit(format!("simulated sandbox {id} does not run")))?;
        let number = number_of(id);
        let is_busy = (number % 1000) as f64 / 1000.0 < self.node.busy;
        let idle = Usage { memory_bytes: IDLE_BYTES, pids: IDLE_PIDS, ..Usage::default() };
        if !is_busy {
            return Ok(idle);
        }
        let cpu_us = u64::try_from(runs_for.as_micros()).unwrap_or(u64::MAX) / 1000 * BUSY_MILLIS;
        Ok(Usage { memory_bytes: IDLE_BYTES + number % BUSY_BYTES, cpu_us, ..idle })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(busy: f64) -> SimHost {
        SimHost::new(Arc::default(), Arc::new(NodeConfig { busy, ..NodeConfig::default() }))
    }

    fn run(host: &SimHost) -> SandboxId {
        let id = SandboxId::random();
        host.bodies().insert(id.clone(), Body { began: Instant::now(), ended: None });
        id
    }

    #[test]
    fn the_stages_share_the_whole_start() {
        assert_eq!(STAGES.iter().map(|(_, thousandths)| thousandths).sum::<u32>(), 1000);
    }

    #[tokio::test]
    async fn what_ends_is_seen_once_and_stays_ended_until_it_is_stopped() {
        let host = host(1.0);
        let id = run(&host);
        assert_eq!(host.look(&id).await, Liveness::Runs);
        assert!(host.end(&id, 137));
        assert!(!host.end(&id, 1), "it has ended already");
        let ended = Ended { role: Role::Workload, exit_code: Some(137) };
        assert_eq!(host.look(&id).await, Liveness::Ended(ended));
        assert!(host.usage(&id).is_err());
        host.stop(&id, Duration::ZERO).await.unwrap();
        assert!(host.existing().tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_busy_share_of_the_sandboxes_moves() {
        for (busy, moves) in [(0.0, false), (1.0, true)] {
            let host = host(busy);
            let id = run(&host);
            let before = host.usage(&id).unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(host.usage(&id).unwrap() != before, moves, "{busy}");
        }
    }

    #[test]
    fn a_daemon_that_starts_finds_both_tasks_of_what_runs() {
        let host = host(1.0);
        let (runs, ended) = (run(&host), run(&host));
        host.end(&ended, 3);
        let tasks = host.existing().tasks;
        let status = |id: &SandboxId, role| {
            tasks.iter().find(|task| task.id == ContainerId::new(id, role)).map(|task| task.status)
        };
        assert_eq!(status(&runs, Role::Workload), Some(TaskStatus::Running));
        assert_eq!(status(&ended, Role::Display), Some(TaskStatus::Running));
        assert_eq!(status(&ended, Role::Workload), Some(TaskStatus::Stopped(3)));
    }
}
