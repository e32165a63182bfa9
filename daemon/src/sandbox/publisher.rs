//! The only writer of what the outside sees of a sandbox.

use std::time::{SystemTime, UNIX_EPOCH};

use roost_proto::id::SandboxId;
use roost_proto::model::{self, DisplayState, Ends, Observed, Resources, Stage, StageTiming};
use tokio::time::Instant;

use super::Desired;
use super::expiry::Expired;
use super::state::Phase;
use super::table::Table;
use crate::reconcile::ledger::{Progress, ReadyRecord};

/// Why a sandbox that is Starting does not run: a restart is waited for.
const BACKOFF: &str = "restart-backoff";

/// Publishes one sandbox's observed state: each publication raises its
/// revision by one, and a change of phase is one line in the log.
#[derive(Debug)]
pub struct Publisher {
    id: SandboxId,
    table: Table,
    observed: Observed,
    /// When the present start was accepted, and its running stage began.
    start: Option<(Instant, Option<(Stage, Instant)>)>,
    /// When an adopted sandbox became Ready.
    restored_ready_at: Option<u64>,
    /// The time that was over, and the sentence about it.
    expired: Option<(Expired, String)>,
}

/// Whether a sandbox is where it is because its time was over.
fn shows_expiry(phase: model::Phase) -> bool {
    use model::Phase;
    matches!(phase, Phase::Stopping | Phase::Stopped | Phase::Paused | Phase::Deleting | Phase::Gone)
}

/// Now, as Unix time in milliseconds.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Publisher {
    /// A publisher that continues from what the table shows.
    #[must_use]
    pub fn new(id: SandboxId, table: Table, observed: Observed) -> Self {
        Self { id, table, observed, start: None, restored_ready_at: None, expired: None }
    }

    /// What was published last.
    #[must_use]
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Enters a phase, answering `desired`.
    pub fn phase(&mut self, desired: &Desired, phase: &Phase) {
        let outside = phase.outside();
        let failure = match phase {
            Phase::Failed(failure) => Some(failure),
            _ => None,
        };
        let comeback = match phase {
            Phase::Backoff(comeback) => Some(comeback),
            _ => None,
        };
        let expired = self.expired.as_ref().filter(|_| shows_expiry(outside));
        let expired = expired.map(|(expired, message)| (expired.reason.as_str(), message));
        let comeback_why = comeback.map(|comeback| (BACKOFF, &comeback.message));
        let why = failure.map(|f| (f.reason.as_str(), &f.message)).or(comeback_why).or(expired);
        let was = self.observed.phase;
        if was != outside {
            let reason = why.map(|(reason, _)| reason);
            tracing::info!(sandbox = %self.id, from = %was, to = %outside, reason, "sandbox changed phase");
        }
        self.observed.phase = outside;
        self.observed.observed_generation = desired.generation;
        self.observed.stage = failure.and_then(|f| f.stage);
        self.observed.reason = why.map(|(reason, _)| reason.to_owned());
        self.observed.message = why.map(|(_, message)| message.clone());
        self.observed.next_restart_at_unix_ms = comeback.map(|c| c.at_unix_ms);
        self.observed.exit_code = failure.and_then(|f| f.exit_code);
        if outside != model::Phase::Ready {
            self.observed.limits = None;
        }
        if *phase == Phase::Ready && was != outside {
            self.observed.ready_at_unix_ms = Some(self.restored_ready_at.take().unwrap_or_else(unix_ms));
        }
        self.publish();
    }

    /// Shows again what an earlier daemon knew.
    pub fn restore(&mut self, progress: &Progress, ready: Option<&ReadyRecord>) {
        self.observed.starts = progress.starts;
        self.recovery(progress);
        if let Some(ready) = ready {
            self.observed.stages.clone_from(&ready.stages);
            self.restored_ready_at = Some(ready.at_unix_ms);
        }
    }

    /// What to keep of a start that succeeded now; the phase Ready, entered
    /// next, shows the same moment.
    pub fn ready_record(&mut self) -> ReadyRecord {
        let at_unix_ms = unix_ms();
        self.restored_ready_at = Some(at_unix_ms);
        ReadyRecord { at_unix_ms, stages: self.observed.stages.clone() }
    }

    /// Enters a phase unless it was published as the answer to `desired`.
    pub fn settle(&mut self, desired: &Desired, phase: &Phase) {
        let shows_wait = self.observed.next_restart_at_unix_ms.is_some();
        let is_shown = self.observed.phase == phase.outside() && shows_wait == matches!(phase, Phase::Backoff(_));
        if !is_shown || self.observed.observed_generation != desired.generation {
            self.phase(desired, phase);
        }
    }

    /// Takes over what ended by itself and was made again; the next
    /// publication shows it.
    pub fn recovery(&mut self, progress: &Progress) {
        self.observed.restarts = progress.recovery.restarts;
        self.observed.last_end.clone_from(&progress.recovery.last_end);
        self.observed.out_of_memory.clone_from(&progress.oom.seen);
        self.observed.binding.clone_from(&progress.binding);
    }

    /// Takes over which time was over; the next publication shows it.
    pub fn expired(&mut self, expired: Option<(Expired, String)>) {
        self.expired = expired;
    }

    /// Says which time will be over next. A wall clock that is set meanwhile is
    /// not followed.
    pub fn ends(&mut self, ends: Option<Ends>) {
        if self.observed.ends != ends {
            self.observed.ends = ends;
            self.publish();
        }
    }

    /// Shows what [`Self::recovery`] took over, in the present phase.
    pub fn show(&mut self) {
        self.publish();
    }

    /// Begins the record of a start that was accepted at `accepted`.
    pub fn begin_start(&mut self, accepted: Instant, starts: u32) {
        self.begin_again(accepted);
        self.observed.starts = starts;
        self.observed.display = None;
    }

    /// Begins the record of the start of some parts, while the display stays.
    pub fn begin_again(&mut self, accepted: Instant) {
        self.start = Some((accepted, None));
        self.observed.stages.clear();
    }

    /// Ends the running stage and begins the next. Stages follow each other
    /// without a gap: their sum is the whole start.
    pub fn stage(&mut self, stage: Stage) {
        self.end_stage();
        if let Some((_, running)) = &mut self.start {
            *running = Some((stage, Instant::now()));
        }
        self.observed.stage = Some(stage);
        self.publish();
    }

    /// Ends the running stage.
    pub fn end_stage(&mut self) {
        if let Some((accepted, running)) = &mut self.start
            && let Some((stage, begun)) = running.take()
        {
            let timing =
                StageTiming { stage, begin_us: micros(begun - *accepted), duration_us: micros(begun.elapsed()) };
            tracing::debug!(sandbox = %self.id, %stage, duration_us = timing.duration_us, "stage is over");
            self.observed.stages.push(timing);
        }
    }

    /// Notes a stage that was over before the driver began.
    pub fn past_stage(&mut self, stage: Stage, begin: Instant, end: Instant) {
        if let Some((accepted, _)) = &self.start {
            let begin_us = micros(begin.saturating_duration_since(*accepted));
            self.observed.stages.push(StageTiming { stage, begin_us, duration_us: micros(end - begin) });
        }
    }

    /// The stage that runs now.
    #[must_use]
    pub fn running_stage(&self) -> Stage {
        let running = self.start.as_ref().and_then(|(_, running)| running.as_ref());
        running.map_or(Stage::Ledger, |(stage, _)| *stage)
    }

    /// Notes the display number that the X server told.
    pub fn display(&mut self, number: u32) {
        self.observed.display = Some(DisplayState { number });
    }

    /// Notes the limits with which a start succeeded.
    pub fn limits(&mut self, in_force: Resources) {
        self.observed.limits = Some(in_force);
    }

    /// Says which limits are in force and, where they are not those that are
    /// wanted, why.
    pub fn limits_changed(&mut self, in_force: Option<Resources>, problem: Option<(&str, String)>) {
        let before = self.observed.clone();
        if in_force.is_some() {
            self.observed.limits = in_force;
        }
        (self.observed.reason, self.observed.message) = match problem {
            Some((reason, message)) => (Some(reason.to_owned()), Some(message)),
            None => (None, None),
        };
        if self.observed != before {
            self.publish();
        }
    }

    /// Says why the present phase lasts.
    pub fn note(&mut self, reason: &str, message: String) {
        self.observed.reason = Some(reason.to_owned());
        self.observed.message = Some(message);
        self.publish();
    }

    /// Takes back what [`Self::note`] said.
    pub fn clear_note(&mut self) {
        (self.observed.reason, self.observed.message) = (None, None);
    }

    fn publish(&mut self) {
        self.table.publish(&self.id, self.observed.clone());
    }
}
