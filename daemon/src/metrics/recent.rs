//! The last starts of the node, each with its stages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::id::SandboxId;
use roost_proto::model::StartRecord;

/// Starts that are kept: enough for a p99, about half a MiB.
const MAX_STARTS: usize = 1024;

/// A ring of starts; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentStarts {
    kept: Arc<Mutex<VecDeque<StartRecord>>>,
}

impl RecentStarts {
    pub(super) fn push(&self, start: StartRecord) {
        let mut kept = self.kept();
        if kept.len() >= MAX_STARTS {
            kept.pop_front();
        }
        kept.push_back(start);
    }

    /// The latest `last` starts (all without), the oldest first.
    pub(super) fn last(&self, sandbox: Option<&SandboxId>, last: Option<usize>) -> Vec<StartRecord> {
        let kept = self.kept();
        let is_meant = |start: &&StartRecord| sandbox.is_none_or(|id| start.sandbox_id == *id);
        let mut found: Vec<_> = kept.iter().rev().filter(is_meant).take(last.unwrap_or(MAX_STARTS)).cloned().collect();
        found.reverse();
        found
    }

    /// A panic while the lock is held leaves the ring whole.
    fn kept(&self) -> MutexGuard<'_, VecDeque<StartRecord>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(id: &SandboxId, at: u64) -> StartRecord {
        StartRecord {
            sandbox_id: id.clone(),
            name: None,
            template: "bare".parse().unwrap(),
            ended_at_unix_ms: at,
            failure: None,
            stages: Vec::new(),
        }
    }

    #[test]
    fn the_latest_starts_are_kept_and_told_in_their_order() {
        let (recent, one, two) = (RecentStarts::default(), SandboxId::random(), SandboxId::random());
        for at in 0..2000 {
            recent.push(start(if at % 2 == 0 { &one } else { &two }, at));
        }
        let times = |starts: Vec<StartRecord>| starts.iter().map(|s| s.ended_at_unix_ms).collect::<Vec<_>>();
        assert_eq!(recent.last(None, None).len(), MAX_STARTS);
        assert_eq!(times(recent.last(None, Some(2))), [1998, 1999]);
        assert_eq!(times(recent.last(Some(&one), Some(2))), [1996, 1998]);
    }
}
