//! Claims and bindings.

use super::volume::mounts;
use super::{InvalidMessage, WireEnum, optional, parse, require, wire_enum};
use crate::model::{Binding, BindingState, ClaimContract, Pool, PoolSpec, PoolUpdate, ScreenSize, Validate};
use crate::{node, types as wire};

wire_enum!(PoolUpdate, node::PoolUpdate, "update", { OnReplenish <=> OnReplenish, Recreate <=> Recreate });

impl From<PoolSpec> for node::PoolSpec {
    fn from(p: PoolSpec) -> Self {
        Self {
            name: p.name.into(),
            spec: Some(p.spec.into()),
            min_ready: p.min_ready,
            max: p.max,
            starts_at_once: p.starts_at_once,
            demand_window_ms: p.demand_window_ms,
            update: p.update.to_wire(),
        }
    }
}

impl TryFrom<node::PoolSpec> for PoolSpec {
    type Error = InvalidMessage;

    fn try_from(p: node::PoolSpec) -> Result<Self, InvalidMessage> {
        let pool = Self {
            name: parse("name", &p.name)?,
            spec: require("spec", p.spec)?.try_into()?,
            min_ready: p.min_ready,
            max: p.max,
            starts_at_once: p.starts_at_once,
            demand_window_ms: p.demand_window_ms,
            update: PoolUpdate::from_wire(p.update)?,
        };
        pool.validate().map_err(InvalidMessage)?;
        Ok(pool)
    }
}

impl From<Pool> for node::Pool {
    fn from(p: Pool) -> Self {
        Self {
            spec: Some(p.spec.into()),
            ready: p.ready,
            starting: p.starting,
            outdated: p.outdated,
            hits: p.hits,
            misses: p.misses,
            oldest_ready_ms: p.oldest_ready_ms,
            problem: p.problem.unwrap_or_default(),
        }
    }
}

impl TryFrom<node::Pool> for Pool {
    type Error = InvalidMessage;

    fn try_from(p: node::Pool) -> Result<Self, InvalidMessage> {
        Ok(Self {
            spec: require("spec", p.spec)?.try_into()?,
            ready: p.ready,
            starting: p.starting,
            outdated: p.outdated,
            hits: p.hits,
            misses: p.misses,
            oldest_ready_ms: p.oldest_ready_ms,
            problem: optional(p.problem),
        })
    }
}

impl From<ClaimContract> for wire::ClaimContract {
    fn from(c: ClaimContract) -> Self {
        Self { hook: c.hook, hook_timeout_ms: c.hook_timeout_ms }
    }
}

impl From<wire::ClaimContract> for ClaimContract {
    fn from(c: wire::ClaimContract) -> Self {
        Self { hook: c.hook, hook_timeout_ms: c.hook_timeout_ms }
    }
}

impl From<Binding> for wire::Binding {
    fn from(b: Binding) -> Self {
        Self {
            claim_id: b.claim_id.into(),
            env: b.env.into_iter().collect(),
            secrets: b.secrets.into_iter().collect(),
            identity: b.identity.into_iter().collect(),
            hostname: b.hostname.unwrap_or_default(),
            width_px: b.screen.map_or(0, |s| s.width_px),
            height_px: b.screen.map_or(0, |s| s.height_px),
            volumes: b.volumes.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Binding> for Binding {
    type Error = InvalidMessage;

    fn try_from(b: wire::Binding) -> Result<Self, InvalidMessage> {
        let screen = ScreenSize { width_px: b.width_px, height_px: b.height_px };
        let binding = Self {
            claim_id: parse("binding.claim_id", &b.claim_id)?,
            env: b.env.into_iter().collect(),
            secrets: b.secrets.into_iter().collect(),
            identity: b.identity.into_iter().collect(),
            hostname: optional(b.hostname),
            screen: (screen.width_px, screen.height_px).ne(&(0, 0)).then_some(screen),
            volumes: mounts("binding.", b.volumes)?,
        };
        let mut errors = Vec::new();
        binding.check("binding.", &mut errors);
        if errors.is_empty() { Ok(binding) } else { Err(InvalidMessage(errors)) }
    }
}

impl From<BindingState> for wire::BindingState {
    fn from(s: BindingState) -> Self {
        Self {
            claim_id: s.claim_id.into(),
            bound: s.bound,
            hook_exit_code: s.hook_exit_code,
            bound_at_unix_ms: s.bound_at_unix_ms,
        }
    }
}

impl TryFrom<wire::BindingState> for BindingState {
    type Error = InvalidMessage;

    fn try_from(s: wire::BindingState) -> Result<Self, InvalidMessage> {
        Ok(Self {
            claim_id: parse("binding.claim_id", &s.claim_id)?,
            bound: s.bound,
            hook_exit_code: s.hook_exit_code,
            bound_at_unix_ms: s.bound_at_unix_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClaimId;
    use crate::model::VolumeMount;

    #[test]
    fn a_binding_survives_the_wire_and_its_faults_are_named() {
        let binding = Binding {
            env: [("A".into(), "b".into())].into(),
            secrets: ["key".into()].into(),
            identity: [("agent".into(), "agt-1".into())].into(),
            hostname: Some("desk".into()),
            screen: Some(ScreenSize { width_px: 1024, height_px: 768 }),
            volumes: vec![VolumeMount { name: "home".parse().unwrap(), path: "/home/agent".into(), read_only: true }],
            ..Binding::new(ClaimId::random())
        };
        assert_eq!(Binding::try_from(wire::Binding::from(binding.clone())), Ok(binding.clone()));
        let plain = Binding::new(ClaimId::random());
        assert_eq!(Binding::try_from(wire::Binding::from(plain.clone())), Ok(plain));
        let half = wire::Binding { height_px: 0, ..binding.into() };
        assert_eq!(Binding::try_from(half).unwrap_err().0[0].field, "binding.screen");
    }
}
