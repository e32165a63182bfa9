//! What an operator does to the state of one central: keep it, bring it back,
//! rotate its secrets. Beside a running server unless it says otherwise.

pub mod backup;
pub mod ca;
pub mod token;

/// A time as people read it, in UTC; `at_unix_ms` is Unix time in milliseconds.
fn moment(at_unix_ms: u64) -> String {
    let ms = i64::try_from(at_unix_ms).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
