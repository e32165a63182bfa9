//! What changes too often for a disk: heartbeats, load, usage.
//!
//! Lost with the process and whole again with the next heartbeat. The last
//! heartbeat of each node is written down now and then by
//! [`crate::background::silence`], so that a restart does not make every node
//! look new.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{NodeLoad, NodePhase, NodeStatus, Sandbox, Usage};
use roost_proto::types::SandboxObserved;

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
    sandboxes: HashMap<SandboxId, SandboxLive>,
}

#[derive(Debug)]
struct SandboxLive {
    print: u64,
    usage: Option<Usage>,
    at_unix_ms: u64,
}

/// What a heartbeat says of one sandbox beyond what is stored.
#[derive(Debug, Clone)]
pub struct Said {
    /// Which sandbox.
    pub id: SandboxId,
    /// [`print_of_observed`] of what was said.
    pub print: u64,
    /// What it uses.
    pub usage: Option<Usage>,
}

/// The restless part of the fleet's state.
#[derive(Debug)]
pub struct Live {
    silence: Silence,
    /// Each node has a lock of its own: a heartbeat holds up nobody else's.
    nodes: Mutex<HashMap<NodeId, Arc<Mutex<NodeLive>>>>,
}

/// 64 bits that differ where two documents differ.
fn print_of<T: serde::Serialize>(document: &T) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(document).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

/// 64 bits that differ where two observations differ in more than what changes
/// with every sample.
#[must_use]
pub fn print_of_observed(observed: &mut SandboxObserved) -> u64 {
    let (usage, revision) = (observed.usage.take(), std::mem::take(&mut observed.revision));
    let mut hasher = DefaultHasher::new();
    observed.encode_to_vec().hash(&mut hasher);
    (observed.usage, observed.revision) = (usage, revision);
    hasher.finish()
}

impl Live {
    /// Begins with the heartbeat times that the store kept.
    #[must_use]
    pub fn new(silence: Silence, kept: Vec<(NodeId, Option<u64>)>) -> Self {
        let node = |last_heartbeat_unix_ms| NodeLive { last_heartbeat_unix_ms, ..NodeLive::default() };
        let nodes = kept.into_iter().map(|(id, at)| (id, Arc::new(Mutex::new(node(at))))).collect();
        Self { silence, nodes: Mutex::new(nodes) }
    }

    fn held(&self, node: &NodeId) -> Option<Arc<Mutex<NodeLive>>> {
        lock(&self.nodes).get(node).cloned()
    }

    fn known(&self, node: &NodeId) -> Arc<Mutex<NodeLive>> {
        lock(&self.nodes).entry(node.clone()).or_default().clone()
    }

    /// Takes note that a node was heard, and of its load when it said so.
    pub fn heard(&self, node: &NodeId, load: Option<NodeLoad>, now_unix_ms: u64) {
        let live = self.known(node);
        let mut live = lock(&live);
        live.last_heartbeat_unix_ms = Some(now_unix_ms);
        live.load = load.unwrap_or(live.load);
    }

    /// Takes note of when another replica of central heard a node.
    pub fn heard_elsewhere(&self, node: &NodeId, at_unix_ms: u64) {
        let live = self.known(node);
        let mut live = lock(&live);
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
        let heard = self.held(node).and_then(|live| lock(&live).last_heartbeat_unix_ms);
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
        let Some(live) = self.held(node) else { return Default::default() };
        let live = lock(&live);
        (live.last_heartbeat_unix_ms, live.load)
    }

    /// The last heartbeat of every node that was ever heard.
    #[must_use]
    pub fn heartbeat_times(&self) -> Vec<(NodeId, u64)> {
        let nodes = lock(&self.nodes);
        nodes.iter().filter_map(|(id, live)| Some((id.clone(), lock(live).last_heartbeat_unix_ms?))).collect()
    }

    /// Whether a status says more than the stored one (its load aside).
    #[must_use]
    pub fn is_news_status(&self, node: &NodeId, status: &NodeStatus) -> bool {
        let held = self.held(node).and_then(|live| lock(&live).status_print);
        held.is_none() || held != print_of(&NodeStatus { load: NodeLoad::default(), ..status.clone() })
    }

    /// Takes note that a status is stored.
    pub fn stored_status(&self, node: &NodeId, status: &NodeStatus) {
        let print = print_of(&NodeStatus { load: NodeLoad::default(), ..status.clone() });
        lock(&self.known(node)).status_print = print;
    }

    /// Forgets what is stored of a node's status, as something else changed it.
    pub fn status_changed_elsewhere(&self, node: &NodeId) {
        if let Some(live) = self.held(node) {
            lock(&live).status_print = None;
        }
    }

    /// For each of these prints of a node's sandboxes, whether it says more than
    /// the stored one.
    #[must_use]
    pub fn news(&self, node: &NodeId, said: &[Said]) -> Vec<bool> {
        let Some(live) = self.held(node) else { return vec![true; said.len()] };
        let live = lock(&live);
        said.iter().map(|said| live.sandboxes.get(&said.id).is_none_or(|held| held.print != said.print)).collect()
    }

    /// Keeps the usage of these sandboxes, and that the rest is stored.
    pub fn stored(&self, node: &NodeId, said: Vec<Said>, now_unix_ms: u64) {
        let live = self.known(node);
        let mut live = lock(&live);
        for Said { id, print, usage } in said {
            live.sandboxes.insert(id, SandboxLive { print, usage, at_unix_ms: now_unix_ms });
        }
    }

    /// Forgets a sandbox.
    pub fn forget(&self, node: &NodeId, id: &SandboxId) {
        if let Some(live) = self.held(node) {
            lock(&live).sandboxes.remove(id);
        }
    }

    /// Forgets the sandboxes of a node that it no longer lists.
    pub fn keep_listed(&self, node: &NodeId, listed: &HashSet<SandboxId>) {
        if let Some(live) = self.held(node) {
            lock(&live).sandboxes.retain(|id, _| listed.contains(id));
        }
    }

    /// Forgets a node.
    pub fn forget_node(&self, node: &NodeId) {
        lock(&self.nodes).remove(node);
    }

    /// Lays usage and the time of the last word over a stored sandbox.
    pub fn overlay(&self, sandbox: &mut Sandbox) {
        let Some(live) = self.held(&sandbox.node_id) else { return };
        if let Some(live) = lock(&live).sandboxes.get(&sandbox.id) {
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
        let said = Said { id, print: 1, usage: None };
        live.stored(&node, vec![said.clone()], 1);
        live.begin_anew(&node);
        assert_eq!(live.news(&node, &[said]), [true]);
    }

    #[test]
    fn a_usage_sample_is_no_news_and_a_phase_is() {
        let (live, node, id) = (live(), NodeId::random(), SandboxId::random());
        let mut observed = SandboxObserved { starts: 1, ..SandboxObserved::default() };
        let mut said = |edit: fn(&mut SandboxObserved)| {
            edit(&mut observed);
            Said { id: id.clone(), print: print_of_observed(&mut observed), usage: None }
        };
        let first = said(|_| {});
        assert_eq!(live.news(&node, std::slice::from_ref(&first)), [true]);
        live.stored(&node, vec![first], 1);
        let sample = said(|o| (o.usage, o.revision) = (Some(Default::default()), 7));
        assert_eq!(live.news(&node, &[sample]), [false]);
        let phase = said(|o| o.phase = 3);
        assert_eq!(live.news(&node, &[phase]), [true]);
        assert_eq!((observed.revision, observed.usage.is_some()), (7, true), "a print takes nothing away");
    }

    #[test]
    fn a_list_of_one_node_forgets_nothing_of_another() {
        let (live, one, other) = (live(), NodeId::random(), NodeId::random());
        let said = || Said { id: SandboxId::random(), print: 1, usage: None };
        let (kept, dropped) = (said(), said());
        live.stored(&one, vec![dropped.clone()], 1);
        live.stored(&other, vec![kept.clone()], 1);
        live.keep_listed(&one, &HashSet::new());
        assert_eq!(live.news(&one, &[dropped]), [true]);
        assert_eq!(live.news(&other, &[kept]), [false]);
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
