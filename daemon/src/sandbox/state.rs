//! Where a sandbox is, and which step comes next. Pure.
//!
//! ```text
//!             ┌──────────────── start ────────────────┐
//!             ▼                                       │
//! Pending ─► Starting ─► Ready ─► Stopping ─► Stopped ┘
//!             │  ▲         │         ▲
//!             ▼  │ newer   ▼         │ stop
//!            Failed ◄── a part died ─┘
//!
//! any ─► Deleting ─► Gone
//! ```
//!
//! - Pending → Starting: desired Running.
//! - Starting → Ready: every stage passed. → Failed: a stage failed for good
//!   or took too long. → Stopping, Deleting: the wish changed; the start is
//!   given up between two stages.
//! - Ready → Stopping: desired Stopped, or one more restart is asked for.
//!   → Failed: the workload or the display server ended by itself.
//! - Failed → Starting: a newer generation still wants it Running.
//! - Stopped → Starting: desired Running.
//! - Gone is final: nothing of the sandbox is left on the node.

use roost_proto::model::{self, RunState};

use super::Desired;
use crate::reconcile::ledger::Failure;

/// Where a sandbox is, with what is valid there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has begun.
    Pending,
    /// A start is under way.
    Starting,
    /// Every stage passed.
    Ready,
    /// A stop is under way.
    Stopping,
    /// No process; files are kept.
    Stopped,
    /// No process; files are kept; why.
    Failed(Failure),
    /// Removal is under way.
    Deleting,
    /// Nothing is left.
    Gone,
}

impl Phase {
    /// The phase as the outside sees it.
    #[must_use]
    pub fn outside(&self) -> model::Phase {
        match self {
            Self::Pending => model::Phase::Pending,
            Self::Starting => model::Phase::Starting,
            Self::Ready => model::Phase::Ready,
            Self::Stopping => model::Phase::Stopping,
            Self::Stopped => model::Phase::Stopped,
            Self::Failed(_) => model::Phase::Failed,
            Self::Deleting => model::Phase::Deleting,
            Self::Gone => model::Phase::Gone,
        }
    }
}

/// What a driver does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: wait for a change.
    Rest,
    /// Bring it to Ready.
    Start,
    /// End its processes, keep its files.
    Stop,
    /// Remove everything.
    Delete,
}

/// The next step from `phase` towards `desired`.
///
/// `restarts_done` counts the restarts that were carried out.
#[must_use]
pub fn next_step(desired: &Desired, phase: &Phase, restarts_done: u64) -> Step {
    match (desired.run_state, phase) {
        (_, Phase::Gone) | (RunState::Stopped, Phase::Stopped) => Step::Rest,
        (RunState::Deleted, _) => Step::Delete,
        (RunState::Stopped, _) => Step::Stop,
        (RunState::Running, Phase::Ready) if desired.restart_count > restarts_done => Step::Stop,
        (RunState::Running, Phase::Ready) => Step::Rest,
        (RunState::Running, Phase::Failed(failure)) if desired.generation <= failure.generation => Step::Rest,
        (RunState::Running, _) => Step::Start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::ledger::{Record, decode};
    use proptest::prelude::*;

    fn desired(run_state: RunState, generation: u64, restart_count: u64) -> Desired {
        let golden = include_str!("../reconcile/ledger/golden/record-v1.json");
        let record: Record = decode(golden.as_bytes()).unwrap();
        Desired { run_state, generation, restart_count, ..record.desired }
    }

    fn failed(generation: u64) -> Phase {
        Phase::Failed(Failure { reason: "x".into(), message: String::new(), stage: None, exit_code: None, generation })
    }

    #[test]
    fn a_failure_stands_until_a_newer_generation_wants_it_running() {
        assert_eq!(next_step(&desired(RunState::Running, 3, 0), &failed(3), 0), Step::Rest);
        assert_eq!(next_step(&desired(RunState::Running, 4, 0), &failed(3), 0), Step::Start);
    }

    #[test]
    fn a_restart_is_a_stop_and_then_a_start() {
        let desired = desired(RunState::Running, 2, 1);
        assert_eq!(next_step(&desired, &Phase::Ready, 0), Step::Stop);
        assert_eq!(next_step(&desired, &Phase::Stopped, 0), Step::Start);
        assert_eq!(next_step(&desired, &Phase::Ready, 1), Step::Rest);
    }

    #[test]
    fn deletion_wins_from_every_phase_but_gone() {
        let desired = desired(RunState::Deleted, 9, 9);
        for phase in [
            Phase::Pending,
            Phase::Starting,
            Phase::Ready,
            Phase::Stopping,
            Phase::Stopped,
            failed(99),
            Phase::Deleting,
        ] {
            assert_eq!(next_step(&desired, &phase, 0), Step::Delete, "{phase:?}");
        }
        assert_eq!(next_step(&desired, &Phase::Gone, 0), Step::Rest);
    }

    /// What the steps do to the phase, when every step succeeds.
    fn take(step: Step, desired: &Desired, phase: Phase, restarts_done: &mut u64) -> Phase {
        match step {
            Step::Rest => phase,
            Step::Start => {
                *restarts_done = desired.restart_count;
                Phase::Ready
            }
            Step::Stop => Phase::Stopped,
            Step::Delete => Phase::Gone,
        }
    }

    proptest! {
        #[test]
        fn any_order_of_wishes_converges_to_the_last_one(
            wishes in prop::collection::vec((0..3_u8, any::<bool>(), 0..3_usize), 1..20)
        ) {
            let (mut phase, mut restarts_done) = (Phase::Pending, 0);
            let (mut generation, mut restart_count, mut deleted) = (0, 0, false);
            for (run_state, restart, steps) in wishes {
                generation += 1;
                restart_count += u64::from(restart);
                deleted |= run_state == 2;
                let run_state = match run_state { _ if deleted => RunState::Deleted, 0 => RunState::Running, _ => RunState::Stopped };
                let wish = desired(run_state, generation, restart_count);
                // A wish may be overtaken by the next before it is carried out.
                for _ in 0..steps {
                    phase = take(next_step(&wish, &phase, restarts_done), &wish, phase, &mut restarts_done);
                }
            }
            let last = desired(if deleted { RunState::Deleted } else { RunState::Running }, generation + 1, restart_count);
            for _ in 0..3 {
                phase = take(next_step(&last, &phase, restarts_done), &last, phase, &mut restarts_done);
            }
            prop_assert_eq!(phase, if deleted { Phase::Gone } else { Phase::Ready });
        }
    }
}
