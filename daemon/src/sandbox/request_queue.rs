//! Which requests of a local caller are taken, and what they make of the
//! wish. Pure: no locks, no time, no I/O.

use roost_proto::convert::InvalidMessage;
use roost_proto::model::{Phase, ResourcesChange, RunState, SandboxSpec};

use super::{Desired, Origin};

/// What a local caller asks of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// It is to run; a failed one tries again.
    Start,
    /// It is to stop.
    Stop,
    /// It is to stop and run again.
    Restart,
    /// It is to go.
    Delete,
}

/// Why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedReason {
    /// Central owns the sandbox.
    OwnedByCentral,
    /// The sandbox is being deleted.
    Deleting,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The new wish.
    Accept(Box<Desired>),
    /// The wish is that already.
    Ignore,
    /// Not now, not ever.
    Deny(DeniedReason),
}

/// Decides on a request about an existing sandbox that was seen in `phase`;
/// `backs_off`: it waits for a restart.
#[must_use]
pub fn decide(request: Request, desired: &Desired, phase: Phase, backs_off: bool) -> Decision {
    if desired.origin == Origin::Central {
        return Decision::Deny(DeniedReason::OwnedByCentral);
    }
    if desired.run_state == RunState::Deleted {
        return match request {
            Request::Delete => Decision::Ignore,
            _ => Decision::Deny(DeniedReason::Deleting),
        };
    }
    let run_state = match request {
        Request::Start | Request::Restart => RunState::Running,
        Request::Stop => RunState::Stopped,
        Request::Delete => RunState::Deleted,
    };
    let restart = request == Request::Restart;
    // Stopping while wanted Running is a failure that is being cleared away.
    let retry = request == Request::Start && (backs_off || matches!(phase, Phase::Failed | Phase::Stopping));
    if desired.run_state == run_state && !restart && !retry {
        return Decision::Ignore;
    }
    let wish = Desired {
        run_state,
        generation: desired.generation + 1,
        restart_count: desired.restart_count + u64::from(restart),
        ..desired.clone()
    };
    Decision::Accept(Box::new(wish.following(desired)))
}

/// Decides on a change of requests and limits.
///
/// # Errors
/// Every rule that the result would break.
pub fn decide_resources(change: &ResourcesChange, desired: &Desired) -> Result<Decision, InvalidMessage> {
    if desired.origin == Origin::Central {
        return Ok(Decision::Deny(DeniedReason::OwnedByCentral));
    }
    if desired.run_state == RunState::Deleted {
        return Ok(Decision::Deny(DeniedReason::Deleting));
    }
    let resources = change.apply(desired.resources()).map_err(InvalidMessage)?;
    if resources == *desired.resources() {
        return Ok(Decision::Ignore);
    }
    let generation = desired.generation + 1;
    let wish = Desired { resources: Some(resources), generation, ..desired.clone() };
    Ok(Decision::Accept(Box::new(wish.following(desired))))
}

/// Whether creating `id` again with this spec is a repetition of the same
/// request (true) or a conflict (false).
#[must_use]
pub fn is_repetition(existing: &Desired, spec: &SandboxSpec) -> bool {
    existing.origin == Origin::Local && existing.run_state != RunState::Deleted && existing.spec == *spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::ledger::{Record, decode};

    fn local(run_state: RunState) -> Desired {
        let golden = include_str!("../reconcile/ledger/golden/record-v1.json");
        let record: Record = decode(golden.as_bytes()).unwrap();
        Desired { run_state, origin: Origin::Local, ..Desired::clone(&record.desired) }
    }

    fn accepted(decision: Decision) -> Desired {
        match decision {
            Decision::Accept(desired) => *desired,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_central_owns_is_not_changed_locally() {
        let desired = Desired { origin: Origin::Central, ..local(RunState::Running) };
        for request in [Request::Start, Request::Stop, Request::Restart, Request::Delete] {
            assert_eq!(decide(request, &desired, Phase::Ready, false), Decision::Deny(DeniedReason::OwnedByCentral));
        }
    }

    #[test]
    fn repeated_requests_are_ignored() {
        assert_eq!(decide(Request::Start, &local(RunState::Running), Phase::Ready, false), Decision::Ignore);
        assert_eq!(decide(Request::Stop, &local(RunState::Stopped), Phase::Stopped, false), Decision::Ignore);
        assert_eq!(decide(Request::Delete, &local(RunState::Deleted), Phase::Deleting, false), Decision::Ignore);
    }

    #[test]
    fn starting_a_failed_sandbox_is_a_new_wish() {
        let before = local(RunState::Running);
        let after = accepted(decide(Request::Start, &before, Phase::Failed, false));
        assert_eq!(after.generation, before.generation + 1);
        assert_eq!(after.restart_count, before.restart_count);
    }

    #[test]
    fn starting_a_sandbox_that_waits_for_a_restart_is_a_new_wish() {
        let before = local(RunState::Running);
        let after = accepted(decide(Request::Start, &before, Phase::Starting, true));
        assert_eq!(after.generation, before.generation + 1);
        assert_eq!(after.restart_count, before.restart_count, "the display stays");
    }

    #[test]
    fn a_restart_of_a_stopped_sandbox_starts_it() {
        let after = accepted(decide(Request::Restart, &local(RunState::Stopped), Phase::Stopped, false));
        assert_eq!(after.run_state, RunState::Running);
    }

    #[test]
    fn new_limits_are_a_new_wish_and_the_spec_stays_as_it_was() {
        let change = |pids| ResourcesChange { pids_limit: Some(pids), ..ResourcesChange::default() };
        let before = local(RunState::Running);
        let after = accepted(decide_resources(&change(300), &before).unwrap());
        assert_eq!((after.generation, after.resources().pids_limit), (before.generation + 1, 300));
        assert!(is_repetition(&after, &before.spec));
        assert_eq!(after.asked(), before.asked(), "it is no wish to start");
        assert_eq!(decide_resources(&change(300), &after), Ok(Decision::Ignore));
        assert_eq!(decide_resources(&change(1), &after).unwrap_err().0[0].field, "resources.pids_limit");
        let of_central = Desired { origin: Origin::Central, ..before };
        assert_eq!(decide_resources(&change(300), &of_central), Ok(Decision::Deny(DeniedReason::OwnedByCentral)));
    }

    #[test]
    fn nothing_brings_a_deleted_sandbox_back() {
        for request in [Request::Start, Request::Stop, Request::Restart] {
            let decision = decide(request, &local(RunState::Deleted), Phase::Deleting, false);
            assert_eq!(decision, Decision::Deny(DeniedReason::Deleting));
        }
    }
}
