//! What ends by itself: found out, counted, and answered by the restart policy.

use std::sync::Arc;

use roost_proto::model::{LastEnd, Part, Stage};
use tokio::time::{Duration, Instant};

use super::Driver;
use crate::containerd::Role;
use crate::host::fault;
use crate::reconcile::ledger::{Comeback, Failure};
use crate::sandbox::Desired;
use crate::sandbox::ensure::Ended;
use crate::sandbox::failure::{MANAGER_LOST, OUT_OF_MEMORY, StartError, chain};
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::restart::{End, Scope, judge, longest_wait_ms, streak_after};
use crate::sandbox::state::Phase;

/// Exit code of a process that was killed (128 + SIGKILL).
const KILLED: i32 = 137;
/// How long the kernel's log may take to name a victim that the kernel has
/// counted already.
const VICTIM_LIMIT: Duration = Duration::from_millis(300);

/// An end, with what people read of it.
struct Told {
    end: End,
    /// What ended and how, without a next step.
    what: String,
    /// Of the start that it ended.
    stage: Option<Stage>,
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Application => "workload",
        Part::WindowManager => "window manager",
        Part::Display => "display",
    }
}

fn part_of(role: Role) -> Part {
    match role {
        Role::Display => Part::Display,
        Role::Workload => Part::Application,
    }
}

fn logs_of(part: Part) -> &'static str {
    match part {
        Part::Application => "`roost sandbox logs`",
        Part::Display | Part::WindowManager => "`roost sandbox logs --display`",
    }
}

impl Driver {
    /// A container ended while the sandbox was Ready or waited for a restart.
    pub(super) async fn container_ended(&mut self, desired: &Arc<Desired>, ended: Ended) -> Phase {
        let part = part_of(ended.role);
        let reason = match part {
            Part::Display => "display-exited",
            _ => "workload-exited",
        };
        let code = ended.exit_code.map_or_else(|| "its runtime shim was killed".into(), |c| format!("exit code {c}"));
        let what = format!("the {} ended by itself ({code})", name(part));
        let end = End { part, reason, exit_code: ended.exit_code };
        self.part_ended(desired, Told { end, what, stage: None }).await
    }

    /// The window manager is gone.
    pub(super) async fn manager_lost(&mut self, desired: &Arc<Desired>, exit_code: Option<i32>) -> Phase {
        let code = exit_code.map_or_else(String::new, |code| format!(" (exit code {code})"));
        let what = format!("the window manager ended by itself{code}");
        let end = End { part: Part::WindowManager, reason: MANAGER_LOST, exit_code };
        self.part_ended(desired, Told { end, what, stage: None }).await
    }

    /// An attempt ended at `stage` for good. It is cleared away unless only
    /// the wish changed while the rest stays.
    pub(super) async fn attempt_failed(
        &mut self,
        desired: &Arc<Desired>,
        scope: Scope,
        error: &StartError,
        stage: Stage,
    ) -> Phase {
        self.publisher.end_stage();
        if matches!(error, StartError::Cancelled) || !self.is_wanted() {
            if scope < Scope::Sandbox {
                // The stop that is wanted now gives the workload its grace.
                return Phase::Stopping;
            }
            self.tear_down(desired, Duration::ZERO).await;
            return Phase::Stopped;
        }
        tracing::warn!(sandbox = %desired.id, %stage, reason = error.reason(), error = %chain(error), "start failed");
        self.services.metrics.start_failed(error.reason());
        self.keep_start(desired, Some(error.reason()));
        let again = self.progress.recovery.comeback.is_some();
        let (part, exit_code) = match error {
            StartError::Exited { role, exit_code } if *role == Role::Display.as_str() => {
                (Some(Part::Display), Some(*exit_code))
            }
            StartError::Exited { exit_code, .. } => (Some(Part::Application), Some(*exit_code)),
            StartError::WindowManager { exit_code } => (Some(Part::WindowManager), Some(*exit_code)),
            // A display that stayed and cannot be reached.
            StartError::Display(_) if again && scope < Scope::Sandbox => (Some(Part::Display), None),
            // A restart that does not work out is one more end of what ended.
            _ => (self.progress.recovery.last_end.as_ref().filter(|_| again).map(|end| end.part), None),
        };
        if let Some(part) = part {
            let end = End { part, reason: error.reason(), exit_code };
            let what = format!("{}, at stage {stage}", chain(error));
            return self.part_ended(desired, Told { end, what, stage: Some(stage) }).await;
        }
        let failure = Failure {
            reason: error.reason().into(),
            message: error.message(stage),
            stage: Some(stage),
            exit_code,
            generation: desired.generation,
        };
        self.fail(desired, failure).await
    }

    /// Asks the restart policy, and does the first half of its answer: what
    /// goes down with the part is cleared away.
    async fn part_ended(&mut self, desired: &Arc<Desired>, told: Told) -> Phase {
        let Told { mut end, mut what, stage } = told;
        if let Some(killed) = self.killed_for_memory(desired, &end).await {
            end.reason = OUT_OF_MEMORY;
            what = format!("{what}: {killed}");
        }
        let (part, reason) = (end.part.as_str(), end.reason);
        tracing::warn!(sandbox = %desired.id, part, reason, exit_code = end.exit_code, "a part ended by itself");
        let now = unix_ms();
        let ready_for_ms = self.progress.ready.as_ref().map(|ready| now.saturating_sub(ready.at_unix_ms));
        let recovery = &mut self.progress.recovery;
        recovery.streak = streak_after(recovery.streak, ready_for_ms, &desired.spec.restart);
        recovery.last_end =
            Some(LastEnd { part: end.part, reason: end.reason.into(), exit_code: end.exit_code, at_unix_ms: now });
        let jitter_permille = rand::random_range(0..=1000);
        match judge(&desired.spec, &end, recovery.streak, jitter_permille) {
            Some(again) => {
                let before = recovery.comeback.as_ref().map_or(again.scope, |comeback| comeback.scope);
                recovery.streak = recovery.streak.saturating_add(1);
                self.due = Some(Instant::now() + Duration::from_millis(again.wait_ms));
                let comeback = Comeback {
                    scope: again.scope.max(before),
                    at_unix_ms: now + again.wait_ms,
                    message: format!("{what}: it is made again by its restart policy; see {}", logs_of(end.part)),
                    generation: desired.generation,
                };
                self.back_off(desired, comeback).await
            }
            None => {
                if stage.is_none() {
                    self.services.metrics.sandbox_failed(end.reason);
                }
                let failure = Failure {
                    reason: end.reason.into(),
                    message: format!("{what}: see {}, then `roost sandbox start`", logs_of(end.part)),
                    stage,
                    exit_code: end.exit_code,
                    generation: desired.generation,
                };
                self.fail(desired, failure).await
            }
        }
    }

    async fn back_off(&mut self, desired: &Arc<Desired>, comeback: Comeback) -> Phase {
        let scope = comeback.scope;
        let phase = Phase::Backoff(comeback.clone());
        self.progress.recovery.comeback = Some(comeback);
        self.progress.ready = None;
        self.save().await;
        fault::pass("backoff.kept");
        self.publisher.recovery(&self.progress);
        self.publisher.phase(desired, &phase);
        if scope == Scope::Sandbox {
            self.tear_down(desired, Duration::ZERO).await;
        }
        phase
    }

    /// A wait that an earlier daemon began, maybe by another clock, is never
    /// longer than the policy's longest.
    pub(super) fn bounded(&self, desired: &Desired, comeback: Comeback) -> Comeback {
        let latest = unix_ms() + longest_wait_ms(&desired.spec.restart);
        Comeback { at_unix_ms: comeback.at_unix_ms.min(latest), ..comeback }
    }

    /// Whether the end of a part was a kill for want of memory: what the
    /// kernel says of it.
    async fn killed_for_memory(&mut self, desired: &Desired, end: &End) -> Option<String> {
        let kills = self.count_kills(desired);
        if kills.total() > 0 && kills.victim_is_old {
            let news = tokio::time::timeout(VICTIM_LIMIT, self.victims.changed()).await;
            tracing::debug!(sandbox = %desired.id, in_time = news.is_ok(), "the kernel's log was waited for");
            self.take_victim();
        }
        if end.exit_code != Some(KILLED) || !self.last_kills.hit(end.part) {
            return None;
        }
        let victim = self.progress.oom.seen.last.as_ref();
        Some(victim.map_or_else(
            || "the kernel killed it for want of memory".into(),
            |v| format!("the kernel killed {:?} (pid {}) for want of memory", v.process, v.pid),
        ))
    }
}
