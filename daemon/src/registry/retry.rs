//! When a request to a registry is tried again. Pure.

use std::time::Duration;

use jiff::fmt::rfc2822;
use jiff::{Timestamp, Zoned};

/// First pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause that we choose.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Longest pause that a registry may ask for: beyond it a person decides.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Whether an answer may be another one a little later.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// Pause before try number `attempt` (2 is the first repetition). `jitter` in
/// 0..=255 spreads the nodes of a fleet over a quarter of it.
pub(super) fn pause(attempt: u32, jitter: u8) -> Duration {
    let doublings = attempt.saturating_sub(2).min(8);
    let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    pause + pause / 4 * u32::from(jitter) / 255
}

/// What a `Retry-After` header asks for: seconds, or a date.
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at: Zoned = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_zoned(header.trim()).ok()?;
    Some(Duration::try_from(at.timestamp().duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses: Vec<_> = (2..8).map(|attempt| pause(attempt, 0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 15_000]);
        assert!(pause(3, 255) > pause(3, 0) && pause(3, 255) <= Duration::from_millis(1250));
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 10:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 09:00:30 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
