//! A claim, bound to what runs.

use std::sync::Arc;

use roost_proto::model::{BindingState, RunState};
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::host::fault;
use crate::sandbox::Desired;
use crate::sandbox::claim::{BindError, Bound, Outcome};
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::runtime::Bind;
use crate::sandbox::state::Phase;

impl Driver {
    /// Binds the claim that is wanted, unless it is bound or could not be. A
    /// claim that is sent again is tried again.
    pub(super) async fn bind(&mut self, desired: &Arc<Desired>, phase: &Phase) {
        let Some(binding) = desired.binding.clone() else { return };
        let parcel = self.parcels.borrow_and_update().clone().filter(|parcel| parcel.claim_id == binding.claim_id);
        match phase {
            Phase::Ready => {}
            // It comes back, and the content waits for it.
            Phase::Backoff(_) => return,
            // Nobody knows when it runs again: whoever claims it is told.
            _ => {
                let refused = Err((BindError::NotRunning.reason(), BindError::NotRunning.message()));
                parcel.map(|parcel| parcel.outcome.send_replace(Some(refused)));
                return;
            }
        }
        let before = self.progress.binding.as_ref().filter(|before| before.claim_id == binding.claim_id);
        if let Some(done) = before.filter(|before| before.bound) {
            let bound = Bound { hook_exit_code: done.hook_exit_code, ..Bound::default() };
            parcel.map(|parcel| parcel.outcome.send_replace(Some(Ok(bound))));
            return;
        }
        if parcel.is_none() && self.given_up.as_ref() == Some(&binding.claim_id) {
            return;
        }
        let claim_id = binding.claim_id.clone();
        let first_bound_at = before.map_or(0, |before| before.bound_at_unix_ms);
        let bind = Bind {
            desired: desired.clone(),
            first_id: self.record.first_id,
            display_number: self.record.display_number,
            binding,
            parcel: parcel.clone(),
            needs_files: desired.brings_files && first_bound_at == 0,
        };
        let result = self.bind_until_interrupted(bind).await;
        self.given_up = result.is_err().then(|| claim_id.clone());
        let state = BindingState {
            bound: result.is_ok(),
            hook_exit_code: result.as_ref().ok().and_then(|bound| bound.hook_exit_code),
            bound_at_unix_ms: if result.is_ok() { unix_ms() } else { first_bound_at },
            claim_id,
        };
        tracing::info!(sandbox = %desired.id, claim = %state.claim_id, bound = state.bound, "claim was bound");
        self.progress.binding = Some(state);
        self.publisher.recovery(&self.progress);
        let outcome: Outcome = result.map_err(|error| (error.reason(), error.message()));
        self.publisher.phase(desired, phase);
        if let Err((reason, message)) = &outcome {
            tracing::warn!(sandbox = %desired.id, reason, message, "claim cannot be bound");
            self.publisher.note(reason, message.clone());
        }
        parcel.map(|parcel| parcel.outcome.send_replace(Some(outcome)));
        // After the answer: a daemon that is killed before this finds the
        // receipt beside what it laid out.
        fault::pass("claim.answered");
        self.save().await;
        fault::pass("claim.kept");
    }

    /// A stop, a deletion or an end of the workload does not wait for a hook.
    async fn bind_until_interrupted(&mut self, bind: Bind) -> Result<Bound, BindError> {
        let services = self.services.clone();
        let mut wishes = self.desired.clone();
        let mut watch = self.watch(&services, CancellationToken::new());
        // Cancel-safe: what was laid out is laid out again, a wish and a hint
        // stay in their channels.
        tokio::select! {
            biased;
            result = services.runtime.bind(bind) => result,
            Ok(_) = wishes.wait_for(|desired| desired.run_state != RunState::Running) => Err(BindError::NotRunning),
            _ended = watch.ended() => Err(BindError::NotRunning),
        }
    }
}
