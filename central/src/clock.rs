//! The wall clock in the unit of every protocol and table.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time now, in milliseconds; 0 on a clock before 1970.
#[must_use]
pub fn now_unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
