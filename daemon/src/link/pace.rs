//! When to try again and when to renew. Pure.

use std::time::Duration;

/// Bounds of a row of growing pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BackoffBounds {
    /// Upper end of the first pause.
    pub(super) first: Duration,
    /// Upper end of every later pause.
    pub(super) max: Duration,
}

/// Central counts a node as stale after 45 s: within that a node has tried at
/// least three times.
pub(super) const CONNECT_BACKOFF: BackoffBounds =
    BackoffBounds { first: Duration::from_millis(200), max: Duration::from_secs(15) };
/// Half of a certificate's life is left for renewals: no hurry.
pub(super) const RENEW_BACKOFF: BackoffBounds =
    BackoffBounds { first: Duration::from_secs(1), max: Duration::from_secs(60) };

/// Longest pause that a central may ask for: beyond it the node would count as
/// offline by central's own word.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Pauses that double, each shortened by chance, so that ten thousand nodes
/// that lost their central do not come back in the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    bounds: BackoffBounds,
    tries: u32,
}

impl Backoff {
    pub(super) fn new(bounds: BackoffBounds) -> Self {
        Self { bounds, tries: 0 }
    }

    /// The next pause; `chance` lies in 0..1.
    pub(super) fn next(&mut self, chance: f64) -> Duration {
        let doubled = self.bounds.first.saturating_mul(2_u32.saturating_pow(self.tries));
        self.tries = self.tries.saturating_add(1);
        doubled.min(self.bounds.max).mul_f64(chance.clamp(0.0, 1.0))
    }

    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// The pause that central asked for, from half of it to half as much again, so
/// that those who were told the same do not come back together; `chance` lies
/// in 0..1.
pub(super) fn spread(retry_after: Duration, chance: f64) -> Duration {
    retry_after.min(RETRY_AFTER_MAX).mul_f64(0.5 + chance.clamp(0.0, 1.0))
}

/// When to renew a certificate, Unix time in milliseconds: at half of its
/// life, up to a tenth of it earlier; `chance` lies in 0..1.
pub(super) fn renew_at_unix_ms(obtained_unix_ms: u64, not_after_unix_ms: u64, chance: f64) -> u64 {
    let life = Duration::from_millis(not_after_unix_ms.saturating_sub(obtained_unix_ms));
    let wait = life.mul_f64(0.5 - 0.1 * chance.clamp(0.0, 1.0));
    obtained_unix_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// Whether a certificate has ended.
pub(super) fn is_expired(not_after_unix_ms: u64, now_unix_ms: u64) -> bool {
    now_unix_ms >= not_after_unix_ms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::new(CONNECT_BACKOFF);
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0), CONNECT_BACKOFF.first);
    }

    #[test]
    fn the_pause_stays_bounded_however_often_it_failed() {
        let mut backoff = Backoff { bounds: CONNECT_BACKOFF, tries: u32::MAX };
        assert_eq!(backoff.next(1.0), CONNECT_BACKOFF.max);
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_or_a_little_earlier() {
        assert_eq!(renew_at_unix_ms(1_000, 3_000, 0.0), 2_000);
        assert_eq!(renew_at_unix_ms(1_000, 3_000, 1.0), 1_800);
    }

    /// Ten thousand nodes lose their central at once and try until it is back:
    /// how many come in the busiest 100 ms, by the pauses alone.
    #[test]
    fn a_storm_is_spread_over_the_pauses() {
        let chance = |node: u32, try_number: u32| f64::from((node * 7919 + try_number * 104_729) % 10_000) / 10_000.0;
        let mut slots = std::collections::BTreeMap::<u128, u32>::new();
        for node in 0..10_000 {
            let (mut backoff, mut at) = (Backoff::new(CONNECT_BACKOFF), Duration::ZERO);
            for try_number in 0.. {
                at += backoff.next(chance(node, try_number));
                // Central is away for half a minute.
                if at > Duration::from_secs(30) {
                    break;
                }
            }
            *slots.entry(at.as_millis() / 100).or_default() += 1;
        }
        let busiest = slots.values().max().copied().unwrap_or_default();
        assert!(busiest <= 250, "{busiest} of 10000 nodes come within 100 ms");
    }

    #[test]
    fn what_central_asks_for_is_spread_and_bounded() {
        assert_eq!(spread(Duration::from_secs(2), 0.0), Duration::from_secs(1));
        assert_eq!(spread(Duration::from_secs(2), 1.0), Duration::from_secs(3));
        assert_eq!(spread(Duration::from_secs(3600), 1.0), Duration::from_secs(90));
    }

    proptest! {
        #[test]
        fn renewal_lies_within_the_life(obtained in 0..u64::MAX / 4, life in 1..u64::MAX / 4, chance in 0.0..1.0) {
            let end = obtained + life;
            let at = renew_at_unix_ms(obtained, end, chance);
            prop_assert!((obtained..end).contains(&at));
        }

        #[test]
        fn a_pause_never_exceeds_its_bound(tries in 0_u32..100, chance in 0.0..1.0) {
            let mut backoff = Backoff { bounds: CONNECT_BACKOFF, tries };
            prop_assert!(backoff.next(chance) <= CONNECT_BACKOFF.max);
        }
    }
}
