//! Which requests of a local caller are taken, and what they make of the
//! wish. Pure: no locks, no time, no I/O.

use roost_proto::model::{FieldError, Phase, RunState, SandboxSpec, UpdateSandbox, Validate};

use super::expiry::LifeClock;
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
    /// It is to stand still.
    Pause,
    /// It is to go on.
    Resume,
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
    /// It does not run.
    NotRunning,
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
    if request == Request::Pause {
        return decide_pause(desired, phase);
    }
    let run_state = match request {
        Request::Start | Request::Restart => RunState::Running,
        Request::Resume | Request::Pause => desired.run_state,
        Request::Stop => RunState::Stopped,
        Request::Delete => RunState::Deleted,
    };
    let restart = request == Request::Restart;
    // Not what the wish says: a failure, maybe one that is being cleared away,
    // or a time that was over.
    let differs = match request {
        Request::Start => {
            backs_off || matches!(phase, Phase::Failed | Phase::Stopping | Phase::Stopped | Phase::Paused)
        }
        Request::Resume => phase == Phase::Paused,
        _ => false,
    };
    if desired.run_state == run_state && !desired.paused && !restart && !differs {
        return Decision::Ignore;
    }
    let wish = Desired {
        run_state,
        paused: false,
        generation: desired.generation + 1,
        restart_count: desired.restart_count + u64::from(restart),
        ..desired.clone()
    };
    Decision::Accept(Box::new(wish.following(desired)))
}

fn decide_pause(desired: &Desired, phase: Phase) -> Decision {
    if desired.run_state != RunState::Running || matches!(phase, Phase::Failed | Phase::Stopped) {
        return Decision::Deny(DeniedReason::NotRunning);
    }
    if desired.paused || phase == Phase::Paused {
        return Decision::Ignore;
    }
    let wish = Desired { paused: true, generation: desired.generation + 1, ..desired.clone() };
    Decision::Accept(Box::new(wish.following(desired)))
}

/// Decides on a change of requests, limits and times; `now_ms`: node time.
///
/// # Errors
/// Every rule that the result would break.
pub fn decide_update(change: &UpdateSandbox, desired: &Desired, now_ms: u64) -> Result<Decision, Vec<FieldError>> {
    if desired.origin == Origin::Central {
        return Ok(Decision::Deny(DeniedReason::OwnedByCentral));
    }
    if desired.run_state == RunState::Deleted {
        return Ok(Decision::Deny(DeniedReason::Deleting));
    }
    change.validate()?;
    let mut wish = Desired { generation: desired.generation + 1, ..desired.clone() };
    if let Some(change) = &change.resources {
        let resources = change.apply(desired.resources())?;
        if resources != *desired.resources() {
            wish.resources = Some(resources);
        }
    }
    if let Some(change) = &change.lifetime {
        let lifetime = change.apply(desired.lifetime())?;
        if lifetime != *desired.lifetime() {
            wish.lifetime = Some(lifetime);
            // Made by a daemon that knew no lifetimes: it counts from now on.
            let begins = || (wish.origin != Origin::Pool).then(|| LifeClock::begin(now_ms));
            wish.clock = wish.clock.or_else(begins);
        }
        wish = if change.ttl_ms.is_some() { with_new_ttl(wish, now_ms) } else { wish };
    }
    let is_same = *desired == Desired { generation: desired.generation, ..wish.clone() };
    if is_same {
        return Ok(Decision::Ignore);
    }
    Ok(Decision::Accept(Box::new(wish.following(desired))))
}

/// The time to live counts from now on, unless a pool has the sandbox.
fn with_new_ttl(wish: Desired, now_ms: u64) -> Desired {
    let clock = (wish.origin != Origin::Pool).then(|| LifeClock::with_new_ttl(wish.clock, now_ms));
    Desired { ttl_count: wish.ttl_count + 1, clock, ..wish }
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
    use roost_proto::model::{LifetimeChange, ResourcesChange};

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
        let change = |pids| UpdateSandbox {
            resources: Some(ResourcesChange { pids_limit: Some(pids), ..ResourcesChange::default() }),
            lifetime: None,
        };
        let before = local(RunState::Running);
        let after = accepted(decide_update(&change(300), &before, 0).unwrap());
        assert_eq!((after.generation, after.resources().pids_limit), (before.generation + 1, 300));
        assert!(is_repetition(&after, &before.spec));
        assert_eq!(after.asked(), before.asked(), "it is no wish to start");
        assert_eq!(decide_update(&change(300), &after, 0), Ok(Decision::Ignore));
        assert_eq!(decide_update(&change(1), &after, 0).unwrap_err()[0].field, "resources.pids_limit");
        let of_central = Desired { origin: Origin::Central, ..before };
        assert_eq!(decide_update(&change(300), &of_central, 0), Ok(Decision::Deny(DeniedReason::OwnedByCentral)));
    }

    #[test]
    fn a_new_time_to_live_counts_from_now_on_even_if_it_is_the_same() {
        let ttl = |ttl_ms| UpdateSandbox {
            resources: None,
            lifetime: Some(LifetimeChange { ttl_ms: Some(ttl_ms), ..LifetimeChange::default() }),
        };
        let before = Desired { clock: Some(LifeClock::begin(5)), ..local(RunState::Running) };
        let first = accepted(decide_update(&ttl(60_000), &before, 100).unwrap());
        assert_eq!(first.clock, Some(LifeClock { began_ms: 5, ttl_from_ms: 100 }));
        assert_eq!((first.lifetime().ttl_ms, first.ttl_count, first.asked()), (60_000, 1, before.asked()));
        let second = accepted(decide_update(&ttl(60_000), &first, 200).unwrap());
        assert_eq!((second.clock.unwrap().ttl_from_ms, second.ttl_count), (200, 2));
        assert_eq!(decide_update(&ttl(1), &first, 0).unwrap_err()[0].field, "lifetime.ttl_ms");
        let nothing = UpdateSandbox { resources: None, lifetime: None };
        assert_eq!(decide_update(&nothing, &first, 0).unwrap_err()[0].field, "resources");
    }

    #[test]
    fn only_what_runs_is_paused_and_anything_but_a_delete_lets_it_go_on() {
        let running = local(RunState::Running);
        let paused = accepted(decide(Request::Pause, &running, Phase::Ready, false));
        assert!(paused.paused && paused.generation == running.generation + 1);
        assert_eq!(decide(Request::Pause, &paused, Phase::Paused, false), Decision::Ignore);
        let denied = Decision::Deny(DeniedReason::NotRunning);
        assert_eq!(decide(Request::Pause, &local(RunState::Stopped), Phase::Stopped, false), denied);
        assert_eq!(decide(Request::Pause, &running, Phase::Failed, false), denied);
        for request in [Request::Resume, Request::Start, Request::Stop, Request::Restart] {
            let after = accepted(decide(request, &paused, Phase::Paused, false));
            assert!(!after.paused, "{request:?}");
            assert_eq!(after.asked(), after.generation, "{request:?}");
        }
        assert_eq!(decide(Request::Resume, &running, Phase::Ready, false), Decision::Ignore);
    }

    #[test]
    fn what_an_idle_timeout_stopped_or_paused_is_started_again() {
        let wanted = local(RunState::Running);
        for (request, phase) in
            [(Request::Start, Phase::Stopped), (Request::Start, Phase::Paused), (Request::Resume, Phase::Paused)]
        {
            let after = accepted(decide(request, &wanted, phase, false));
            assert_eq!(after.generation, wanted.generation + 1, "{request:?} {phase}");
        }
    }

    #[test]
    fn nothing_brings_a_deleted_sandbox_back() {
        for request in [Request::Start, Request::Stop, Request::Restart, Request::Pause, Request::Resume] {
            let decision = decide(request, &local(RunState::Deleted), Phase::Deleting, false);
            assert_eq!(decision, Decision::Deny(DeniedReason::Deleting));
        }
    }
}
