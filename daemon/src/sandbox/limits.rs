//! Limits of a sandbox that runs, brought to what is wanted.
//!
//! Level-triggered: the driver compares what is in force with what is wanted
//! whenever it comes to rest, after an adoption too. What the kernel refuses
//! is said beside the phase and tried again, as what is in use may shrink.

use std::time::Duration;

use roost_proto::model::Resources;

use super::failure::chain;
use super::{Desired, Origin};
use crate::host;
use crate::host::cgroup::LimitsSet;

/// Between two tries: each makes the kernel look for memory to reclaim.
const RETRY: Duration = Duration::from_secs(10);
/// Reason while a limit waits for what is in use to shrink.
const IN_USE: &str = "limits-in-use";
/// Reason while limits cannot be set.
const FAILED: &str = "limits-failed";

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// What is in force now, where it is known.
    pub in_force: Option<Resources>,
    /// Stable word and sentence, where it is not what is wanted.
    pub problem: Option<(&'static str, String)>,
    /// When to try again.
    pub retry: Option<Duration>,
}

/// Judges the answer of the runtime.
pub(super) fn judge(result: Result<LimitsSet, host::Error>) -> Attempt {
    match result {
        Ok(set) if set.refused.is_empty() => Attempt { in_force: Some(set.in_force), problem: None, retry: None },
        Ok(set) => {
            let refused: Vec<String> = set.refused.iter().map(ToString::to_string).collect();
            let message = format!(
                "{}: the old limit stays, and the new one is tried again; end something inside, or ask for more",
                refused.join("; ")
            );
            Attempt { in_force: Some(set.in_force), problem: Some((IN_USE, message)), retry: Some(RETRY) }
        }
        Err(error) => {
            let message = format!("{}: it is tried again; see the log of roostd", chain(&error));
            Attempt { in_force: None, problem: Some((FAILED, message)), retry: Some(RETRY) }
        }
    }
}

/// Whether a newer wish changes nothing but requests and limits: that is no
/// wish to start what has failed.
///
/// A local start of a failed sandbox changes the generation alone, so that of
/// a local sandbox only one step can be told.
pub(super) fn is_only_limits(before: &Desired, after: &Desired) -> bool {
    let one_step = after.generation == before.generation + 1 || after.origin == Origin::Central;
    one_step
        && before.resources() != after.resources()
        && before.run_state == after.run_state
        && before.restart_count == after.restart_count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroup::InUse;
    use crate::reconcile::ledger::{Record, decode};

    fn desired() -> Desired {
        let golden = include_str!("../reconcile/ledger/golden/record-v1.json");
        let record: Record = decode(golden.as_bytes()).unwrap();
        Desired { origin: Origin::Local, ..Desired::clone(&record.desired) }
    }

    #[test]
    fn a_refused_limit_is_told_with_both_numbers_and_tried_again() {
        let refused = InUse { what: "memory", wanted_bytes: 100, used_bytes: 300 };
        let set = LimitsSet { in_force: Resources::default(), refused: vec![refused] };
        let attempt = judge(Ok(set));
        let (reason, message) = attempt.problem.unwrap();
        assert_eq!((reason, attempt.in_force), ("limits-in-use", Some(Resources::default())));
        assert!(message.contains("100 bytes") && message.contains("300 bytes"), "{message}");
        assert!(attempt.retry.is_some());
    }

    #[test]
    fn new_limits_alone_do_not_start_what_has_failed() {
        let before = desired();
        let resources = Some(Resources { pids_limit: 77, ..Resources::default() });
        let set = Desired { resources, generation: before.generation + 1, ..before.clone() };
        assert!(is_only_limits(&before, &set));
        let started = Desired { generation: before.generation + 1, ..before.clone() };
        assert!(!is_only_limits(&before, &started));
        let both = Desired { generation: before.generation + 2, ..set.clone() };
        assert!(!is_only_limits(&before, &both));
        let restarted = Desired { restart_count: before.restart_count + 1, ..set };
        assert!(!is_only_limits(&before, &restarted));
    }
}
