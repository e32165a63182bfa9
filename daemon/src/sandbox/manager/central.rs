//! Central's desired state, against what this node holds.

use std::collections::HashSet;
use std::sync::Arc;

use roost_proto::id::SandboxId;
use roost_proto::model::{Observed, Phase, RunState};
use tokio::time::Instant;

use super::{Beginning, Manager, RequestError};
use crate::reconcile::ledger::{Change, LedgerError, Progress, Record};
use crate::sandbox::driver::Accepted;
use crate::sandbox::expiry::LifeClock;
use crate::sandbox::{Desired, Origin};
use crate::tasks::TaskName;
use crate::volume::HoldError;

/// Why central's desired state was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The delta builds on a generation that this node does not hold.
    #[error("the change builds on generation {base}, the node holds {held}")]
    Base {
        /// Base of the delta.
        base: u64,
        /// What the node holds.
        held: u64,
    },
    /// It could not be made durable.
    #[error("the ledger could not keep the desired state")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<LedgerError> for ApplyError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(Box::new(error))
    }
}

impl Manager {
    /// Takes central's desired state. `full`: sandboxes of central that are
    /// not listed are to be deleted; else `base_generation` must be held.
    /// Returns once it is durable, with the generation that is held now. An
    /// older or equal generation changes nothing (a replay).
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply_central(
        &self,
        generation: u64,
        full: bool,
        base_generation: u64,
        sandboxes: Vec<Desired>,
    ) -> Result<u64, ApplyError> {
        let manager = self.clone();
        let apply = async move { manager.apply_now(generation, full, base_generation, sandboxes).await };
        let applied = self.tasks.spawn("apply", apply).await;
        applied.map_err(|error| ApplyError::Ledger(Box::new(error)))?
    }

    async fn apply_now(
        &self,
        generation: u64,
        full: bool,
        base_generation: u64,
        sandboxes: Vec<Desired>,
    ) -> Result<u64, ApplyError> {
        let at = Instant::now();
        let _lane = self.lane.lock().await;
        let held = self.central_generation();
        if generation <= held {
            return Ok(held);
        }
        if !full && base_generation != held {
            return Err(ApplyError::Base { base: base_generation, held });
        }
        let plan = self.plan_central(full, sandboxes);
        let mut changes: Vec<Change> = plan.iter().map(|p| Change::Put(Box::new(p.record.clone()))).collect();
        changes.push(Change::CentralGeneration(generation));
        if let Err(error) = self.services.ledger.commit(changes).await {
            plan.iter().filter(|p| p.is_new).for_each(|p| self.give_back(&p.record));
            return Err(error.into());
        }
        self.lock().central_generation = generation;
        let accepted = Accepted { at, durable_at: Instant::now() };
        for Planned { record, is_new } in plan {
            if is_new {
                self.table.put_desired(record.desired.clone());
                self.drive(record, Progress::default(), Beginning::of(accepted));
            } else {
                self.tell(record);
            }
        }
        Ok(generation)
    }

    /// Which records a desired state of central changes.
    fn plan_central(&self, full: bool, sandboxes: Vec<Desired>) -> Vec<Planned> {
        let mut plan = Vec::new();
        let listed: HashSet<SandboxId> = sandboxes.iter().map(|d| d.id.clone()).collect();
        if full {
            let inner = self.lock();
            let unlisted = inner.handles.values().map(|h| &h.record).filter(|r| {
                r.desired.origin == Origin::Central
                    && r.desired.run_state != RunState::Deleted
                    && !r.desired.unconfirmed
                    && !listed.contains(&r.desired.id)
            });
            plan.extend(unlisted.map(|r| Planned::changed(r, |d| d.run_state = RunState::Deleted)));
        }
        for desired in sandboxes {
            plan.extend(self.plan_one(desired, full));
        }
        plan
    }

    /// A full list is central's whole word: it counts also where central was
    /// restored from a backup and its generations lie behind ours.
    fn plan_one(&self, desired: Desired, full: bool) -> Option<Planned> {
        let existing = self.lock().handles.get(&desired.id).map(|h| h.record.clone());
        match existing {
            Some(mut record) if record.desired.generation == desired.generation => {
                let is_news = std::mem::take(&mut Arc::make_mut(&mut record.desired).unconfirmed);
                is_news.then_some(Planned { record, is_new: false })
            }
            Some(record) if record.desired.generation > desired.generation && !full => None,
            Some(record) => {
                let created_at_unix_ms = record.desired.created_at_unix_ms;
                // What the node alone knows of it; a claim is not taken back.
                let pool = record.desired.pool.clone();
                let binding = desired.binding.clone().or_else(|| record.desired.binding.clone());
                let clock = self.clock_after(&record.desired, &desired);
                let brings_files = record.desired.brings_files;
                let desired = Desired { created_at_unix_ms, pool, binding, brings_files, clock, ..desired };
                let desired = desired.following(&record.desired);
                Some(Planned { record: Record { desired: Arc::new(desired), ..record }, is_new: false })
            }
            // Nothing of it is here: say so.
            None if desired.run_state == RunState::Deleted => {
                let observed =
                    Observed { phase: Phase::Gone, observed_generation: desired.generation, ..Observed::pending() };
                self.show_for_a_while(desired, observed);
                None
            }
            None => match self.allocate(Desired { clock: Some(self.clock_now()), ..desired.clone() }) {
                Ok(record) => Some(Planned { record, is_new: true }),
                Err(error) => {
                    self.refuse(desired, &error);
                    None
                }
            },
        }
    }

    fn clock_now(&self) -> LifeClock {
        LifeClock::begin(self.services.time.now_ms())
    }

    /// From when on the times of a sandbox count: a time to live that was set
    /// counts from now on.
    fn clock_after(&self, before: &Desired, desired: &Desired) -> Option<LifeClock> {
        if before.ttl_count == desired.ttl_count {
            return before.clock.or_else(|| Some(self.clock_now()));
        }
        Some(LifeClock::with_new_ttl(before.clock, self.services.time.now_ms()))
    }

    /// Shows a sandbox that does not exist here, as the answer to its wish.
    fn show_for_a_while(&self, desired: Desired, observed: Observed) {
        let id = desired.id.clone();
        self.table.put_desired(Arc::new(desired));
        self.table.publish(&id, observed);
        let manager = self.clone();
        self.tasks.spawn(TaskName::of("tombstone", &id), async move { manager.forget_later(&id).await });
    }

    /// Shows a sandbox that this node cannot take as Failed.
    fn refuse(&self, desired: Desired, error: &RequestError) {
        tracing::warn!(sandbox = %desired.id, %error, "sandbox of central is refused");
        let observed = Observed {
            phase: Phase::Failed,
            observed_generation: desired.generation,
            reason: Some(refusal(error).into()),
            message: Some(error.to_string()),
            ..Observed::pending()
        };
        let id = desired.id.clone();
        self.table.put_desired(Arc::new(desired));
        self.table.publish(&id, observed);
    }
}

/// Stable word for why the node does not take a sandbox.
fn refusal(error: &RequestError) -> &'static str {
    match error {
        RequestError::Full { .. } => "node-full",
        RequestError::Pressure { .. } => "node-pressure",
        RequestError::Volume(HoldError::Missing(_) | HoldError::Lost(_)) => "volume-missing",
        RequestError::Volume(_) => "volume-in-use",
        _ => "being-removed",
    }
}

/// One record that a desired state of central changes.
struct Planned {
    record: Record,
    is_new: bool,
}

impl Planned {
    fn changed(record: &Record, edit: impl FnOnce(&mut Desired)) -> Self {
        let mut record = record.clone();
        let desired = Arc::make_mut(&mut record.desired);
        edit(desired);
        desired.generation += 1;
        Self { record, is_new: false }
    }
}
