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
use crate::live::{Said, print_of_observed};
use crate::store::{Fence, HeartbeatBatch};

/// A new period is told when it differs by more than one part in so many.
const PERIOD_GRAIN: u32 = 4;

/// The receiving end of a session's heartbeats.
pub(super) struct Heartbeats {
    central: Arc<Central>,
    node: NodeId,
    instance_id: String,
    /// Of the session.
    fence: Fence,
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
    pub(super) fn new(
        central: Arc<Central>,
        node: NodeId,
        instance_id: String,
        is_new_process: bool,
        fence: Fence,
    ) -> Self {
        let (order, listed) = (Order::default(), HashSet::new());
        Self { central, node, instance_id, fence, is_new_process, order, listed, pace: None, told_period_ms: 0 }
    }

    /// With the pace that the node was welcomed with, if it reads further ones.
    pub(super) fn with_pace(self, pace: Option<Pace>) -> Self {
        Self { told_period_ms: pace.map_or(0, |pace| pace.period_ms), pace, ..self }
    }

    /// Applies one heartbeat, or asks for a full one.
    pub(super) async fn take(&mut self, heartbeat: Heartbeat, acked_generation: u64) -> HeartbeatAck {
        let begun = Instant::now();
        let place = Place::of(&heartbeat);
        let load = heartbeat.node.as_ref().and_then(|node| node.usage).map(Into::into);
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
        // Nor may it change what is known without the store.
        if self.fence.closed.is_cancelled() {
            return false;
        }
        let now_unix_ms = clock::now_unix_ms();
        let full = heartbeat.full;
        let reset_revisions = full && self.is_new_process;
        let status = heartbeat.node.and_then(read_status);
        let listed = full.then(|| self.list(heartbeat.part, &heartbeat.sandboxes)).filter(|_| !heartbeat.has_more);
        let live = &self.central.live;
        let (said, observed) = self.sift(heartbeat.sandboxes, reset_revisions);
        let gone: Vec<SandboxId> =
            observed.iter().filter(|(_, o)| o.phase == Phase::Gone).map(|(id, _)| id.clone()).collect();
        let batch = HeartbeatBatch {
            fence: self.fence.clone(),
            node_id: self.node.clone(),
            instance_id: self.instance_id.clone(),
            reset_revisions,
            listed: listed.clone(),
            acked_generation,
            status: status.clone().filter(|s| reset_revisions || live.is_news_status(&self.node, s)),
            observed,
            now_unix_ms,
        };
        // What is news to the store is news to placement.
        if let Some(status) = &batch.status {
            self.central.rooms.learn(&self.node, status);
        }
        let is_idle = !full && batch.status.is_none() && batch.observed.is_empty();
        if !is_idle {
            match self.central.store.system().apply_heartbeat(batch).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::info!("heartbeat passed over: a newer session speaks for the node");
                    return false;
                }
                Err(error) => {
                    tracing::error!(error = crate::log::chain(&error), "heartbeat could not be stored");
                    // The node is asked for a full heartbeat, and answers at once.
                    tokio::time::sleep(STORE_PAUSE).await;
                    return false;
                }
            }
        }
        self.is_new_process &= listed.is_none();
        self.remember(status.as_ref(), said, listed.as_ref(), now_unix_ms);
        gone.iter().for_each(|id| live.forget(&self.node, id));
        true
    }

    /// Everything that was said, and of it what is to be stored. Most of it is
    /// usage alone, and never read further.
    fn sift(
        &self,
        sandboxes: Vec<types::SandboxObserved>,
        all_is_news: bool,
    ) -> (Vec<Said>, Vec<(SandboxId, Observed)>) {
        let (mut said, mut wire) = (Vec::with_capacity(sandboxes.len()), Vec::with_capacity(sandboxes.len()));
        for mut observed in sandboxes {
            let Ok(id) = parse("sandboxes.sandbox_id", &observed.sandbox_id).inspect_err(report) else { continue };
            let print = print_of_observed(&mut observed);
            said.push(Said { id, print, usage: observed.usage.take().map(Into::into) });
            wire.push(observed);
        }
        let news = if all_is_news { vec![true; said.len()] } else { self.central.live.news(&self.node, &said) };
        let mut unreadable = HashSet::new();
        let mut stored = Vec::new();
        for ((said, observed), _) in said.iter().zip(wire).zip(news).filter(|(_, is_news)| *is_news) {
            match observed.try_into() {
                Ok(observed) => stored.push((said.id.clone(), observed)),
                Err(error) => {
                    report(&error);
                    unreadable.insert(said.id.clone());
                }
            }
        }
        said.retain(|said| !unreadable.contains(&said.id));
        (said, stored)
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
        said: Vec<Said>,
        listed: Option<&HashSet<SandboxId>>,
        now_unix_ms: u64,
    ) {
        let live = &self.central.live;
        if let Some(status) = status {
            live.stored_status(&self.node, status);
        }
        live.stored(&self.node, said, now_unix_ms);
        if let Some(listed) = listed {
            live.keep_listed(&self.node, listed);
        }
    }
}

/// One entry that cannot be read must not silence the rest of the node.
fn report(error: &InvalidMessage) {
    tracing::warn!(error = %error, "part of a heartbeat ignored");
}

fn read_status(status: types::NodeStatus) -> Option<NodeStatus> {
    status.try_into().inspect_err(report).ok()
}
