//! Waiting level-triggered: for a condition, never for a moment.

use std::future::Future;
use std::time::Duration;

use crate::Result;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(20);

/// Waits until `look` gives a value.
///
/// # Errors
/// `what` did not hold within `limit`.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(value) = look().await? {
            return Ok(value);
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("{what}: not within {limit:?}").into());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Bounds a step that must end.
///
/// # Errors
/// `what` did not end within `limit`, or its own error.
pub async fn within<T>(what: &str, limit: Duration, step: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, step).await.map_err(|_| format!("{what}: did not end within {limit:?}"))?
}
