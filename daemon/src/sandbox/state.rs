//! Where a sandbox is, and which step comes next. Pure.
//!
//! ```text
//!             ┌──────────────── start ────────────────┐
//!             ▼                                       │
//! Pending ─► Starting ─► Ready ─► Stopping ─► Stopped ┘
//!             │  ▲       ▲ │ ▲       ▲
//!             │  │ Paused ─┘ │       │
//!             ▼  │ newer   ▼         │ stop
//!            Failed ◄── a part ended ┤
//!                          │ policy  │
//!                          ▼         │
//!            Starting ◄─ Backoff ────┘
//!
//! any ─► Deleting ─► Gone
//! ```
//!
//! - Pending → Starting: desired Running.
//! - Starting → Ready: every stage passed. → Failed: a stage failed for good
//!   or took too long. → Stopping, Deleting: the wish changed; the start is
//!   given up between two stages.
//! - Ready → Stopping: desired Stopped, or one more restart is asked for.
//!   → Failed, Backoff: a part ended by itself; [`super::restart`] says which.
//! - Backoff → Starting: its time came, or somebody asked and does not wait.
//!   → Stopping, Deleting: the wish changed. → Backoff, Failed: one more part
//!   ended meanwhile. The outside sees it as Starting.
//! - Ready → Paused: it is to stand still. → Ready: it is not any more.
//!   → Stopping, Deleting, Failed, Backoff: as from Ready.
//! - Failed → Starting: somebody asked again, and it is wanted Running. New
//!   requests and limits alone ask for nothing.
//! - Stopped → Starting: desired Running.
//! - Emptied: its time is over, and nothing of it is left but its record, until
//!   central has heard of that. The outside sees it as Deleting.
//! - Gone is final: nothing of the sandbox is left on the node.

use roost_proto::model::{self, RunState};

use super::Desired;
use super::restart::Scope;
use crate::reconcile::ledger::{Comeback, Failure};

/// Where a sandbox is, with what is valid there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has begun.
    Pending,
    /// A start is under way.
    Starting,
    /// Every stage passed.
    Ready,
    /// Its processes stand still.
    Paused,
    /// A part ended; what ended with it is made again at a time.
    Backoff(Comeback),
    /// A stop is under way.
    Stopping,
    /// No process; files are kept.
    Stopped,
    /// No process; files are kept; why.
    Failed(Failure),
    /// Removal is under way.
    Deleting,
    /// Nothing is left but the record: central does not know yet.
    Emptied,
    /// Nothing is left.
    Gone,
}

impl Phase {
    /// The phase as the outside sees it.
    #[must_use]
    pub fn outside(&self) -> model::Phase {
        match self {
            Self::Pending => model::Phase::Pending,
            Self::Starting | Self::Backoff(_) => model::Phase::Starting,
            Self::Ready => model::Phase::Ready,
            Self::Stopping => model::Phase::Stopping,
            Self::Stopped => model::Phase::Stopped,
            Self::Failed(_) => model::Phase::Failed,
            Self::Paused => model::Phase::Paused,
            Self::Deleting | Self::Emptied => model::Phase::Deleting,
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
    /// Make this much of it again; what is not named stays.
    Again(Scope),
    /// Make its processes stand still.
    Pause,
    /// Let its processes go on.
    Resume,
    /// End its processes, keep its files.
    Stop,
    /// Remove everything.
    Delete,
}

/// The next step from `phase` towards `desired`.
///
/// `restarts_done` counts the restarts that were asked for and carried out;
/// `is_due`: the time of a restart that is waited for came.
#[must_use]
pub fn next_step(desired: &Desired, phase: &Phase, restarts_done: u64, is_due: bool) -> Step {
    match (desired.run_state, phase) {
        (_, Phase::Gone) | (RunState::Stopped, Phase::Stopped) => Step::Rest,
        (RunState::Deleted, _) => Step::Delete,
        (RunState::Stopped, _) => Step::Stop,
        (RunState::Running, Phase::Ready | Phase::Paused | Phase::Backoff(_))
            if desired.restart_count > restarts_done =>
        {
            Step::Stop
        }
        (RunState::Running, Phase::Ready) if desired.paused => Step::Pause,
        (RunState::Running, Phase::Paused) if !desired.paused => Step::Resume,
        (RunState::Running, Phase::Ready | Phase::Paused) => Step::Rest,
        (RunState::Running, Phase::Failed(failure)) if desired.asked() <= failure.generation => Step::Rest,
        (RunState::Running, Phase::Backoff(comeback)) => {
            if is_due || desired.asked() > comeback.generation {
                Step::Again(comeback.scope)
            } else {
                Step::Rest
            }
        }
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
        Desired { run_state, generation, restart_count, ..Desired::clone(&record.desired) }
    }

    /// Any moment.
    const NOW: u64 = 1_795_250_000_000;

    fn comeback(at_unix_ms: u64, generation: u64) -> Comeback {
        Comeback { scope: Scope::Workload, at_unix_ms, message: String::new(), generation }
    }

    fn backoff(at_unix_ms: u64, generation: u64) -> Phase {
        Phase::Backoff(comeback(at_unix_ms, generation))
    }

    fn failed(generation: u64) -> Phase {
        Phase::Failed(Failure { reason: "x".into(), message: String::new(), stage: None, exit_code: None, generation })
    }

    #[test]
    fn a_failure_stands_until_a_newer_generation_wants_it_running() {
        assert_eq!(next_step(&desired(RunState::Running, 3, 0), &failed(3), 0, false), Step::Rest);
        assert_eq!(next_step(&desired(RunState::Running, 4, 0), &failed(3), 0, false), Step::Start);
    }

    #[test]
    fn new_limits_neither_start_what_has_failed_nor_end_a_wait() {
        let set = Desired { asked_generation: Some(3), ..desired(RunState::Running, 5, 0) };
        assert_eq!(next_step(&set, &failed(3), 0, false), Step::Rest);
        assert_eq!(next_step(&set, &backoff(NOW + 1, 3), 0, false), Step::Rest);
        let asked = Desired { asked_generation: Some(4), ..set };
        assert_eq!(next_step(&asked, &failed(3), 0, false), Step::Start);
        assert_eq!(next_step(&asked, &backoff(NOW + 1, 3), 0, false), Step::Again(Scope::Workload));
    }

    #[test]
    fn a_restart_is_a_stop_and_then_a_start() {
        let desired = desired(RunState::Running, 2, 1);
        assert_eq!(next_step(&desired, &Phase::Ready, 0, false), Step::Stop);
        assert_eq!(next_step(&desired, &Phase::Stopped, 0, false), Step::Start);
        assert_eq!(next_step(&desired, &Phase::Ready, 1, false), Step::Rest);
    }

    #[test]
    fn deletion_wins_from_every_phase_but_gone() {
        let desired = desired(RunState::Deleted, 9, 9);
        for phase in [
            Phase::Pending,
            Phase::Starting,
            Phase::Ready,
            Phase::Paused,
            Phase::Stopping,
            Phase::Stopped,
            failed(99),
            backoff(NOW + 1, 99),
            Phase::Deleting,
        ] {
            assert_eq!(next_step(&desired, &phase, 0, true), Step::Delete, "{phase:?}");
        }
        assert_eq!(next_step(&desired, &Phase::Gone, 0, true), Step::Rest);
    }

    #[test]
    fn a_pause_is_taken_back_by_a_resume_and_ended_by_a_stop_or_a_restart() {
        let paused = Desired { paused: true, ..desired(RunState::Running, 2, 0) };
        assert_eq!(next_step(&paused, &Phase::Ready, 0, false), Step::Pause);
        assert_eq!(next_step(&paused, &Phase::Paused, 0, false), Step::Rest);
        assert_eq!(next_step(&desired(RunState::Running, 3, 0), &Phase::Paused, 0, false), Step::Resume);
        assert_eq!(next_step(&desired(RunState::Stopped, 3, 0), &Phase::Paused, 0, false), Step::Stop);
        assert_eq!(next_step(&desired(RunState::Running, 3, 1), &Phase::Paused, 0, false), Step::Stop);
        assert_eq!(next_step(&paused, &Phase::Stopped, 0, false), Step::Start, "it runs before it stands still");
    }

    #[test]
    fn a_backoff_lasts_until_its_time_or_a_newer_wish() {
        let same = desired(RunState::Running, 3, 0);
        assert_eq!(next_step(&same, &backoff(NOW + 1, 3), 0, false), Step::Rest);
        assert_eq!(next_step(&same, &backoff(NOW, 3), 0, true), Step::Again(Scope::Workload));
        let newer = desired(RunState::Running, 4, 0);
        assert_eq!(next_step(&newer, &backoff(NOW + 1, 3), 0, false), Step::Again(Scope::Workload));
    }

    #[test]
    fn a_stop_or_an_asked_restart_does_not_wait_for_a_backoff() {
        let waiting = backoff(NOW + 1_000_000, 3);
        assert_eq!(next_step(&desired(RunState::Stopped, 4, 0), &waiting, 0, false), Step::Stop);
        assert_eq!(next_step(&desired(RunState::Running, 4, 1), &waiting, 0, false), Step::Stop);
        assert_eq!(next_step(&desired(RunState::Running, 3, 0), &waiting, 0, false), Step::Rest);
    }

    /// A sandbox whose steps succeed and whose parts end at any time.
    struct Played {
        phase: Phase,
        restarts_done: u64,
        now: u64,
        /// Times at which something was made again.
        again_at: Vec<u64>,
    }

    impl Played {
        fn step(&mut self, desired: &Desired) {
            let is_due = matches!(&self.phase, Phase::Backoff(comeback) if comeback.at_unix_ms <= self.now);
            self.phase = match next_step(desired, &self.phase, self.restarts_done, is_due) {
                Step::Rest => return,
                Step::Start => {
                    self.restarts_done = desired.restart_count;
                    Phase::Ready
                }
                Step::Again(_) => {
                    self.again_at.push(self.now);
                    Phase::Ready
                }
                Step::Pause => Phase::Paused,
                Step::Resume => Phase::Ready,
                Step::Stop => Phase::Stopped,
                Step::Delete => Phase::Gone,
            }
        }

        /// A part ends; what is not running cannot.
        fn end(&mut self, scope: Scope, wait_ms: Option<u64>, generation: u64) {
            let scope = match &self.phase {
                Phase::Ready | Phase::Paused => scope,
                Phase::Backoff(comeback) => comeback.scope.max(scope),
                _ => return,
            };
            self.phase = match wait_ms {
                None => failed(generation),
                Some(ms) => Phase::Backoff(Comeback { scope, ..comeback(self.now + ms, generation) }),
            };
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Wish { run_state: u8, restart: bool, paused: bool },
        End { scope: Scope, wait_ms: Option<u64> },
        Step,
        Time(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let scope = prop_oneof![Just(Scope::WindowManager), Just(Scope::Workload), Just(Scope::Sandbox)];
        prop_oneof![
            (0..3_u8, any::<bool>(), any::<bool>()).prop_map(|(run_state, restart, paused)| Event::Wish {
                run_state,
                restart,
                paused
            }),
            (scope, prop::option::of(1..5_000_u64)).prop_map(|(scope, wait_ms)| Event::End { scope, wait_ms }),
            Just(Event::Step),
            (0..3_000_u64).prop_map(Event::Time),
        ]
    }

    proptest! {
        #[test]
        fn any_order_of_wishes_ends_and_times_converges_to_the_last_wish(
            events in prop::collection::vec(event(), 1..60)
        ) {
            let mut played = Played { phase: Phase::Pending, restarts_done: 0, now: NOW, again_at: Vec::new() };
            let mut wish = desired(RunState::Running, 1, 0);
            for event in events {
                match event {
                    Event::Wish { run_state, restart, paused } => {
                        wish.generation += 1;
                        wish.paused = paused;
                        wish.restart_count += u64::from(restart);
                        wish.run_state = match run_state {
                            _ if wish.run_state == RunState::Deleted => RunState::Deleted,
                            0 => RunState::Running,
                            1 => RunState::Stopped,
                            _ => RunState::Deleted,
                        };
                    }
                    Event::End { scope, wait_ms } => played.end(scope, wait_ms, wish.generation),
                    Event::Step => played.step(&wish),
                    Event::Time(ms) => played.now += ms,
                }
            }
            // Nothing ends any more, and somebody asks once more.
            wish.generation += 1;
            for _ in 0..4 {
                played.now += 5_000;
                played.step(&wish);
            }
            let expected = match wish.run_state {
                RunState::Running if wish.paused => Phase::Paused,
                RunState::Running => Phase::Ready,
                RunState::Stopped => Phase::Stopped,
                RunState::Deleted => Phase::Gone,
            };
            prop_assert_eq!(played.phase, expected);
        }

        #[test]
        fn a_crash_loop_makes_no_more_than_one_restart_a_wait(wait_ms in 1..500_u64, turns in 1..2_000_u64) {
            let mut played = Played { phase: Phase::Ready, restarts_done: 0, now: NOW, again_at: Vec::new() };
            let wish = desired(RunState::Running, 1, 0);
            for _ in 0..turns {
                if played.phase == Phase::Ready {
                    played.end(Scope::Workload, Some(wait_ms), 1);
                }
                played.step(&wish);
                played.now += 1;
            }
            let gaps: Vec<u64> = played.again_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
            prop_assert!(gaps.iter().all(|gap| *gap >= wait_ms), "{gaps:?}");
        }
    }
}
