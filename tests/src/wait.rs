//! Waiting level-triggered: for a condition, never for a moment.

use std::future::Future;
use std::time::Duration;

use crate::Result;

/// Between two looks. It grows with [`patience`], too: looking often would
/// keep a slow machine from what is waited for.
const PERIOD: Duration = Duration::from_millis(20);
/// Variable: how many times slower than a usual machine this one is, e.g. 10
/// under software emulation. Limits grow with it, what is asserted does not.
const PATIENCE: &str = "ROOST_TEST_PATIENCE";

/// What every limit is multiplied by.
///
/// # Errors
/// That the variable is no number above 0.
pub fn patience() -> Result<u32> {
    let Some(text) = std::env::var_os(PATIENCE) else { return Ok(1) };
    let factor = text.to_str().and_then(|t| t.parse().ok()).filter(|factor| *factor > 0);
    factor.ok_or_else(|| format!("{PATIENCE}={}: must be a whole number above 0", text.display()).into())
}

/// Waits until `look` gives a value.
///
/// # Errors
/// `what` did not hold within `limit`.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let (limit, period) = (limit * patience()?, PERIOD * patience()?);
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(value) = look().await? {
            return Ok(value);
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("{what}: not within {limit:?}").into());
        }
        tokio::time::sleep(period).await;
    }
}

/// Bounds a step that must end.
///
/// # Errors
/// `what` did not end within `limit`, or its own error.
pub async fn within<T>(what: &str, limit: Duration, step: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = limit * patience()?;
    tokio::time::timeout(limit, step).await.map_err(|_| format!("{what}: did not end within {limit:?}"))?
}
