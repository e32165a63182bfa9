//! The one task that owns one sandbox.
//!
//! Two inputs only: what is desired, and hints that a container ended. The
//! loop: compare, take one step, publish, again.

use std::sync::Arc;

use roost_proto::model::{RunState, Stage};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::Desired;
use super::ensure::{Ended, Watch};
use super::failure::{StartError, chain};
use super::publisher::Publisher;
use super::runtime::{Services, Start};
use super::state::{Phase, Step, next_step};
use crate::containerd::{Role, TaskStatus};
use crate::reconcile::ledger::{Change, Failure, Progress, ReadyRecord, Record};

/// First and longest wait before something is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long a running desktop may take to answer at its adoption.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

/// What existed of a sandbox when its driver began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// The display's task.
    pub display: Option<TaskStatus>,
    /// The workload's task.
    pub workload: Option<TaskStatus>,
}

/// When a request was accepted, and when it was durable.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// The request came in.
    pub at: Instant,
    /// The ledger had it.
    pub durable_at: Instant,
}

/// All that a driver owns.
#[derive(Debug)]
pub struct Driver {
    /// What the drivers of the node share.
    pub services: Arc<Services>,
    /// What is allocated; its wish is replaced by each newer one.
    pub record: Record,
    /// How far it came.
    pub progress: Progress,
    /// The newest wish.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// Hints that a container may have ended.
    pub hints: watch::Receiver<u64>,
    /// The newest hint from before the present containers were made.
    pub hints_before: u64,
    /// What the outside sees.
    pub publisher: Publisher,
    /// Set for a sandbox that was just made.
    pub accepted: Option<Accepted>,
    /// Tells that the daemon shuts down: sandboxes stay.
    pub shutdown: CancellationToken,
}

impl Driver {
    /// Drives the sandbox until it is gone or the daemon shuts down.
    pub async fn run(mut self, found: Found) {
        let shutdown = self.shutdown.clone();
        // Dropped in the middle of a step, the sandbox is as after a kill of
        // the daemon: the next one adopts it.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.drive(found) => {}
        }
    }

    async fn drive(&mut self, found: Found) {
        let mut phase = self.adopt(found).await;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.record.desired = (*desired).clone();
            phase = match next_step(&desired, &phase, self.progress.restarts_done) {
                Step::Rest => {
                    self.publisher.settle(&desired, &phase);
                    if phase == Phase::Gone {
                        return;
                    }
                    self.rest(&desired, phase).await
                }
                Step::Start => self.start(&desired, &phase).await,
                Step::Stop => self.stop(&desired).await,
                Step::Delete => self.delete(&desired).await,
            };
        }
    }

    /// Finds out where an existing sandbox is. What an earlier daemon was in
    /// the middle of counts as Stopping: the next step clears it away.
    async fn adopt(&mut self, found: Found) -> Phase {
        if self.accepted.is_some() {
            return Phase::Pending;
        }
        let desired = self.desired.borrow().clone();
        let phase = match (self.progress.failure.clone(), found.display, found.workload) {
            (Some(failure), _, _) => {
                self.tear_down(&desired, Duration::ZERO).await;
                Phase::Failed(failure)
            }
            // A shim that is slow to answer is no reason to end a desktop.
            (
                None,
                Some(TaskStatus::Running | TaskStatus::Unknown),
                Some(TaskStatus::Running | TaskStatus::Unknown),
            ) => self.adopt_running(&desired).await,
            (None, _, Some(TaskStatus::Stopped(exit_code))) if self.progress.ready.is_some() => {
                self.fail_exited(&desired, Ended { role: Role::Workload, exit_code: Some(exit_code) }).await
            }
            _ => Phase::Stopping,
        };
        let ready = self.progress.ready.as_ref().filter(|_| phase == Phase::Ready);
        self.publisher.restore(self.progress.starts, ready);
        self.publisher.phase(&desired, &phase);
        phase
    }

    async fn adopt_running(&mut self, desired: &Arc<Desired>) -> Phase {
        let services = self.services.clone();
        let mut watch = self.watch(&services, CancellationToken::new());
        let number = self.record.display_number;
        match services.runtime.verify(desired, number, &mut watch, ADOPT_TIMEOUT).await {
            Ok(()) => {
                tracing::info!(sandbox = %desired.id, "sandbox adopted");
                self.publisher.display(number);
                Phase::Ready
            }
            Err(StartError::Exited { exit_code, role }) => {
                let role = if role == Role::Display.as_str() { Role::Display } else { Role::Workload };
                self.fail_exited(desired, Ended { role, exit_code: Some(exit_code) }).await
            }
            // It was Ready: a busy screen or a grabbed server is the user's
            // affair, and taking over must not disturb it.
            Err(error) if self.progress.ready.is_some() => {
                tracing::warn!(sandbox = %desired.id, error = %chain(&error), "adopted sandbox is slow to answer");
                self.publisher.display(number);
                Phase::Ready
            }
            Err(error) => {
                tracing::info!(sandbox = %desired.id, error = %chain(&error), "half a start is begun again");
                Phase::Stopping
            }
        }
    }

    /// Waits for a newer wish or, while Ready, for an end.
    async fn rest(&mut self, desired: &Arc<Desired>, phase: Phase) -> Phase {
        let services = self.services.clone();
        let mut watch = self.watch(&services, CancellationToken::new());
        // Cancel-safe: a wish stays in its channel; a hint counts as new until
        // containerd was asked about it.
        tokio::select! {
            changed = self.desired.changed() => {
                if changed.is_err() {
                    // The manager is gone: the daemon shuts down.
                    std::future::pending::<()>().await;
                }
                phase
            }
            ended = watch.ended(), if phase == Phase::Ready => self.fail_exited(desired, ended).await,
        }
    }

    async fn start(&mut self, desired: &Arc<Desired>, from: &Phase) -> Phase {
        // Half a start of an earlier daemon would be in the way.
        if *from == Phase::Stopping {
            self.tear_down(desired, Duration::ZERO).await;
        }
        self.progress.starts += 1;
        self.progress.failure = None;
        let mut retry = RETRY.0;
        loop {
            match self.attempt(desired).await {
                Ok(()) => return self.became_ready(desired).await,
                Err(error) => {
                    let stage = self.publisher.running_stage();
                    let wanted = self.is_wanted();
                    if !error.is_transient() || !wanted {
                        return self.give_up(desired, &error, stage).await;
                    }
                    self.publisher.note(error.reason(), error.message(stage));
                    self.tear_down(desired, Duration::ZERO).await;
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Watches the containers that were made since the last start began.
    fn watch<'a>(&self, services: &'a Services, cancel: CancellationToken) -> Watch<'a> {
        Watch::new(&*services.runtime, self.record.desired.id.clone(), self.hints.clone(), self.hints_before, cancel)
    }

    /// Whether the newest wish still asks for a start.
    fn is_wanted(&self) -> bool {
        self.desired.borrow().run_state == RunState::Running
    }

    /// One start, given up when the wish changes.
    async fn attempt(&mut self, desired: &Arc<Desired>) -> Result<(), StartError> {
        let accepted = self.accepted.take();
        let begin = accepted.map_or_else(Instant::now, |a| a.at);
        self.publisher.begin_start(begin, self.progress.starts);
        self.publisher.phase(desired, &Phase::Starting);
        if let Some(accepted) = accepted {
            self.publisher.past_stage(Stage::Ledger, accepted.at, accepted.durable_at);
        }
        let cancel = CancellationToken::new();
        self.hints_before = *self.hints.borrow();
        let services = self.services.clone();
        let watch = self.watch(&services, cancel.clone());
        let start = services.runtime.start(Start {
            desired: desired.clone(),
            record: &self.record,
            publisher: &mut self.publisher,
            watch,
        });
        tokio::pin!(start);
        loop {
            // Cancel-safe: the start is pinned and goes on in the next turn;
            // a wish stays in its channel.
            tokio::select! {
                result = &mut start => return result,
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return start.await;
                    }
                    if next_step(&self.desired.borrow(), &Phase::Starting, 0) != Step::Start {
                        cancel.cancel();
                    }
                }
            }
        }
    }

    async fn became_ready(&mut self, desired: &Arc<Desired>) -> Phase {
        self.progress.restarts_done = desired.restart_count;
        self.publisher.phase(desired, &Phase::Ready);
        let observed = self.publisher.observed();
        self.services.metrics.start_succeeded(&observed.stages);
        self.progress.ready = Some(ReadyRecord {
            at_unix_ms: observed.ready_at_unix_ms.unwrap_or_default(),
            stages: observed.stages.clone(),
        });
        self.save().await;
        Phase::Ready
    }

    /// Clears away what an attempt made; the failure stands, unless the wish
    /// changed.
    async fn give_up(&mut self, desired: &Arc<Desired>, error: &StartError, stage: Stage) -> Phase {
        self.publisher.end_stage();
        if matches!(error, StartError::Cancelled) || !self.is_wanted() {
            self.tear_down(desired, Duration::ZERO).await;
            return Phase::Stopped;
        }
        tracing::warn!(sandbox = %desired.id, %stage, reason = error.reason(), error = %chain(error), "start failed");
        self.services.metrics.start_failed(error.reason());
        let exit_code = match error {
            StartError::Exited { exit_code, .. } => Some(*exit_code),
            _ => None,
        };
        let failure = Failure {
            reason: error.reason().into(),
            message: error.message(stage),
            stage: Some(stage),
            exit_code,
            generation: desired.generation,
        };
        self.fail(desired, failure).await
    }

    async fn fail_exited(&mut self, desired: &Arc<Desired>, ended: Ended) -> Phase {
        let role = ended.role.as_str();
        tracing::warn!(sandbox = %desired.id, role, exit_code = ended.exit_code, "container ended by itself");
        let (reason, flag) = match ended.role {
            Role::Display => ("display-exited", " --display"),
            Role::Workload => ("workload-exited", ""),
        };
        self.services.metrics.sandbox_failed(reason);
        let code = ended.exit_code.map_or_else(|| "its runtime shim was killed".into(), |c| format!("exit code {c}"));
        let failure = Failure {
            reason: reason.into(),
            message: format!(
                "the {role} ended by itself ({code}): see `roost sandbox logs{flag}`, then `roost sandbox start`"
            ),
            stage: None,
            exit_code: ended.exit_code,
            generation: desired.generation,
        };
        self.fail(desired, failure).await
    }

    async fn fail(&mut self, desired: &Arc<Desired>, failure: Failure) -> Phase {
        self.progress.failure = Some(failure.clone());
        self.progress.ready = None;
        self.save().await;
        self.publisher.phase(desired, &Phase::Stopping);
        self.publisher.note(&failure.reason, failure.message.clone());
        self.tear_down(desired, Duration::ZERO).await;
        Phase::Failed(failure)
    }

    async fn stop(&mut self, desired: &Arc<Desired>) -> Phase {
        self.publisher.phase(desired, &Phase::Stopping);
        self.tear_down(desired, Duration::from_millis(desired.spec.stop_grace_ms.into())).await;
        self.progress.failure = None;
        self.progress.ready = None;
        self.save().await;
        Phase::Stopped
    }

    async fn delete(&mut self, desired: &Arc<Desired>) -> Phase {
        self.publisher.phase(desired, &Phase::Deleting);
        self.tear_down(desired, Duration::ZERO).await;
        let mut retry = RETRY.0;
        while let Err(error) = self.forget(desired).await {
            self.publisher.note("removal-retried", error);
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
        }
        Phase::Gone
    }

    async fn forget(&self, desired: &Desired) -> Result<(), String> {
        self.services.runtime.remove_files(&desired.id).await.map_err(|e| chain(&e))?;
        let changes = vec![Change::Remove(desired.id.clone())];
        self.services.ledger.commit(changes).await.map_err(|e| chain(&e))
    }

    /// Takes away all that runs, however long it takes.
    async fn tear_down(&mut self, desired: &Desired, grace: Duration) {
        let mut retry = RETRY.0;
        let mut grace = grace;
        while let Err(error) = self.services.runtime.stop(&desired.id, grace).await {
            let error = chain(&error);
            tracing::warn!(sandbox = %desired.id, error, "removal is tried again");
            self.publisher.note("removal-retried", error);
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
            grace = Duration::ZERO;
        }
    }

    /// Keeps how far it came. A failure to keep it costs history after a
    /// restart of the daemon, not the sandbox.
    async fn save(&self) {
        let change = Change::Progress(self.record.desired.id.clone(), Box::new(self.progress.clone()));
        if let Err(error) = self.services.ledger.commit(vec![change]).await {
            tracing::error!(sandbox = %self.record.desired.id, error = %chain(&error), "progress could not be kept");
        }
    }
}
