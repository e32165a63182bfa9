//! Heartbeats of one session: order, news, one transaction each.
//!
//! Most heartbeats say only that the node lives and what its sandboxes use;
//! those never reach the disk.

use std::collections::HashSet;
use std::sync::Arc;

use roost_proto::convert::{InvalidMessage, parse};
use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{NodeStatus, Observed, Phase};
use roost_proto::node::{Heartbeat, HeartbeatAck};
use roost_proto::types;

use crate::app::Central;
use crate::clock;
use crate::store::HeartbeatBatch;

/// The receiving end of a session's heartbeats.
pub(super) struct Heartbeats {
    central: Arc<Central>,
    node: NodeId,
    instance_id: String,
    /// True until the first full heartbeat of a new daemon process is stored:
    /// its revisions begin anew.
    is_new_process: bool,
    /// Sequence of the last heartbeat that was applied; none = the next one
    /// must be full.
    applied: Option<u64>,
}

impl Heartbeats {
    pub(super) fn new(central: Arc<Central>, node: NodeId, instance_id: String, is_new_process: bool) -> Self {
        Self { central, node, instance_id, is_new_process, applied: None }
    }

    /// Applies one heartbeat, or asks for a full one.
    pub(super) async fn take(&mut self, heartbeat: Heartbeat, acked_generation: u64) -> HeartbeatAck {
        let (sequence, full) = (heartbeat.sequence, heartbeat.full);
        let load = heartbeat.node.as_ref().and_then(|node| node.usage).map(load);
        self.central.live.heard(&self.node, load, clock::now_unix_ms());
        let follows = self.applied.is_some_and(|applied| sequence == applied + 1);
        if !full && !follows {
            tracing::info!(sequence, applied = self.applied, "heartbeat does not follow: asking for a full one");
            self.applied = None;
            return HeartbeatAck { sequence, resync: true };
        }
        self.applied = self.apply(heartbeat, acked_generation).await.then_some(sequence);
        HeartbeatAck { sequence, resync: self.applied.is_none() }
    }

    async fn apply(&mut self, heartbeat: Heartbeat, acked_generation: u64) -> bool {
        let now_unix_ms = clock::now_unix_ms();
        let full = heartbeat.full;
        let reset_revisions = full && self.is_new_process;
        let status = heartbeat.node.and_then(read_status);
        // What cannot be read further still exists.
        let ids = || heartbeat.sandboxes.iter().filter_map(|s| s.sandbox_id.parse().ok()).collect::<HashSet<_>>();
        let listed = full.then(ids);
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
            return false;
        }
        self.is_new_process &= !reset_revisions;
        self.remember(status.as_ref(), &said, listed.as_ref(), now_unix_ms);
        true
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
