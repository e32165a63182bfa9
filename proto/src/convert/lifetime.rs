//! How long sandboxes live.

use super::{InvalidMessage, WireEnum, wire_enum};
use crate::model::{Ends, ExpiryAction, ExpiryReason, Lifetime, LifetimeChange, Validate};
use crate::types as wire;

wire_enum!(ExpiryAction, wire::ExpiryAction, "lifetime.idle_action", { Stop <=> Stop, Pause <=> Pause, Delete <=> Delete });
wire_enum!(ExpiryReason, wire::ExpiryReason, "ends.reason", { Ttl <=> Ttl, Idle <=> Idle, Lifetime <=> Lifetime });

impl From<Lifetime> for wire::Lifetime {
    fn from(l: Lifetime) -> Self {
        Self {
            ttl_ms: l.ttl_ms,
            max_ms: l.max_ms,
            idle_timeout_ms: l.idle_timeout_ms,
            idle_action: l.idle_action.to_wire(),
            idle_cpu_millis: l.idle_cpu_millis,
        }
    }
}

impl TryFrom<wire::Lifetime> for Lifetime {
    type Error = InvalidMessage;

    fn try_from(l: wire::Lifetime) -> Result<Self, InvalidMessage> {
        let lifetime = Self {
            ttl_ms: l.ttl_ms,
            max_ms: l.max_ms,
            idle_timeout_ms: l.idle_timeout_ms,
            idle_action: ExpiryAction::from_wire(l.idle_action)?,
            idle_cpu_millis: l.idle_cpu_millis,
        };
        let mut errors = Vec::new();
        lifetime.check("lifetime.", &mut errors);
        if errors.is_empty() { Ok(lifetime) } else { Err(InvalidMessage(errors)) }
    }
}

impl From<LifetimeChange> for wire::LifetimeChange {
    fn from(c: LifetimeChange) -> Self {
        Self {
            ttl_ms: c.ttl_ms,
            idle_timeout_ms: c.idle_timeout_ms,
            idle_action: c.idle_action.map_or(0, WireEnum::to_wire),
            idle_cpu_millis: c.idle_cpu_millis,
        }
    }
}

impl TryFrom<wire::LifetimeChange> for LifetimeChange {
    type Error = InvalidMessage;

    fn try_from(c: wire::LifetimeChange) -> Result<Self, InvalidMessage> {
        let idle_action = (c.idle_action != 0).then(|| ExpiryAction::from_wire(c.idle_action)).transpose()?;
        Ok(Self {
            ttl_ms: c.ttl_ms,
            idle_timeout_ms: c.idle_timeout_ms,
            idle_action,
            idle_cpu_millis: c.idle_cpu_millis,
        })
    }
}

impl From<Ends> for wire::Ends {
    fn from(e: Ends) -> Self {
        Self { at_unix_ms: e.at_unix_ms, reason: e.reason.to_wire(), action: e.action.to_wire() }
    }
}

impl TryFrom<wire::Ends> for Ends {
    type Error = InvalidMessage;

    fn try_from(e: wire::Ends) -> Result<Self, InvalidMessage> {
        Ok(Self {
            at_unix_ms: e.at_unix_ms,
            reason: ExpiryReason::from_wire(e.reason)?,
            action: ExpiryAction::from_wire(e.action)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_and_changes_survive_the_wire() {
        let lifetime = Lifetime {
            ttl_ms: 1_000,
            max_ms: 2_000,
            idle_timeout_ms: 10_000,
            idle_action: ExpiryAction::Pause,
            idle_cpu_millis: 7,
        };
        assert_eq!(Lifetime::try_from(wire::Lifetime::from(lifetime)), Ok(lifetime));
        let short = wire::Lifetime { ttl_ms: 1, ..lifetime.into() };
        assert_eq!(Lifetime::try_from(short).unwrap_err().0[0].field, "lifetime.ttl_ms");
        let change =
            LifetimeChange { ttl_ms: Some(0), idle_action: Some(ExpiryAction::Delete), ..LifetimeChange::default() };
        for change in [change, LifetimeChange::default()] {
            assert_eq!(LifetimeChange::try_from(wire::LifetimeChange::from(change)), Ok(change));
        }
        let ends = Ends { at_unix_ms: 5, reason: ExpiryReason::Idle, action: ExpiryAction::Stop };
        assert_eq!(Ends::try_from(wire::Ends::from(ends)), Ok(ends));
    }
}
