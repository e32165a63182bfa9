//! What changes too often for a disk: heartbeats, load, usage.
//!
//! Lost with the process and whole again with the next heartbeat. The last
//! heartbeat of each node is written down now and then by
//! [`crate::background::silence`], so that a restart does not make every node
//! look new.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::time::Duration;

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{NodeLoad, NodePhase, NodeStatus, Observed, Sandbox, Usage};

use crate::changes::lock;

/// Silence after which a node's phase changes.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    /// Online becomes Stale.
    pub stale_after: Duration,
    /// Stale becomes Offline.
    pub offline_after: Duration,
}

#[derive(Debug, Default)]
struct NodeLive {
    last_heartbeat_unix_ms: Option<u64>,
    load: NodeLoad,
    /// Of the stored status, to tell news from repetition.
    status_print: Option<u64>,
}

#[derive(Debug)]
struct SandboxLive {
    node: NodeId,
    print: u64,
    usage: Option<Usage>,
    at_unix_ms: u64,
}

/// The restless part of the fleet's state.
#[derive(Debug)]
pub struct Live {
    silence: Silence,
    nodes: Mutex<HashMap<NodeId, NodeLive>>,
    sandboxes: Mutex<HashMap<SandboxId, SandboxLive>>,
}

/// 64 bits that differ where two documents differ.
fn print_of<T: serde::Serialize>(document: &T) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(document).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

/// The observation without what changes with every sample.
fn settled(observed: &Observed) -> Observed {
    Observed { usage: None, revision: 0, ..observed.clone() }
}

impl Live {
    /// Begins with the heartbeat times that the store kept.
    #[must_use]
    pub fn new(silence: Silence, kept: Vec<(NodeId, Option<u64>)>) -> Self {
        let node = |last_heartbeat_unix_ms| NodeLive { last_heartbeat_unix_ms, ..NodeLive::default() };
        let nodes = kept.into_iter().map(|(id, at)| (id, node(at))).collect();
        Self { silence, nodes: Mutex::new(nodes), sandboxes: Mutex::default() }
    }

    /// Takes note that a node was heard, and of its load when it said so.
    pub fn heard(&self, node: &NodeId, load: Option<NodeLoad>, now_unix_ms: u64) {
        let mut nodes = lock(&self.nodes);
        let live = nodes.entry(node.clone()).or_default();
        live.last_heartbeat_unix_ms = Some(now_unix_ms);
        live.load = load.unwrap_or(live.load);
    }

    /// Takes note of when another replica of central heard a node.
    pub fn heard_elsewhere(&self, node: &NodeId, at_unix_ms: u64) {
        let mut nodes = lock(&self.nodes);
        let live = nodes.entry(node.clone()).or_default();
        live.last_heartbeat_unix_ms = live.last_heartbeat_unix_ms.max(Some(at_unix_ms));
    }

    /// Forgets what is stored of a node and its sandboxes, as its last session
    /// may have been with another replica.
    pub fn begin_anew(&self, node: &NodeId) {
        self.status_changed_elsewhere(node);
        self.keep_listed(node, &HashSet::new());
    }

    /// How well a node is heard at `now_unix_ms`.
    #[must_use]
    pub fn phase(&self, node: &NodeId, now_unix_ms: u64) -> NodePhase {
        let heard = lock(&self.nodes).get(node).and_then(|live| live.last_heartbeat_unix_ms);
        let Some(heard) = heard else { return NodePhase::Enrolled };
        let silence = Duration::from_millis(now_unix_ms.saturating_sub(heard));
        if silence > self.silence.offline_after {
            NodePhase::Offline
        } else if silence > self.silence.stale_after {
            NodePhase::Stale
        } else {
            NodePhase::Online
        }
    }

    /// The last heartbeat of a node, Unix time in milliseconds, and its load.
    #[must_use]
    pub fn node(&self, node: &NodeId) -> (Option<u64>, NodeLoad) {
        lock(&self.nodes).get(node).map(|l| (l.last_heartbeat_unix_ms, l.load)).unwrap_or_default()
    }

    /// The last heartbeat of every node that was ever heard.
    #[must_use]
    pub fn heartbeat_times(&self) -> Vec<(NodeId, u64)> {
        let nodes = lock(&self.nodes);
        nodes.iter().filter_map(|(id, live)| Some((id.clone(), live.last_heartbeat_unix_ms?))).collect()
    }

    /// Whether a status says more than the stored one (its load aside).
    #[must_use]
    pub fn is_news_status(&self, node: &NodeId, status: &NodeStatus) -> bool {
        let held = lock(&self.nodes).get(node).and_then(|live| live.status_print);
        held.is_none() || held != print_of(&NodeStatus { load: NodeLoad::default(), ..status.clone() })
    }

    /// Takes note that a status is stored.
    pub fn stored_status(&self, node: &NodeId, status: &NodeStatus) {
        let print = print_of(&NodeStatus { load: NodeLoad::default(), ..status.clone() });
        lock(&self.nodes).entry(node.clone()).or_default().status_print = print;
    }

    /// Forgets what is stored of a node's status, as something else changed it.
    pub fn status_changed_elsewhere(&self, node: &NodeId) {
        if let Some(live) = lock(&self.nodes).get_mut(node) {
            live.status_print = None;
        }
    }

    /// Whether an observation says more than the stored one (usage aside).
    #[must_use]
    pub fn is_news(&self, id: &SandboxId, observed: &Observed) -> bool {
        let print = print_of(&settled(observed));
        lock(&self.sandboxes).get(id).is_none_or(|live| Some(live.print) != print)
    }

    /// Keeps the usage of an observation, and that the rest is stored.
    pub fn stored(&self, node: &NodeId, id: &SandboxId, observed: &Observed, now_unix_ms: u64) {
        let Some(print) = print_of(&settled(observed)) else { return };
        let live = SandboxLive { node: node.clone(), print, usage: observed.usage, at_unix_ms: now_unix_ms };
        lock(&self.sandboxes).insert(id.clone(), live);
    }

    /// Forgets a sandbox.
    pub fn forget(&self, id: &SandboxId) {
        lock(&self.sandboxes).remove(id);
    }

    /// Forgets the sandboxes of a node that it no longer lists.
    pub fn keep_listed(&self, node: &NodeId, listed: &HashSet<SandboxId>) {
        lock(&self.sandboxes).retain(|id, live| live.node != *node || listed.contains(id));
    }

    /// Forgets a node.
    pub fn forget_node(&self, node: &NodeId) {
        lock(&self.nodes).remove(node);
        self.keep_listed(node, &HashSet::new());
    }

    /// Lays usage and the time of the last word over a stored sandbox.
    pub fn overlay(&self, sandbox: &mut Sandbox) {
        if let Some(live) = lock(&self.sandboxes).get(&sandbox.id) {
            sandbox.observed.usage = live.usage;
            sandbox.observed_at_unix_ms = sandbox.observed_at_unix_ms.max(Some(live.at_unix_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        let silence = Silence { stale_after: Duration::from_secs(45), offline_after: Duration::from_secs(120) };
        Live::new(silence, Vec::new())
    }

    #[test]
    fn silence_makes_a_node_stale_and_then_offline() {
        let (live, node) = (live(), NodeId::random());
        assert_eq!(live.phase(&node, 0), NodePhase::Enrolled);
        live.heard(&node, None, 1_000);
        assert_eq!(live.phase(&node, 46_000), NodePhase::Online);
        assert_eq!(live.phase(&node, 46_001), NodePhase::Stale);
        assert_eq!(live.phase(&node, 121_000), NodePhase::Stale);
        assert_eq!(live.phase(&node, 121_001), NodePhase::Offline);
        live.heard(&node, None, 121_002);
        assert_eq!(live.phase(&node, 121_003), NodePhase::Online);
    }

    #[test]
    fn a_node_that_another_replica_hears_is_online_and_later_news_of_it_is_told() {
        let (live, node, id) = (live(), NodeId::random(), SandboxId::random());
        live.heard_elsewhere(&node, 1_000);
        assert_eq!(live.phase(&node, 46_000), NodePhase::Online);
        live.heard_elsewhere(&node, 500);
        assert_eq!(live.phase(&node, 46_000), NodePhase::Online);
        live.stored(&node, &id, &Observed::pending(), 1);
        live.begin_anew(&node);
        assert!(live.is_news(&id, &Observed::pending()));
    }

    #[test]
    fn a_usage_sample_is_no_news_and_a_phase_is() {
        let (live, node, id) = (live(), NodeId::random(), SandboxId::random());
        let mut observed = Observed::pending();
        assert!(live.is_news(&id, &observed));
        live.stored(&node, &id, &observed, 1);
        observed.usage = Some(Usage { memory_bytes: 5, ..Usage::default() });
        observed.revision += 1;
        assert!(!live.is_news(&id, &observed));
        observed.phase = roost_proto::model::Phase::Ready;
        assert!(live.is_news(&id, &observed));
    }

    #[test]
    fn load_is_no_news_and_a_new_image_is() {
        let (live, node) = (live(), NodeId::random());
        let mut status = NodeStatus::default();
        assert!(live.is_news_status(&node, &status));
        live.stored_status(&node, &status);
        status.load.load1_milli = 9;
        assert!(!live.is_news_status(&node, &status));
        status.capacity.sandboxes_max = 1;
        assert!(live.is_news_status(&node, &status));
    }
}
