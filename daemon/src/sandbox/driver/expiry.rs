//! A sandbox whose time is over: found out, decided, carried out.

use std::sync::Arc;

use roost_proto::model::{Ends, ExpiryAction, RunState};
use tokio::time::Duration;

use super::{Driver, RETRY};
use crate::sandbox::expiry::{Due, Expired, Facts, Idle, Seen, look_again_ms, next_end, over};
use crate::sandbox::failure::chain;
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::state::Phase;
use crate::sandbox::{Desired, Origin};

/// What a look at the times of a sandbox found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// One is over; that is decided and durable.
    Over,
    /// None is; look again after so long, if at all.
    LookAgain(Option<Duration>),
}

impl Driver {
    /// What is to become of the sandbox: its wish, unless its time is over and
    /// nobody asked since.
    pub(super) fn in_time(&mut self, wish: Arc<Desired>) -> Arc<Desired> {
        if self.progress.expired.as_ref().is_some_and(|expired| !expired.stands_against(&wish)) {
            // Kept with the next progress; until then it is outdated anyway.
            self.progress.expired = None;
        }
        let told = |expired: &Expired| (expired.clone(), expired.message(wish.lifetime()));
        self.publisher.expired(self.progress.expired.as_ref().map(told));
        match self.progress.expired.as_ref().and_then(|expired| expired.instead_of(&wish)) {
            Some((run_state, paused)) => Arc::new(Desired { run_state, paused, ..Desired::clone(&wish) }),
            None => wish,
        }
    }

    /// Whether it is over with this sandbox and only central can say that it
    /// is not wanted any more: else the next full list would make it again.
    pub(super) fn is_left_to_central(&self, wish: &Desired) -> bool {
        let is_over = self.progress.expired.as_ref().is_some_and(|expired| expired.action == ExpiryAction::Delete);
        is_over && wish.origin == Origin::Central && wish.run_state != RunState::Deleted
    }

    /// Looks which of its times are over.
    pub(super) async fn look_at_time(&mut self, desired: &Desired, phase: &Phase) -> Outlook {
        let is_settled = matches!(phase, Phase::Emptied | Phase::Gone);
        if is_settled || self.progress.expired.as_ref().is_some_and(|e| e.action == ExpiryAction::Delete) {
            return Outlook::LookAgain(None);
        }
        let (time, lifetime) = (self.services.time, *desired.lifetime());
        self.look_at_use(desired, phase).await;
        let facts = Facts { lifetime: &lifetime, clock: desired.clock, rested: self.progress.rested, idle: self.idle };
        let now_ms = time.now_ms();
        if let Some(due) = over(&facts, now_ms) {
            self.expire(desired, due).await;
            return Outlook::Over;
        }
        let ends = next_end(&facts).map(|due| {
            let at_unix_ms = self.shown_end(due, now_ms);
            Ends { at_unix_ms, reason: due.reason, action: due.action }
        });
        self.publisher.ends(ends);
        Outlook::LookAgain(look_again_ms(&facts).map(|at_ms| time.until(at_ms)))
    }

    /// The end for people. The same end stays the same number, whatever the
    /// wall clock does between two looks.
    fn shown_end(&mut self, due: Due, now_ms: u64) -> u64 {
        match self.shown_end {
            Some((shown, at_unix_ms)) if shown == due => at_unix_ms,
            _ => {
                let at_unix_ms = unix_ms() + due.at_ms.saturating_sub(now_ms);
                self.shown_end = Some((due, at_unix_ms));
                at_unix_ms
            }
        }
    }

    /// Looks whether it is used, where that matters and the last look is long
    /// enough ago.
    async fn look_at_use(&mut self, desired: &Desired, phase: &Phase) {
        let timeout_ms = desired.lifetime().idle_timeout_ms;
        if *phase != Phase::Ready || desired.clock.is_none() || timeout_ms == 0 {
            self.idle = None;
            return;
        }
        let services = self.services.clone();
        let cpu_us = || match services.runtime.usage(&desired.id) {
            Ok(usage) => Some(usage.cpu_us),
            Err(error) => {
                tracing::debug!(sandbox = %desired.id, error = %chain(&error), "its use of CPU is not known");
                None
            }
        };
        let now_ms = services.time.now_ms();
        let Some(idle) = self.idle else {
            self.idle = Some(Idle::begin(now_ms, cpu_us().unwrap_or_default()));
            return;
        };
        if now_ms < idle.next_look_ms(timeout_ms) {
            return;
        }
        let input = services.runtime.input_idle(&desired.id, self.record.display_number).await;
        let seen = Seen {
            cpu_us: cpu_us(),
            input_idle_ms: input.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)),
            open: self.activity.open(),
            used_at_ms: self.activity.used_at_ms(),
        };
        self.idle = Some(idle.look(seen, desired.lifetime().idle_cpu_millis, services.time.now_ms()));
    }

    /// Decides that a time is over. Durable before anything is done, so that
    /// the next daemon goes on with it.
    async fn expire(&mut self, desired: &Desired, due: Due) {
        let expired =
            Expired { reason: due.reason, action: due.action, generation: desired.generation, at_unix_ms: unix_ms() };
        let (reason, action) = (due.reason.as_str(), due.action.as_str());
        tracing::info!(sandbox = %desired.id, reason, action, "the time of a sandbox is over");
        self.services.metrics.sandbox_expired(reason);
        self.idle = None;
        self.progress.expired = Some(expired);
        self.publisher.ends(None);
        self.save().await;
    }

    /// Between SIGTERM and SIGKILL of a deletion: nobody who asks for one waits
    /// for the workload, but one whose time is over may save its work.
    pub(super) fn delete_grace(&self, desired: &Desired) -> Duration {
        match &self.progress.expired {
            Some(_) => Duration::from_millis(desired.spec.stop_grace_ms.into()),
            None => Duration::ZERO,
        }
    }

    /// Removes everything but the record: what central wants is central's word.
    pub(super) async fn empty(&mut self, desired: &Arc<Desired>, phase: Phase) -> Phase {
        if phase == Phase::Emptied {
            self.publisher.settle(desired, &phase);
            return self.rest(desired, phase).await;
        }
        self.publisher.phase(desired, &Phase::Deleting);
        self.tear_down(desired, self.delete_grace(desired)).await;
        let mut retry = RETRY.0;
        while let Err(error) = self.services.runtime.remove_files(&desired.id).await {
            self.publisher.note("removal-retried", chain(&error));
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
        }
        self.publisher.phase(desired, &Phase::Emptied);
        Phase::Emptied
    }
}
