//! Numbers as people say them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, now.
pub(crate) fn now_unix_ms() -> u64 {
    // A clock before 1970 shows every age as zero, which is harmless.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A span in one or two units: `45s`, `5m12s`, `3h`, `2d`.
pub(crate) fn span(span: Duration) -> String {
    let s = span.as_secs();
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(s / 60, "m", s % 60, "s"),
        600..10_800 => format!("{}m", s / 60),
        10_800..28_800 => two(s / 3600, "h", s % 3600 / 60, "m"),
        28_800..172_800 => format!("{}h", s / 3600),
        172_800..691_200 => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
        _ => format!("{}d", s / 86_400),
    }
}

/// Time since `then_unix_ms`; the future (another machine's clock) is `0s`.
pub(crate) fn age(then_unix_ms: u64, now_unix_ms: u64) -> String {
    span(Duration::from_millis(now_unix_ms.saturating_sub(then_unix_ms)))
}

/// A moment in UTC with its distance: `2026-11-21 09:12:03Z (5m ago)`.
pub(crate) fn moment(unix_ms: u64, now_unix_ms: u64) -> String {
    let stamp = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let Some(stamp) = stamp else { return format!("{unix_ms} ms since 1970") };
    let text = stamp.strftime("%Y-%m-%d %H:%M:%SZ");
    if unix_ms > now_unix_ms {
        format!("{text} (in {})", age(now_unix_ms, unix_ms))
    } else {
        format!("{text} ({} ago)", age(unix_ms, now_unix_ms))
    }
}

/// Bytes in binary units with at most three digits: `45 KiB`, `1.2 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_235 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    match tenths {
        t if unit == 0 || t >= 100 || t % 10 == 0 => format!("{} {}", (t + 5) / 10, UNITS[unit]),
        t => format!("{}.{} {}", t / 10, t % 10, UNITS[unit]),
    }
}

/// Thousandths of a core as cores: `0.5`, `2`.
pub(crate) fn cores(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration in the unit that leaves few digits: `850 µs`, `231 ms`, `2.3 s`.
pub(crate) fn duration_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", (us + 500) / 1_000),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// The first twelve digits of a `sha256:…` digest, as docker shows them.
pub(crate) fn short_digest(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// `1 sandbox`, `2 sandboxes`.
pub(crate) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_use_few_units() {
        for (s, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (312, "5m12s"),
            (3_600, "60m"),
            (12_600, "3h30m"),
            (180_000, "2d2h"),
        ] {
            assert_eq!(span(Duration::from_secs(s)), text);
        }
        assert_eq!(span(Duration::from_secs(86_400 * 30)), "30d");
    }

    #[test]
    fn an_age_in_the_future_is_zero() {
        assert_eq!(age(5_000, 1_000), "0s");
    }

    #[test]
    fn sizes_keep_at_most_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (46_080, "45 KiB"),
            (4 << 30, "4 GiB"),
            (1_288_490_189, "1.2 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn cores_lose_their_zeros() {
        assert_eq!([cores(500), cores(2000), cores(0), cores(1250)], ["0.5", "2", "0", "1.25"]);
    }

    #[test]
    fn durations_choose_their_unit() {
        assert_eq!(
            [duration_us(850), duration_us(2_310), duration_us(231_400), duration_us(12_340_000)],
            ["850 µs", "2.3 ms", "231 ms", "12.3 s"]
        );
    }

    #[test]
    fn moments_say_how_far_away_they_are() {
        assert_eq!(moment(0, 60_000), "1970-01-01 00:00:00Z (60s ago)");
        assert_eq!(moment(60_000, 0), "1970-01-01 00:01:00Z (in 60s)");
    }
}
