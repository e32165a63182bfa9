//! Periodic duties. Each is idempotent and takes no input: a missed period is
//! made good by the next.

pub mod ca;
pub mod claims;
pub mod expiry;
pub mod news;
pub mod pools;
pub mod silence;

use std::sync::Arc;

use tracing::info_span;

use crate::app::Central;

/// Starts all of them; they end with the tasks.
pub fn spawn(central: &Arc<Central>) {
    central.tasks.spawn(info_span!("background", duty = "silence"), silence::run(central.clone()));
    central.tasks.spawn(info_span!("background", duty = "news"), news::run(central.clone()));
    central.tasks.spawn(info_span!("background", duty = "ca"), ca::run(central.clone()));
    central.tasks.spawn(info_span!("background", duty = "pools"), pools::run(central.clone()));
    central.tasks.spawn(info_span!("background", duty = "claims"), claims::run(central.clone()));
    central.tasks.spawn(info_span!("background", duty = "expiry"), expiry::run(central.clone()));
}
