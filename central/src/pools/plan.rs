//! What is to be done on one node, from what it is to keep and what it keeps.
//! Pure.

use std::collections::HashMap;

use roost_proto::id::PoolName;
use roost_proto::model::{Pool, PoolSpec, PoolStanding};

use super::{is_centrals, name_on_node};
use crate::store::{NodePool, PoolNode, PoolWish};

/// One step on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It lacks the pool, or keeps it otherwise.
    Put(Box<PoolSpec>),
    /// Nobody wants the pool any more.
    Remove(PoolName),
}

/// Whether a node has to be asked at all.
#[must_use]
pub fn concerns(node: &PoolNode, wishes: &[PoolWish]) -> bool {
    !node.held.is_empty() || wishes.iter().any(|wish| is_for(wish, node))
}

fn is_for(wish: &PoolWish, node: &PoolNode) -> bool {
    wish.tenant == node.tenant && wish.pool.wants(&node.name)
}

/// The steps: removals first, as they free what the others need. Pools that
/// people made on the node are left alone, as is a pool that lacks its
/// template.
#[must_use]
pub fn actions(node: &PoolNode, wishes: &[PoolWish], listed: &[Pool]) -> Vec<Action> {
    let wanted: HashMap<PoolName, &PoolWish> = wishes
        .iter()
        .filter(|wish| is_for(wish, node))
        .map(|wish| (name_on_node(&wish.tenant, &wish.pool.name), wish))
        .collect();
    let known: HashMap<&PoolName, &PoolSpec> = listed.iter().map(|pool| (&pool.spec.name, &pool.spec)).collect();
    let unwanted = known.keys().filter(|name| is_centrals(name) && !wanted.contains_key(**name));
    let mut removals: Vec<PoolName> = unwanted.map(|name| (**name).clone()).collect();
    removals.sort();
    let specs = wanted.values().filter_map(|wish| wish.spec.as_ref().ok());
    let mut puts: Vec<&PoolSpec> = specs.filter(|spec| known.get(&spec.name) != Some(spec)).collect();
    puts.sort_by(|a, b| a.name.cmp(&b.name));
    let removals = removals.into_iter().map(Action::Remove);
    removals.chain(puts.into_iter().map(|spec| Action::Put(Box::new(spec.clone())))).collect()
}

/// What is kept of a node before anything is done there: from now on it may
/// hold these pools.
#[must_use]
pub fn before(node: &PoolNode, wishes: &[PoolWish]) -> Vec<NodePool> {
    let mut pools = node.held.clone();
    for wish in wishes.iter().filter(|wish| is_for(wish, node)) {
        let name = name_on_node(&wish.tenant, &wish.pool.name);
        if !pools.iter().any(|held| held.name == name) {
            let (tenant, pool) = (wish.tenant.clone(), wish.pool.name.clone());
            pools.push(NodePool { name, tenant, pool, standing: None });
        }
    }
    pools
}

/// What is kept of a node after it was asked: what it lists, and what it is to
/// keep and does not, with the reason.
#[must_use]
pub fn after(node: &PoolNode, wishes: &[PoolWish], listed: &[Pool], problem: Option<&str>) -> Vec<NodePool> {
    let mut pools = before(node, wishes);
    pools.retain_mut(|pool| {
        let at = listed.iter().find(|other| other.spec.name == pool.name);
        let wish = wishes.iter().find(|w| is_for(w, node) && w.pool.name == pool.pool && w.tenant == pool.tenant);
        let wanted = wish.map(|wish| wish.spec.as_ref());
        let lack = wanted.and_then(Result::err).map(String::as_str).or(problem);
        let mut standing = match at {
            Some(at) => PoolStanding::of(at, matches!(wanted, Some(Ok(spec)) if *spec == at.spec)),
            None if wish.is_none() => return false,
            None => PoolStanding::default(),
        };
        standing.problem = lack.map(String::from).or(standing.problem);
        pool.standing = Some(standing);
        true
    });
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    pools
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::id::NodeId;
    use roost_proto::model::{FleetPool, Profile, Template};

    fn node(name: &str) -> PoolNode {
        PoolNode { id: NodeId::random(), tenant: "default".parse().unwrap(), name: name.into(), held: Vec::new() }
    }

    fn wish(name: &str, min_ready: u32, nodes: &[&str]) -> PoolWish {
        let json = format!(r#"{{"name":"{name}","template":"t","min_ready":{min_ready},"max":9}}"#);
        let mut pool: FleetPool = serde_json::from_str(&json).unwrap();
        pool.nodes = nodes.iter().map(|name| (*name).to_owned()).collect();
        let template: Template = serde_json::from_str(r#"{"name":"t","image":"i","profile":"p"}"#).unwrap();
        let profile: Profile = serde_json::from_str(r#"{"name":"p"}"#).unwrap();
        let tenant = "default".parse().unwrap();
        let spec = Ok(pool.on_node(name_on_node(&tenant, &pool.name), &template, &profile));
        PoolWish { tenant, pool, spec }
    }

    fn listed(spec: PoolSpec) -> Pool {
        let problem = None;
        Pool { spec, ready: 1, starting: 0, outdated: 0, hits: 0, misses: 0, oldest_ready_ms: 0, problem }
    }

    #[test]
    fn a_node_gets_what_it_lacks_and_what_has_changed_and_nothing_twice() {
        let (node, wishes) = (node("n1"), [wish("a", 1, &[]), wish("b", 2, &["n1"]), wish("c", 1, &["n2"])]);
        let actions_of = |listed: &[Pool]| actions(&node, &wishes, listed).len();
        assert_eq!(actions_of(&[]), 2, "the third pool is another node's");
        let (a, b) = (wishes[0].spec.clone().unwrap(), wishes[1].spec.clone().unwrap());
        assert_eq!(actions_of(&[listed(a.clone()), listed(b.clone())]), 0);
        let changed = PoolSpec { min_ready: 7, ..a };
        let todo = actions(&node, &wishes, &[listed(changed), listed(b)]);
        assert!(matches!(&todo[..], [Action::Put(spec)] if spec.min_ready == 1), "{todo:?}");
    }

    #[test]
    fn only_pools_of_centrals_own_are_removed_and_before_others_are_made() {
        let spec = wish("old", 1, &[]).spec.unwrap();
        let local = PoolSpec { name: "mine".parse().unwrap(), ..spec.clone() };
        let todo = actions(&node("n1"), &[wish("new", 1, &[])], &[listed(local), listed(spec.clone())]);
        assert_eq!(todo[0], Action::Remove(spec.name));
        assert!(matches!(&todo[1..], [Action::Put(_)]), "{todo:?}");
    }

    #[test]
    fn a_pool_without_its_template_stays_as_it_is_and_says_so() {
        let (node, mut lame) = (node("n1"), wish("a", 1, &[]));
        let spec = std::mem::replace(&mut lame.spec, Err("its template t does not exist".into())).unwrap();
        let (wishes, there) = ([lame], [listed(spec)]);
        assert_eq!(actions(&node, &wishes, &there), []);
        let standing = after(&node, &wishes, &there, None).remove(0).standing.unwrap();
        assert!(!standing.in_step && standing.problem.unwrap().contains("template t"));
    }

    #[test]
    fn a_pool_is_remembered_until_the_node_lists_it_no_more() {
        let mut node = node("n1");
        let wishes = [wish("a", 1, &[])];
        node.held = before(&node, &wishes);
        assert_eq!(node.held[0].standing, None);
        assert!(concerns(&node, &[]), "what was put there must be taken away");
        let there = [listed(wishes[0].spec.clone().unwrap())];
        assert_eq!(after(&node, &[], &there, None).len(), 1);
        assert_eq!(after(&node, &[], &[], None), []);
        let away = after(&node, &wishes, &[], Some("the daemon is too old"));
        assert_eq!(away[0].standing.as_ref().unwrap().problem.as_deref(), Some("the daemon is too old"));
    }
}
