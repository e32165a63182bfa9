//! What this replica knows of pools on the nodes, and the names they have there.
//!
//! The nodes own their pools (docs/adr/0019). Central says what they are to
//! keep ([`plan`], pure; `background/pools.rs` does it) and remembers how many
//! desktops each had ready, so that a claim is tried where there is one.

pub mod plan;

use std::collections::HashMap;
use std::sync::Mutex;

use roost_proto::id::{NodeId, PoolName, TenantId};
use tokio::sync::Notify;

use crate::changes::lock;
use crate::secret::sha256_hex;
use crate::store::NodePool;

/// Begin of the names that central's pools have on nodes. What people make on
/// a node themselves has no such name.
pub const PREFIX: &str = "central-";
/// Digits of the hash in such a name: 48 bits keep the pools of one node apart.
const HASH_LEN: usize = 12;

/// The name that a pool has on nodes: a label like any other, so that tenant
/// and name are in it as a hash, and the name once more for people.
#[must_use]
pub fn name_on_node(tenant: &TenantId, pool: &PoolName) -> PoolName {
    let hash = sha256_hex(format!("{tenant}/{pool}").as_bytes());
    let short = hash.get(..HASH_LEN).unwrap_or(&hash);
    // A name of 42 characters at most makes a label; a longer one is cut.
    let text: String = format!("{PREFIX}{short}-{pool}").chars().take(63).collect();
    text.trim_end_matches('-').parse().unwrap_or_else(|_| pool.clone())
}

/// Whether central has made a pool of this name on a node.
#[must_use]
pub fn is_centrals(name: &PoolName) -> bool {
    let hash = name.as_str().strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(hash, _)| hash);
    hash.is_some_and(|hash| hash.len() == HASH_LEN && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The pools in the memory of this replica.
#[derive(Debug, Default)]
pub struct Pools {
    /// Desktops that were ready, less the claims since.
    ready: Mutex<HashMap<(NodeId, PoolName), u32>>,
    /// What the store has of each node, so that only news is written.
    stored: Mutex<HashMap<NodeId, Vec<NodePool>>>,
    wake: Notify,
}

impl Pools {
    /// Has the nodes looked at now: a pool, a template or a node is new.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until somebody wants the nodes looked at. Cancel-safe.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// How many are ready, as far as it is known here.
    #[must_use]
    pub fn ready(&self, node: &NodeId, name: &PoolName) -> Option<u32> {
        lock(&self.ready).get(&(node.clone(), name.clone())).copied()
    }

    /// One was claimed.
    pub fn taken(&self, node: &NodeId, name: &PoolName) {
        if let Some(ready) = lock(&self.ready).get_mut(&(node.clone(), name.clone())) {
            *ready = ready.saturating_sub(1);
        }
    }

    /// The node says that none is ready.
    pub fn empty(&self, node: &NodeId, name: &PoolName) {
        lock(&self.ready).insert((node.clone(), name.clone()), 0);
    }

    /// A node was asked; true if the store has to learn of it.
    pub fn seen(&self, node: &NodeId, pools: &[NodePool]) -> bool {
        let mut ready = lock(&self.ready);
        ready.retain(|(other, _), _| other != node);
        for pool in pools {
            let count = pool.standing.as_ref().map_or(0, |standing| standing.ready);
            ready.insert((node.clone(), pool.name.clone()), count);
        }
        drop(ready);
        lock(&self.stored).get(node).is_none_or(|stored| without_ages(stored) != without_ages(pools))
    }

    /// The store has it.
    pub fn stored(&self, node: &NodeId, pools: Vec<NodePool>) {
        lock(&self.stored).insert(node.clone(), pools);
    }

    /// Forgets nodes that have no session here.
    pub fn keep_only(&self, is_here: impl Fn(&NodeId) -> bool) {
        lock(&self.ready).retain(|(node, _), _| is_here(node));
        lock(&self.stored).retain(|node, _| is_here(node));
    }
}

/// Ages change by themselves: they alone are no news.
fn without_ages(pools: &[NodePool]) -> Vec<NodePool> {
    let mut pools = pools.to_vec();
    pools.iter_mut().filter_map(|pool| pool.standing.as_mut()).for_each(|standing| standing.oldest_ready_ms = 0);
    pools
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::PoolStanding;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn names_on_nodes_are_labels_and_differ_by_tenant_and_pool() {
        let pool = |name: &str| -> PoolName { name.parse().unwrap() };
        let one = name_on_node(&tenant("a"), &pool("desks"));
        assert!(one.as_str().starts_with(PREFIX) && one.as_str().ends_with("-desks"), "{one}");
        // Joined by a dash these two would be one.
        assert_ne!(name_on_node(&tenant("a"), &pool("b-c")), name_on_node(&tenant("a-b"), &pool("c")));
        let long = name_on_node(&tenant("a"), &pool(&"x".repeat(63)));
        assert!(is_centrals(&one) && is_centrals(&long) && long.as_str().len() == 63, "{long}");
    }

    #[test]
    fn what_people_make_on_a_node_is_not_centrals() {
        for name in ["desks", "central-desks", "central-0123456789ab", "central-0123456789xy-a", "central"] {
            assert!(!is_centrals(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn only_news_is_written_and_claims_count_at_once() {
        let (pools, node) = (Pools::default(), NodeId::random());
        let standing = |ready, oldest_ready_ms| PoolStanding { ready, oldest_ready_ms, ..PoolStanding::default() };
        let pool = |standing| NodePool {
            name: "central-0123456789ab-p".parse().unwrap(),
            tenant: tenant("a"),
            pool: "p".parse().unwrap(),
            standing: Some(standing),
        };
        let first = vec![pool(standing(2, 5))];
        assert!(pools.seen(&node, &first));
        pools.stored(&node, first.clone());
        assert!(!pools.seen(&node, &[pool(standing(2, 900))]), "an age alone is no news");
        pools.taken(&node, &first[0].name);
        assert_eq!(pools.ready(&node, &first[0].name), Some(1));
        assert!(pools.seen(&node, &[pool(standing(1, 900))]));
        pools.keep_only(|_| false);
        assert_eq!(pools.ready(&node, &first[0].name), None);
    }
}
