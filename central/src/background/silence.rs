//! Says when a node falls silent or is heard again, and writes down when each
//! was last heard, so that a restart of central keeps their phases.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::NodeId;
use roost_proto::model::NodePhase;

use crate::app::Central;
use crate::clock;

/// How often: well below the 45 s that make a node stale.
const PERIOD: Duration = Duration::from_secs(5);
/// Heartbeat times are written every so many periods: after a restart a phase
/// may be wrong by 15 s at most, and the next heartbeat mends it.
const PERIODS_PER_SAVE: u32 = 3;
/// Nodes of one transaction: creations that want one of them wait for it.
const NODES_PER_SAVE: usize = 256;

/// Runs until central shuts down; what is not yet written is written then.
pub async fn run(central: Arc<Central>) {
    let ending = central.tasks.ending().clone();
    let mut ticks = tokio::time::interval(PERIOD);
    let mut phases = HashMap::new();
    let mut saved = HashMap::new();
    for period in 0u32.. {
        // A tick is cancel-safe, and the duty itself is never cut.
        let is_last = tokio::select! {
            _ = ticks.tick() => false,
            () = ending.cancelled() => true,
        };
        if central.store.is_shared() {
            learn(&central, &mut saved).await;
        }
        report(&central, &mut phases);
        if is_last || period.is_multiple_of(PERIODS_PER_SAVE) {
            save(&central, &mut saved).await;
        }
        if is_last {
            return;
        }
    }
}

/// Logs each change of phase once.
fn report(central: &Central, phases: &mut HashMap<NodeId, NodePhase>) {
    let now = clock::now_unix_ms();
    for (node, heard) in central.live.heartbeat_times() {
        let phase = central.live.phase(&node, now);
        let silent_s = now.saturating_sub(heard) / 1000;
        match phases.insert(node.clone(), phase) {
            Some(before) if before == phase => {}
            _ if phase == NodePhase::Online => tracing::info!(%node, "node is online"),
            _ => tracing::warn!(%node, %phase, silent_s, "node is silent"),
        }
    }
}

/// Learns which nodes other replicas have heard, so that sandboxes are placed
/// there as well.
async fn learn(central: &Central, saved: &mut HashMap<NodeId, u64>) {
    match central.store.system().heartbeat_times().await {
        Ok(times) => {
            for (node, at) in times.into_iter().filter_map(|(node, at)| Some((node, at?))) {
                central.live.heard_elsewhere(&node, at);
                // It need not be written back.
                saved.entry(node).and_modify(|held| *held = at.max(*held)).or_insert(at);
            }
        }
        Err(error) => tracing::debug!(error = crate::log::chain(&error), "heartbeat times could not be read"),
    }
}

async fn save(central: &Central, saved: &mut HashMap<NodeId, u64>) {
    let times: HashMap<_, _> = central.live.heartbeat_times().into_iter().collect();
    let news: Vec<_> =
        times.iter().filter(|(node, at)| saved.get(node) != Some(at)).map(|(node, at)| (node.clone(), *at)).collect();
    for chunk in news.chunks(NODES_PER_SAVE) {
        if let Err(error) = central.store.system().save_heartbeat_times(chunk.to_vec()).await {
            tracing::warn!(error = crate::log::chain(&error), "heartbeat times could not be stored");
            return;
        }
        saved.extend(chunk.iter().cloned());
    }
    // What is gone needs no second look.
    saved.retain(|node, _| times.contains_key(node));
}
