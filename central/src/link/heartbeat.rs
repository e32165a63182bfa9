//! Heartbeats of one session: order, news, one transaction each.
//!
//! Most heartbeats say only that the node lives and what its sandboxes use;
//! those never reach the disk.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use roost_proto::convert::{InvalidMessage, parse};
use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{NodeStatus, Observed, Phase};
use roost_proto::node::{Heartbeat, HeartbeatAck};
use roost_proto::types;

use super::order::{Order, Place};
use super::pressure::Pace;
use super::session::STORE_PAUSE;
use crate::app::Central;
use crate::clock;
use crate::store::HeartbeatBatch;

/// A new period is told when it differs by more than one part in so many.
const PERIOD_GRAIN: u32 = 4;

/// The receiving end of a session's heartbeats.
pub(super) struct Heartbeats {
    central: Arc<Central>,
    node: NodeId,
    instance_id: String,
    /// True until the first full heartbeat of a new daemon process is stored:
    /// its revisions begin anew.
    is_new_process: bool,
    order: Order,
    /// What the parts of a full heartbeat have listed so far.
    listed: HashSet<SandboxId>,
    /// How the node may be slowed down; none where it cannot be.
    pace: Option<Pace>,
    /// Period that the node was told last, in milliseconds.
    told_period_ms: u32,
}

impl Heartbeats {
    pub(super) fn new(central: Arc<Central>, node: NodeId, instance_id: String, is_new_process: bool) -> Self {
        let (order, listed) = (Order::default(), HashSet::new());
        Self { central, node, instance_id, is_new_process, order, listed, pace: None, told_period_ms: 0 }
    }

    /// With the pace that the node was welcomed with, if it reads further ones.
    pub(super) fn with_pace(self, pace: Option<Pace>) -> Self {
        Self { told_period_ms: pace.map_or(0, |pace| pace.period_ms), pace, ..self }
    }

    /// Applies one heartbeat, or asks for a full one.
    pub(super) async fn take(&mut self, heartbeat: Heartbeat, acked_generation: u64) -> HeartbeatAck {
        let begun = Instant::now();
        let place = Place::of(&heartbeat);
        let load = heartbeat.node.as_ref().and_then(|node| node.usage).map(load);
        self.central.live.heard(&self.node, load, clock::now_unix_ms());
        let is_applied = if self.order.follows(place) {
            self.apply(heartbeat, acked_generation).await
        } else {
            tracing::info!(sequence = place.sequence, "heartbeat does not follow: asking for a full one");
            false
        };
        self.order.settled(place, is_applied);
        self.central.pressure.observe(begun.elapsed());
        let heartbeat_period_ms = self.new_period();
        // The clock last, as the node halves the time until it reads this.
        let central_unix_ms = clock::now_unix_ms();
        HeartbeatAck { sequence: place.sequence, resync: !is_applied, central_unix_ms, heartbeat_period_ms }
    }

    /// The period that the node is to keep from now on, if it is another one.
    fn new_period(&mut self) -> u32 {
        let Some(pace) = self.pace else { return 0 };
        let period_ms = self.central.pressure.period_ms(pace);
        if period_ms.abs_diff(self.told_period_ms) <= self.told_period_ms / PERIOD_GRAIN {
            return 0;
        }
        self.told_period_ms = period_ms;
        period_ms
    }

    async fn apply(&mut self, heartbeat: Heartbeat, acked_generation: u64) -> bool {
        let now_unix_ms = clock::now_unix_ms();
        let full = heartbeat.full;
        let reset_revisions = full && self.is_new_process;
        let status = heartbeat.node.and_then(read_status);
        let listed = full.then(|| self.list(heartbeat.part, &heartbeat.sandboxes)).filter(|_| !heartbeat.has_more);
        let said: Vec<(SandboxId, Observed)> = heartbeat.sandboxes.into_iter().filter_map(read_observed).collect();
        let live = &self.central.live;
        let news = |(id, observed): &&(SandboxId, Observed)| reset_revisions || live.is_news(id, observed);
        let stored =
            |(id, observed): &(SandboxId, Observed)| (id.clone(), Observed { usage: None, ..observed.clone() });
        let batch = HeartbeatBatch {
            node_id: self.node.clone(),
            instance_id: self.instance_id.clone(),
            reset_revisions,
            listed: listed.clone(),
            acked_generation,
            status: status.clone().filter(|s| reset_revisions || live.is_news_status(&self.node, s)),
            observed: said.iter().filter(news).map(stored).collect(),
            now_unix_ms,
        };
        let is_idle = !full && batch.status.is_none() && batch.observed.is_empty();
        if !is_idle && let Err(error) = self.central.store.system().apply_heartbeat(batch).await {
            tracing::error!(error = crate::log::chain(&error), "heartbeat could not be stored");
            // The node is asked for a full heartbeat, and answers at once.
            tokio::time::sleep(STORE_PAUSE).await;
            return false;
        }
        self.is_new_process &= listed.is_none();
        self.remember(status.as_ref(), &said, listed.as_ref(), now_unix_ms);
        true
    }

    /// Everything that a full heartbeat has listed, up to this part of it.
    fn list(&mut self, part: u32, sandboxes: &[types::SandboxObserved]) -> HashSet<SandboxId> {
        if part == 0 {
            self.listed.clear();
        }
        // What cannot be read further still exists.
        self.listed.extend(sandboxes.iter().filter_map(|s| s.sandbox_id.parse().ok()));
        self.listed.clone()
    }

    /// Keeps what need not be stored, and that the rest is.
    fn remember(
        &self,
        status: Option<&NodeStatus>,
        said: &[(SandboxId, Observed)],
        listed: Option<&HashSet<SandboxId>>,
        now_unix_ms: u64,
    ) {
        let live = &self.central.live;
        if let Some(status) = status {
            live.stored_status(&self.node, status);
        }
        for (id, observed) in said {
            if observed.phase == Phase::Gone {
                live.forget(id);
            } else {
                live.stored(&self.node, id, observed, now_unix_ms);
            }
        }
        if let Some(listed) = listed {
            live.keep_listed(&self.node, listed);
        }
    }
}

fn load(usage: types::NodeUsage) -> roost_proto::model::NodeLoad {
    roost_proto::model::NodeLoad {
        memory_used_bytes: usage.memory_used_bytes,
        memory_available_bytes: usage.memory_available_bytes,
        load1_milli: usage.load1_milli,
        disk_free_bytes: usage.disk_free_bytes,
        clock_offset_ms: usage.clock_offset_ms,
    }
}

/// One entry that cannot be read must not silence the rest of the node.
fn report(error: &InvalidMessage) {
    tracing::warn!(error = %error, "part of a heartbeat ignored");
}

fn read_status(status: types::NodeStatus) -> Option<NodeStatus> {
    status.try_into().inspect_err(report).ok()
}

fn read_observed(observed: types::SandboxObserved) -> Option<(SandboxId, Observed)> {
    let id = parse("sandboxes.sandbox_id", &observed.sandbox_id).inspect_err(report).ok()?;
    Some((id, observed.try_into().inspect_err(report).ok()?))
}
