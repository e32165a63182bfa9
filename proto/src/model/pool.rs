//! Pools: desktops that are kept ready for claims.

use serde::{Deserialize, Serialize};

use super::{FieldError, SandboxSpec, Validate};
use crate::id::PoolName;

/// Most desktops that one pool may hold on a node.
const MAX: u32 = 2_000;
/// Most starts under way at once: they take CPU from what runs.
const MAX_STARTS_AT_ONCE: u32 = 64;
/// Longest time for which demand is held ready, in milliseconds.
const MAX_DEMAND_WINDOW_MS: u32 = 600_000;

/// How a changed pool replaces what it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PoolUpdate {
    /// An old one goes when a new one is ready in its place.
    #[default]
    OnReplenish,
    /// Old ones go at once.
    Recreate,
}

/// Desktops that are kept ready for claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// Unique on the node.
    pub name: PoolName,
    /// What each is.
    pub spec: SandboxSpec,
    /// Fewest that are kept ready.
    pub min_ready: u32,
    /// Most that exist unclaimed at once, those that are starting included.
    pub max: u32,
    /// Starts under way at once.
    #[serde(default = "default_starts_at_once")]
    pub starts_at_once: u32,
    /// Claims of so many milliseconds are held ready on top of `min_ready`, by
    /// the recent rate of claims; 0 turns that off.
    #[serde(default)]
    pub demand_window_ms: u32,
    /// How a change replaces what there is.
    #[serde(default)]
    pub update: PoolUpdate,
}

pub(super) fn default_starts_at_once() -> u32 {
    2
}

impl PoolSpec {
    /// Checks the numbers of a pool, of one node or of many.
    pub(super) fn check_counts(
        min_ready: u32,
        max: u32,
        starts_at_once: u32,
        demand_window_ms: u32,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let field = |name: &str| format!("{path}{name}");
        if max == 0 || max > MAX {
            errors.push(FieldError::new(field("max"), format!("{max} is out of range: use 1 to {MAX}")));
        }
        if min_ready > max {
            let problem = format!("{min_ready} is more than max ({max}): lower it, or raise max");
            errors.push(FieldError::new(field("min_ready"), problem));
        }
        if starts_at_once == 0 || starts_at_once > MAX_STARTS_AT_ONCE {
            let problem = format!("{starts_at_once} is out of range: use 1 to {MAX_STARTS_AT_ONCE}");
            errors.push(FieldError::new(field("starts_at_once"), problem));
        }
        if demand_window_ms > MAX_DEMAND_WINDOW_MS {
            let problem = format!("{demand_window_ms} is too long: use at most {MAX_DEMAND_WINDOW_MS}");
            errors.push(FieldError::new(field("demand_window_ms"), problem));
        }
    }
}

impl Validate for PoolSpec {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        self.spec.check(&format!("{path}spec."), errors);
        if !self.spec.volumes.is_empty() {
            let problem = "the desktops of a pool are nobody's yet: give volumes with the claim";
            errors.push(FieldError::new(format!("{path}spec.volumes"), problem));
        }
        Self::check_counts(self.min_ready, self.max, self.starts_at_once, self.demand_window_ms, path, errors);
    }
}

/// A pool and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// What it is to be.
    pub spec: PoolSpec,
    /// Desktops that can be claimed now; outdated ones are among them.
    pub ready: u32,
    /// Desktops that are starting.
    pub starting: u32,
    /// Ready ones of an older spec.
    pub outdated: u32,
    /// Claims that found one ready, since the daemon started.
    pub hits: u64,
    /// Claims that found none.
    pub misses: u64,
    /// Age of the oldest ready one, in milliseconds; 0 without one.
    pub oldest_ready_ms: u64,
    /// Why the last start failed; absent while starts succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
