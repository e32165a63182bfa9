//! Node time: for how long this node was up, over all its boots.
//!
//! Deadlines of sandboxes are kept in it. A wall clock that is set, by hours
//! and either way, does not move it; a restart of the daemon does not lose any
//! of it; of a reboot it loses what was not written down, a minute at most, and
//! the time that the node was off. So what is late is late by that, and nothing
//! ends early.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Manager;
use crate::reconcile::ledger::{Change, Ledger};

/// Between two times that are written down: what a power cut may cost.
const PERIOD: Duration = Duration::from_secs(60);

/// Node time as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uptime {
    /// Boot id of the kernel.
    pub boot_id: String,
    /// Node time at which that kernel's monotonic clock began, in milliseconds.
    pub base_ms: u64,
    /// Newest node time that was written down, in milliseconds.
    pub alive_ms: u64,
}

impl Uptime {
    /// Goes on with what is kept, on a kernel whose monotonic clock says
    /// `monotonic_ms`.
    #[must_use]
    pub fn resume(kept: Option<&Self>, boot_id: &str, monotonic_ms: u64) -> Self {
        let base_ms = match kept {
            Some(kept) if kept.boot_id == boot_id => kept.base_ms,
            Some(kept) => kept.alive_ms,
            None => 0,
        };
        Self { boot_id: boot_id.to_owned(), base_ms, alive_ms: base_ms.saturating_add(monotonic_ms) }
    }
}

/// The running node time; cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct NodeTime {
    zero: Instant,
    zero_ms: u64,
}

impl NodeTime {
    /// Node time that is `now_ms` now.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { zero: Instant::now(), zero_ms: now_ms }
    }

    /// Node time now, in milliseconds.
    #[must_use]
    pub fn now_ms(self) -> u64 {
        self.zero_ms + u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// How long it is until a node time; nothing if that is past.
    #[must_use]
    pub fn until(self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.now_ms()))
    }
}

/// Writes node time down once a minute, while a sandbox has a time that ends.
pub async fn keep(uptime: Uptime, ledger: Ledger, manager: Manager, shutdown: CancellationToken) {
    let time = manager.node_time();
    loop {
        // Cancel-safe: nothing but the time is waited for.
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = shutdown.cancelled() => return,
        }
        if !manager.has_deadlines() {
            continue;
        }
        let now = Uptime { alive_ms: time.now_ms(), ..uptime.clone() };
        if let Err(error) = ledger.commit(vec![Change::Uptime(now)]).await {
            tracing::warn!(%error, "node time could not be written down: after a reboot deadlines are later");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(boot_id: &str, base_ms: u64, alive_ms: u64) -> Uptime {
        Uptime { boot_id: boot_id.into(), base_ms, alive_ms }
    }

    #[test]
    fn a_restart_of_the_daemon_loses_nothing() {
        let first = Uptime::resume(None, "a", 5_000);
        assert_eq!(first.alive_ms, 5_000);
        assert_eq!(Uptime::resume(Some(&first), "a", 9_000_000).alive_ms, 9_000_000);
    }

    #[test]
    fn a_reboot_goes_on_where_it_was_written_down_last() {
        let before = kept("a", 1_000, 61_000);
        let after = Uptime::resume(Some(&before), "b", 4_000);
        assert_eq!((after.base_ms, after.alive_ms), (61_000, 65_000));
        let again = Uptime::resume(Some(&after), "b", 10_000);
        assert_eq!(again.alive_ms, 71_000);
    }

    #[test]
    fn node_time_never_goes_back() {
        let mut kept = None;
        let mut last = 0;
        for (boot, monotonic) in [("a", 10), ("a", 50), ("b", 1), ("b", 2), ("a", 3), ("c", 0)] {
            let now = Uptime::resume(kept.as_ref(), boot, monotonic);
            assert!(now.alive_ms >= last, "{boot} {monotonic}");
            last = now.alive_ms;
            kept = Some(now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_with_the_monotonic_clock() {
        let time = NodeTime::new(7);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(time.now_ms(), 2_007);
        assert_eq!((time.until(3_007), time.until(1)), (Duration::from_secs(1), Duration::ZERO));
    }
}
