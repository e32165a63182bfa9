//! New limits for what runs, and its end when the node says so.

use std::sync::Arc;

use tokio::time::Duration;

use super::Driver;
use crate::reconcile::ledger::Failure;
use crate::sandbox::Desired;
use crate::sandbox::eviction::Eviction;
use crate::sandbox::limits::judge;
use crate::sandbox::state::Phase;

impl Driver {
    /// Brings the limits of what runs to what is wanted; how long until that
    /// is to be tried again.
    pub(super) async fn set_limits(&mut self, desired: &Desired, phase: &Phase) -> Option<Duration> {
        let wanted = desired.resources();
        if *phase != Phase::Ready || self.publisher.observed().limits.as_ref() == Some(wanted) {
            return None;
        }
        let attempt = judge(self.services.runtime.set_limits(&desired.id, wanted).await);
        let problem = attempt.problem.as_ref().map(|(_, message)| message.as_str());
        tracing::info!(sandbox = %desired.id, ?wanted, problem, "limits were set");
        self.publisher.limits_changed(attempt.in_force, attempt.problem);
        attempt.retry
    }

    /// Ends what runs, because the node says so.
    pub(super) async fn evict(&mut self, desired: &Arc<Desired>, phase: Phase) -> Phase {
        let Some(Eviction { reason, message }) = self.evictions.borrow_and_update().clone() else {
            return phase;
        };
        tracing::warn!(sandbox = %desired.id, reason, message, "sandbox is ended by the node");
        self.services.metrics.sandbox_failed(reason);
        let generation = desired.generation;
        let failure = Failure { reason: reason.into(), message, stage: None, exit_code: None, generation };
        self.fail(desired, failure).await
    }
}
