//! Brings claims to an end that nobody finished.

use std::sync::Arc;
use std::time::Duration;

use crate::app::{Central, sweep_claims};

/// How often: such a claim is minutes old before it is looked at.
const PERIOD: Duration = Duration::from_secs(30);

/// Runs until central shuts down.
pub async fn run(central: Arc<Central>) {
    let ending = central.tasks.ending().clone();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: a tick stays, and a sweep that is cut by the end of
        // central is begun again by the next process.
        tokio::select! {
            _ = ticks.tick() => {}
            () = ending.cancelled() => return,
        }
        tokio::select! {
            swept = sweep_claims(&central) => {
                if let Err(error) = swept {
                    tracing::warn!(error = crate::log::chain(&error), "stale claims could not be read");
                }
            }
            () = ending.cancelled() => return,
        }
    }
}
