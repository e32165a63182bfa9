//! The one task that owns one sandbox.
//!
//! Few inputs: what is desired, hints that a container ended, a window manager
//! that is lost, memory that ran out, the time of a restart. The loop: compare,
//! take one step, publish, again.

mod adopt;
mod bind;
mod ends;
mod expiry;
mod limits;
mod oom;
mod pause;

pub use oom::LastKills;

use expiry::Outlook;

use std::sync::Arc;

use roost_proto::id::ClaimId;
use roost_proto::model::{OomVictim, RunState, Stage, StartRecord};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::Desired;
use super::activity::Activity;
use super::claim::Parcel;
use super::ensure::{Ended, Watch};
use super::eviction::Eviction;
use super::expiry::{Due, Idle};
use super::failure::{StartError, chain};
use super::publisher::{Publisher, unix_ms};
use super::restart::Scope;
use super::runtime::{Services, Start};
use super::state::{Phase, Step, next_step};
use crate::containerd::{Role, TaskStatus};
use crate::host::fault;
use crate::reconcile::ledger::{Change, Failure, Progress, Record};

/// First and longest wait before something is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Shims that may be lost in the middle of one start: more than that, and it is
/// the sandbox that ends them.
const SHIMS_LOST_MAX: u32 = 2;
/// Reason of a sandbox that must not run, because another has its ids.
const IDS_TAKEN: &str = "ids-taken";

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

/// What a resting driver wakes up for.
#[derive(Debug)]
enum Event {
    /// A newer wish.
    Wish,
    /// A container ended.
    Ended(Ended),
    /// The window manager is gone; its exit code.
    ManagerLost(Option<i32>),
    /// The kernel killed something.
    MemoryRanOut,
    /// The node ends it.
    Evicted,
    /// The time of a restart came, or that of a look.
    Due,
}

/// The event of a channel; one that is closed says that the daemon shuts down.
async fn or_shutdown(changed: Result<(), watch::error::RecvError>, event: Event) -> Event {
    match changed {
        Ok(()) => event,
        Err(_closed) => std::future::pending().await,
    }
}

/// Waits for the time of a restart; without one, for ever.
async fn until_due(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
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
    /// The process of this sandbox that the kernel killed last for want of
    /// memory. A change without a new one means: look at the counters.
    pub victims: watch::Receiver<Option<OomVictim>>,
    /// When the kernel was last seen to kill something in it.
    pub last_kills: LastKills,
    /// The newest decision of the node to end what runs.
    pub evictions: watch::Receiver<Option<Eviction>>,
    /// The newest content that came with its claim.
    pub parcels: watch::Receiver<Option<Arc<Parcel>>>,
    /// The claim that could not be bound: it is tried again when it is sent
    /// again.
    pub given_up: Option<ClaimId>,
    /// The newest hint from before the present containers were made.
    pub hints_before: u64,
    /// What the outside sees.
    pub publisher: Publisher,
    /// When the restart that is waited for begins, by a clock that nobody can
    /// set; what is published and kept of it is for people and for the next
    /// daemon.
    pub due: Option<Instant>,
    /// Why it must not run here, if so.
    pub barred: Option<String>,
    /// Its use from outside.
    pub activity: Arc<Activity>,
    /// How long it goes unused; known while it is Ready and that matters.
    pub idle: Option<Idle>,
    /// The end that is shown, and its Unix time in milliseconds.
    pub shown_end: Option<(Due, u64)>,
    /// Set for a sandbox that was just made.
    pub accepted: Option<Accepted>,
    /// Tells that the daemon shuts down: sandboxes stay.
    pub shutdown: CancellationToken,
}

impl Driver {
    /// Drives the sandbox until it is gone or the daemon shuts down.
    pub async fn run(mut self: Box<Self>, found: Found) {
        let shutdown = self.shutdown.clone();
        // Dropped in the middle of a step, the sandbox is as after a kill of
        // the daemon: the next one adopts it.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.drive(found) => {}
        }
    }

    async fn drive(&mut self, found: Found) {
        let mut phase = Box::pin(self.adopt(found)).await;
        loop {
            let wish = self.desired.borrow_and_update().clone();
            self.record.desired = wish.clone();
            let is_left_to_central = self.is_left_to_central(&wish);
            let desired = self.in_time(wish);
            let is_due = self.due.is_none_or(|due| due <= Instant::now());
            // Boxed: a driver that rests, as most do, holds no room for its steps.
            phase = match next_step(&desired, &phase, self.progress.restarts_done, is_due) {
                Step::Start | Step::Again(_) if self.barred.is_some() => Box::pin(self.refuse(&desired)).await,
                Step::Rest => {
                    self.publisher.settle(&desired, &phase);
                    if phase == Phase::Gone {
                        return;
                    }
                    self.rest(&desired, phase).await
                }
                Step::Start => Box::pin(self.start(&desired, &phase)).await,
                Step::Again(scope) => Box::pin(self.start_again(&desired, scope)).await,
                Step::Pause => Box::pin(self.pause(&desired)).await,
                Step::Resume => Box::pin(self.resume(&desired)).await,
                Step::Stop => Box::pin(self.stop(&desired)).await,
                Step::Delete if is_left_to_central => Box::pin(self.empty(&desired, phase)).await,
                Step::Delete => Box::pin(self.delete(&desired)).await,
            };
        }
    }

    /// Waits for a newer wish, for an end of what runs, or for the time of a
    /// restart.
    async fn rest(&mut self, desired: &Arc<Desired>, phase: Phase) -> Phase {
        let retry = self.set_limits(desired, &phase).await;
        Box::pin(self.bind(desired, &phase)).await;
        let look = match Box::pin(self.look_at_time(desired, &phase)).await {
            Outlook::Over => return phase,
            Outlook::LookAgain(look) => look,
        };
        let again = [retry, look].into_iter().flatten().min();
        match self.next_event(desired, &phase, again).await {
            Event::Wish | Event::Due => phase,
            Event::Ended(ended) => Box::pin(self.container_ended(desired, ended)).await,
            Event::ManagerLost(exit_code) => Box::pin(self.manager_lost(desired, exit_code)).await,
            Event::MemoryRanOut => {
                Box::pin(self.memory_ran_out(desired)).await;
                phase
            }
            Event::Evicted => Box::pin(self.evict(desired, phase)).await,
        }
    }

    async fn next_event(&mut self, desired: &Arc<Desired>, phase: &Phase, again: Option<Duration>) -> Event {
        let services = self.services.clone();
        let scope = match phase {
            Phase::Backoff(comeback) => Some(comeback.scope),
            _ => None,
        };
        let runs = matches!(phase, Phase::Ready | Phase::Paused) || scope.is_some_and(|scope| scope < Scope::Sandbox);
        // The end that is waited out is no news.
        let known = (scope == Some(Scope::Workload)).then_some(Role::Workload);
        let mut watch = self.watch(&services, CancellationToken::new()).passing_over(known);
        let manager_lost = services.runtime.window_manager_lost(desired, self.record.display_number);
        let due = self.due.filter(|_| scope.is_some());
        // Cancel-safe: a wish, a victim and an eviction stay in their channels;
        // a hint counts as new until the runtime was asked about it; a lost
        // window manager and a time that came are seen again.
        tokio::select! {
            biased;
            changed = self.desired.changed() => or_shutdown(changed, Event::Wish).await,
            ended = watch.ended(), if runs => Event::Ended(ended),
            changed = self.evictions.changed(), if runs => or_shutdown(changed, Event::Evicted).await,
            changed = self.parcels.changed() => or_shutdown(changed, Event::Wish).await,
            changed = self.victims.changed(), if runs => or_shutdown(changed, Event::MemoryRanOut).await,
            exit_code = manager_lost, if *phase == Phase::Ready => Event::ManagerLost(exit_code),
            () = until_due(due) => Event::Due,
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => Event::Due,
        }
    }

    async fn start(&mut self, desired: &Arc<Desired>, from: &Phase) -> Phase {
        // Half a start of an earlier daemon would be in the way.
        if *from == Phase::Stopping {
            self.tear_down(desired, Duration::ZERO).await;
        }
        self.progress.recovery.streak = 0;
        self.progress.recovery.comeback = None;
        self.begin(desired, Scope::Sandbox).await
    }

    /// A restart whose time came.
    async fn start_again(&mut self, desired: &Arc<Desired>, scope: Scope) -> Phase {
        let restarts = &mut self.progress.recovery.restarts;
        *restarts = restarts.saturating_add(1);
        tracing::info!(sandbox = %desired.id, ?scope, restarts, "restart begins");
        if let Some(end) = &self.progress.recovery.last_end {
            self.services.metrics.restart_begun(end.part);
        }
        self.publisher.recovery(&self.progress);
        self.begin(desired, scope).await
    }

    async fn begin(&mut self, desired: &Arc<Desired>, scope: Scope) -> Phase {
        self.idle = None;
        self.progress.rested = self.progress.rested.end(desired.clock, self.services.time.now_ms());
        if scope == Scope::Sandbox {
            self.progress.starts += 1;
        }
        self.progress.failure = None;
        let (mut retry, mut shims_lost) = (RETRY.0, 0);
        loop {
            match self.attempt(desired, scope).await {
                Ok(()) => return self.became_ready(desired, scope).await,
                Err(error) => {
                    let stage = self.publisher.running_stage();
                    shims_lost += u32::from(error.is_shim_lost());
                    let may_pass = error.is_transient() || (error.is_shim_lost() && shims_lost <= SHIMS_LOST_MAX);
                    if !may_pass || !self.is_wanted() {
                        return self.attempt_failed(desired, scope, &error, stage).await;
                    }
                    self.publisher.note(error.reason(), error.message(stage));
                    if scope == Scope::Sandbox {
                        self.tear_down(desired, Duration::ZERO).await;
                    }
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
    async fn attempt(&mut self, desired: &Arc<Desired>, scope: Scope) -> Result<(), StartError> {
        let accepted = self.accepted.take();
        let begin = accepted.map_or_else(Instant::now, |a| a.at);
        if scope == Scope::Sandbox {
            self.publisher.begin_start(begin, self.progress.starts);
        } else {
            self.publisher.begin_again(begin);
        }
        self.publisher.phase(desired, &Phase::Starting);
        if let Some(accepted) = accepted {
            self.publisher.past_stage(Stage::Ledger, accepted.at, accepted.durable_at);
        }
        let cancel = CancellationToken::new();
        if scope == Scope::Sandbox {
            // Both containers are new. Else an end of the one that stays may
            // be among the hints.
            self.hints_before = *self.hints.borrow();
            self.progress.oom.display_counter = 0;
        }
        if scope >= Scope::Workload {
            // A new workload knows nothing of the claim.
            if let Some(binding) = &mut self.progress.binding {
                binding.bound = false;
            }
            self.progress.oom.workload_counter = 0;
        }
        // What was said of an earlier run does not end this one.
        self.evictions.mark_unchanged();
        let services = self.services.clone();
        let watch = self.watch(&services, cancel.clone());
        let start = Start { desired: desired.clone(), record: &self.record, publisher: &mut self.publisher, watch };
        let mut start = match scope {
            Scope::Sandbox => services.runtime.start(start),
            part => services.runtime.restart(part, start),
        };
        let mut evicted = None;
        loop {
            // Cancel-safe: the start is pinned and goes on in the next turn;
            // a wish and an eviction stay in their channels.
            tokio::select! {
                result = &mut start => return match (result, evicted) {
                    (Err(StartError::Cancelled), Some(eviction)) => Err(StartError::Evicted(eviction)),
                    (result, _) => result,
                },
                Ok(()) = self.evictions.changed() => {
                    evicted = self.evictions.borrow_and_update().clone();
                    cancel.cancel();
                }
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return start.await;
                    }
                    if next_step(&self.desired.borrow(), &Phase::Starting, 0, false) != Step::Start {
                        cancel.cancel();
                    }
                }
            }
        }
    }

    async fn became_ready(&mut self, desired: &Arc<Desired>, scope: Scope) -> Phase {
        if scope == Scope::Sandbox {
            self.progress.restarts_done = desired.restart_count;
            self.publisher.limits(desired.resources().clone());
        }
        self.progress.recovery.comeback = None;
        // Durable before it is shown: a daemon that is killed in between finds
        // what was shown, and does no restart a second time.
        self.progress.ready = Some(self.publisher.ready_record());
        fault::pass("create.ready");
        self.save().await;
        fault::pass("create.kept");
        self.publisher.phase(desired, &Phase::Ready);
        if scope == Scope::Sandbox {
            self.services.metrics.start_succeeded(&self.publisher.observed().stages);
            self.keep_start(desired, None);
        }
        Phase::Ready
    }

    /// Keeps how this start went, for `roost debug trace --last`.
    fn keep_start(&self, desired: &Desired, failure: Option<&str>) {
        self.services.metrics.start_ended(StartRecord {
            sandbox_id: desired.id.clone(),
            name: desired.name.clone(),
            template: desired.spec.template.clone(),
            ended_at_unix_ms: unix_ms(),
            failure: failure.map(str::to_owned),
            stages: self.publisher.observed().stages.clone(),
        });
    }

    async fn fail(&mut self, desired: &Arc<Desired>, failure: Failure) -> Phase {
        self.progress.failure = Some(failure.clone());
        self.progress.ready = None;
        self.progress.recovery.comeback = None;
        self.save().await;
        self.publisher.recovery(&self.progress);
        self.publisher.phase(desired, &Phase::Stopping);
        self.publisher.note(&failure.reason, failure.message.clone());
        self.tear_down(desired, Duration::ZERO).await;
        Phase::Failed(failure)
    }

    /// It must not run here; its files are kept.
    async fn refuse(&mut self, desired: &Arc<Desired>) -> Phase {
        let message = self.barred.clone().unwrap_or_default();
        tracing::error!(sandbox = %desired.id, reason = IDS_TAKEN, message, "sandbox is refused");
        let generation = desired.generation;
        let failure = Failure { reason: IDS_TAKEN.into(), message, stage: None, exit_code: None, generation };
        self.fail(desired, failure).await
    }

    async fn stop(&mut self, desired: &Arc<Desired>) -> Phase {
        self.publisher.phase(desired, &Phase::Stopping);
        self.tear_down(desired, Duration::from_millis(desired.spec.stop_grace_ms.into())).await;
        self.progress.failure = None;
        self.progress.ready = None;
        self.progress.recovery.comeback = None;
        self.progress.rested = self.progress.rested.begin(desired.clock, self.services.time.now_ms());
        self.save().await;
        fault::pass("stop.kept");
        Phase::Stopped
    }

    async fn delete(&mut self, desired: &Arc<Desired>) -> Phase {
        self.publisher.phase(desired, &Phase::Deleting);
        self.tear_down(desired, self.delete_grace(desired)).await;
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
        self.services.ledger.commit(changes).await.map_err(|e| chain(&e))?;
        fault::pass("delete.forgotten");
        // Before it is shown to be gone: who waits for that may take them.
        self.services.volumes.release(&desired.id);
        Ok(())
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
