//! How far central's clock is from ours. Pure.
//!
//! A message that central stamps is between zero and one round trip old when
//! it is read: half of the round trip is the best guess, and half of it is how
//! wrong the guess can be. Of the last samples the one with the shortest round
//! trip counts. The figure is for people; nothing here decides by it.

use std::collections::VecDeque;
use std::time::Duration;

/// Samples that are looked at: with a heartbeat each 10 s, the last minute.
const SAMPLES: usize = 6;
/// Both clocks are read in whole milliseconds.
const GRAIN_MS: u64 = 2;

/// One exchange with central.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    offset_ms: i64,
    uncertainty_ms: u64,
}

/// The estimate of one stream.
#[derive(Debug, Default)]
pub(super) struct ClockEstimate {
    samples: VecDeque<Sample>,
}

impl ClockEstimate {
    /// Takes central's clock as a message brought it at `now_unix_ms` of ours,
    /// `round_trip` after what it answers was sent.
    pub(super) fn add(&mut self, central_unix_ms: u64, now_unix_ms: u64, round_trip: Duration) {
        let half_ms = u64::try_from(round_trip.as_micros() / 2_000).unwrap_or(u64::MAX);
        let offset = i128::from(central_unix_ms) + i128::from(half_ms) - i128::from(now_unix_ms);
        let clamped = offset.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        let sample = Sample {
            offset_ms: i64::try_from(clamped).unwrap_or_default(),
            uncertainty_ms: half_ms.saturating_add(GRAIN_MS),
        };
        // Samples that cannot both be right: one of the clocks was set.
        self.samples.retain(|older| {
            older.offset_ms.abs_diff(sample.offset_ms) <= older.uncertainty_ms.saturating_add(sample.uncertainty_ms)
        });
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// How far central's clock is ahead of ours, in milliseconds.
    pub(super) fn offset_ms(&self) -> Option<i64> {
        self.samples.iter().min_by_key(|sample| sample.uncertainty_ms).map(|sample| sample.offset_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shortest_round_trip_counts() {
        let mut clock = ClockEstimate::default();
        assert_eq!(clock.offset_ms(), None);
        clock.add(10_000, 10_100, Duration::from_millis(400));
        clock.add(10_000, 10_002, Duration::from_millis(4));
        clock.add(10_000, 10_090, Duration::from_millis(300));
        assert_eq!(clock.offset_ms(), Some(0));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        let mut clock = ClockEstimate::default();
        clock.add(1_000_000, 1_000_000, Duration::ZERO);
        clock.add(1_060_000, 1_000_000, Duration::from_millis(50));
        assert_eq!(clock.offset_ms(), Some(60_025));
    }

    proptest! {
        /// However long either way of a message takes, the estimate lies
        /// within half of the shortest round trip of the truth.
        #[test]
        fn the_estimate_is_as_good_as_the_shortest_round_trip(
            truth in -1_000_000_i64..1_000_000,
            ways in proptest::collection::vec((0_u64..500, 0_u64..500), 1..SAMPLES),
        ) {
            let mut clock = ClockEstimate::default();
            let mut now = 50_000_000_u64;
            for (there, back) in &ways {
                let central = now.checked_add_signed(truth).unwrap() + there;
                now += there + back;
                clock.add(central, now, Duration::from_millis(there + back));
            }
            let shortest = ways.iter().map(|(there, back)| there + back).min().unwrap();
            prop_assert!(clock.offset_ms().unwrap().abs_diff(truth) <= shortest / 2 + GRAIN_MS);
        }
    }
}
