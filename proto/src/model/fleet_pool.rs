//! Pools over many nodes: what central keeps ready, and where.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::pool::default_starts_at_once;
use super::spec::check_env;
use super::{FieldError, Pool, PoolSpec, PoolUpdate, Profile, Template, Validate, resolve};
use crate::id::{NodeId, PoolName, ProfileName, TemplateName};

/// Longest name: the node's name of the pool has a prefix of 21 bytes.
const MAX_NAME_BYTES: usize = 42;
/// Most nodes that one pool may name.
const MAX_NODES: usize = 1_000;

/// Desktops of one template that nodes keep ready for claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FleetPool {
    /// Its name, unique in the tenant.
    pub name: PoolName,
    /// What its desktops are made from.
    pub template: TemplateName,
    /// What they may use; absent = the template's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Environment that all of them start with, laid over the template's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Fewest that each node keeps ready.
    pub min_ready: u32,
    /// Most that exist unclaimed at once on each node, those that are starting
    /// included.
    pub max: u32,
    /// Starts under way at once on each node.
    #[serde(default = "default_starts_at_once")]
    pub starts_at_once: u32,
    /// Claims of so many milliseconds are held ready on top of `min_ready`, by
    /// the recent rate of claims of the node; 0 turns that off.
    #[serde(default)]
    pub demand_window_ms: u32,
    /// How a change replaces what there is.
    #[serde(default)]
    pub update: PoolUpdate,
    /// Names of the nodes that keep it; empty = every node.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub nodes: BTreeSet<String>,
}

impl FleetPool {
    /// Whether a node of this name is to keep it.
    #[must_use]
    pub fn wants(&self, node_name: &str) -> bool {
        self.nodes.is_empty() || self.nodes.contains(node_name)
    }

    /// What one node is to keep, under the name that the pool has there.
    #[must_use]
    pub fn on_node(&self, name: PoolName, template: &Template, profile: &Profile) -> PoolSpec {
        PoolSpec {
            name,
            spec: resolve(template, profile, &self.env),
            min_ready: self.min_ready,
            max: self.max,
            starts_at_once: self.starts_at_once,
            demand_window_ms: self.demand_window_ms,
            update: self.update,
        }
    }
}

impl Validate for FleetPool {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        let field = |name: &str| format!("{path}{name}");
        check_env(&self.env, path, errors);
        if self.name.as_str().len() > MAX_NAME_BYTES {
            errors.push(FieldError::new(field("name"), format!("must have at most {MAX_NAME_BYTES} characters")));
        }
        if self.nodes.len() > MAX_NODES {
            let problem = format!("at most {MAX_NODES} can be named: name none, and every node keeps it");
            errors.push(FieldError::new(field("nodes"), problem));
        }
        PoolSpec::check_counts(self.min_ready, self.max, self.starts_at_once, self.demand_window_ms, path, errors);
    }
}

/// How a pool stands on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolStanding {
    /// Whether the node keeps the pool as it is to be now.
    pub in_step: bool,
    /// Desktops that can be claimed now; outdated ones are among them.
    pub ready: u32,
    /// Desktops that are starting.
    pub starting: u32,
    /// Ready ones of an older spec.
    pub outdated: u32,
    /// Claims that found one ready, since the daemon of the node started.
    pub hits: u64,
    /// Claims that found none.
    pub misses: u64,
    /// Age of the oldest ready one when the node was asked, in milliseconds.
    pub oldest_ready_ms: u64,
    /// Why it is not kept, or why the last start failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl PoolStanding {
    /// What a node says of a pool.
    #[must_use]
    pub fn of(pool: &Pool, in_step: bool) -> Self {
        Self {
            in_step,
            ready: pool.ready,
            starting: pool.starting,
            outdated: pool.outdated,
            hits: pool.hits,
            misses: pool.misses,
            oldest_ready_ms: pool.oldest_ready_ms,
            problem: pool.problem.clone(),
        }
    }
}

/// A node, and how a pool stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolOnNode {
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub node: String,
    /// Name that the pool has on the node.
    pub name: PoolName,
    /// As of `seen_at_unix_ms`.
    pub standing: PoolStanding,
    /// Unix time at which the node said so, in milliseconds; absent = it was
    /// not heard on this pool yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at_unix_ms: Option<u64>,
}

/// A pool, and how it stands on the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FleetPoolStatus {
    /// What it is to be.
    pub pool: FleetPool,
    /// Each node that keeps it or is to let it go, by name.
    pub nodes: Vec<PoolOnNode>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(json: &str) -> FleetPool {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_pool_is_for_every_node_unless_it_names_some() {
        let every = pool(r#"{"name":"p","template":"t","min_ready":1,"max":2}"#);
        assert!(every.wants("n1") && every.validate().is_ok());
        let some = pool(r#"{"name":"p","template":"t","min_ready":1,"max":2,"nodes":["n1"]}"#);
        assert!(some.wants("n1") && !some.wants("n2"));
    }

    #[test]
    fn numbers_and_names_that_cannot_be_are_named() {
        let mut wrong = pool(r#"{"name":"p","template":"t","min_ready":3,"max":2,"starts_at_once":0}"#);
        wrong.name = "x".repeat(43).parse().unwrap();
        let fields: Vec<_> = wrong.validate().unwrap_err().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["name", "min_ready", "starts_at_once"]);
    }
}
