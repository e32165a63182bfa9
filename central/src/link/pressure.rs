//! How far central is behind its nodes, and how slow it makes them for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Weight of a new measurement: one in so many.
const WEIGHT: u64 = 16;
/// Delay that adds one whole period: a heartbeat that waits for so long means
/// a database with hundreds of others in its queue.
const LAG_PER_PERIOD_MS: u64 = 250;
/// A node is Stale after so many of the longest periods, so that one lost
/// heartbeat, or two, make none.
const PERIODS_PER_STALE: u32 = 3;

/// Period of heartbeats, and how far it may be stretched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The period while central keeps up, in milliseconds.
    pub period_ms: u32,
    /// The longest period, in milliseconds.
    pub longest_ms: u32,
}

impl Pace {
    /// The pace of a configured period; nodes stay well below `stale_after`.
    #[must_use]
    pub fn new(period_ms: u32, stale_after: Duration) -> Self {
        let bound = u32::try_from((stale_after / PERIODS_PER_STALE).as_millis()).unwrap_or(u32::MAX);
        Self { period_ms, longest_ms: bound.max(period_ms) }
    }

    /// The period that fits a delay, in milliseconds.
    fn stretched_ms(self, lag: Duration) -> u32 {
        let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let extra = u64::from(self.period_ms).saturating_mul(lag_ms) / LAG_PER_PERIOD_MS;
        let period_ms = u64::from(self.period_ms).saturating_add(extra);
        u32::try_from(period_ms).unwrap_or(u32::MAX).min(self.longest_ms)
    }
}

/// The mean delay of heartbeats over all nodes.
#[derive(Debug, Default)]
pub struct Pressure {
    lag_us: AtomicU64,
}

impl Pressure {
    /// Takes how long one heartbeat took.
    pub fn observe(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / WEIGHT);
        // A measurement that is lost to another thread does not matter.
        let before = self.lag_us.load(Ordering::Relaxed);
        let after = before - before / WEIGHT + took_us / WEIGHT;
        self.lag_us.store(after, Ordering::Relaxed);
    }

    /// The period that a node is to keep now, in milliseconds.
    #[must_use]
    pub fn period_ms(&self, pace: Pace) -> u32 {
        pace.stretched_ms(self.lag())
    }

    /// How long a heartbeat takes at present.
    #[must_use]
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.lag_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_central_that_is_behind_asks_for_fewer_heartbeats_up_to_a_bound() {
        let (pace, pressure) = (Pace::new(1_000, Duration::from_secs(45)), Pressure::default());
        assert_eq!(pressure.period_ms(pace), 1_000);
        (0..1_000).for_each(|_| pressure.observe(Duration::from_millis(500)));
        assert!((2_900..=3_000).contains(&pressure.period_ms(pace)), "{}", pressure.period_ms(pace));
        (0..1_000).for_each(|_| pressure.observe(Duration::from_secs(60)));
        assert_eq!(pressure.period_ms(pace), 15_000, "a third of the time until Stale");
        (0..1_000).for_each(|_| pressure.observe(Duration::ZERO));
        assert_eq!(pressure.period_ms(pace), 1_000);
    }

    #[test]
    fn a_long_period_is_never_shortened() {
        assert_eq!(Pace::new(30_000, Duration::from_secs(45)).longest_ms, 30_000);
    }
}
