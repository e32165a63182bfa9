//! Turns containerd's events into hints for drivers.
//!
//! After each subscription comes a list: events of the time before it are
//! lost.

use std::time::Duration;

use roost_proto::model::Phase;
use tokio::sync::watch;

use super::plan::not_running;
use crate::containerd::{Client, Error};
use crate::sandbox::Manager;
use crate::sandbox::failure::chain;

/// First and longest wait before the next subscription.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Follows containerd's events for ever; `reachable` tells whether they flow.
pub async fn follow(client: Client, manager: Manager, reachable: watch::Sender<bool>) {
    let mut retry = RETRY.0;
    loop {
        let error = match subscribe(&client, &manager, &reachable).await {
            Ok(error) => {
                retry = RETRY.0;
                error
            }
            Err(error) => error,
        };
        reachable.send_if_modified(|reachable| std::mem::replace(reachable, false));
        tracing::warn!(error = %chain(&error), "events of containerd stopped");
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(RETRY.1);
    }
}

/// One subscription; returns the error that ended it after it stood.
async fn subscribe(client: &Client, manager: &Manager, reachable: &watch::Sender<bool>) -> Result<Error, Error> {
    let mut events = client.subscribe().await?;
    let tasks = client.list_tasks().await?;
    // A sandbox that is being adopted or started may lose a container now.
    let live = manager.changed_since(0).into_iter().filter(|view| view.observed.phase != Phase::Gone);
    let ids = live.map(|view| view.desired.id.clone()).collect();
    manager.hint(&not_running(ids, &tasks));
    reachable.send_if_modified(|reachable| !std::mem::replace(reachable, true));
    tracing::info!(tasks = tasks.len(), "events of containerd flow");
    loop {
        match events.next().await {
            Ok(exited) => manager.hint([&exited.id.sandbox]),
            Err(error) => return Ok(error),
        }
    }
}
