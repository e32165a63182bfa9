//! Drops what has had its time: idempotency keys and join tokens.

use std::sync::Arc;
use std::time::Duration;

use crate::app::Central;
use crate::clock;

/// How often: nothing here is urgent.
const PERIOD: Duration = Duration::from_secs(600);
/// How long a key or a spent token is kept: a client may repeat a request for
/// a day, an operator may ask the next morning what a token was used for.
const KEPT_MS: u64 = 24 * 3600 * 1000;

/// Runs until central shuts down.
pub async fn run(central: Arc<Central>) {
    let ending = central.tasks.ending().clone();
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        // A tick is cancel-safe, and the duty itself is never cut.
        tokio::select! {
            _ = ticks.tick() => {}
            () = ending.cancelled() => return,
        }
        match central.store.system().expire(clock::now_unix_ms().saturating_sub(KEPT_MS)).await {
            Ok(0) => {}
            Ok(dropped) => tracing::debug!(dropped, "expired rows dropped"),
            Err(error) => tracing::warn!(error = crate::log::chain(&error), "expired rows could not be dropped"),
        }
    }
}
