//! Limits of a sandbox that runs, brought to what is wanted.
//!
//! Level-triggered: the driver compares what is in force with what is wanted
//! whenever it comes to rest, after an adoption too. What the kernel refuses
//! is said beside the phase and tried again, as what is in use may shrink.

use std::time::Duration;

use roost_proto::model::Resources;

use super::failure::chain;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroup::InUse;

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
}
