//! Restart policies, and what is told of ends.

use super::{InvalidMessage, WireEnum, wire_enum};
use crate::model::{LastEnd, OomVictim, OutOfMemory, Part, Restart, RestartPolicy};
use crate::types as wire;

wire_enum!(RestartPolicy, wire::RestartPolicy, "restart", {
    Never <=> Never, OnFailure <=> OnFailure, Always <=> Always,
});
wire_enum!(Part, wire::Part, "part", {
    Application <=> Application, WindowManager <=> WindowManager, Display <=> Display,
});

impl From<Restart> for wire::Restart {
    fn from(r: Restart) -> Self {
        Self {
            application: r.application.to_wire(),
            window_manager: r.window_manager.to_wire(),
            display: r.display.to_wire(),
            backoff_ms: r.backoff_ms,
            max_backoff_ms: r.max_backoff_ms,
            stable_ms: r.stable_ms,
        }
    }
}

impl TryFrom<wire::Restart> for Restart {
    type Error = InvalidMessage;

    fn try_from(r: wire::Restart) -> Result<Self, InvalidMessage> {
        Ok(Self {
            application: RestartPolicy::from_wire(r.application)?,
            window_manager: RestartPolicy::from_wire(r.window_manager)?,
            display: RestartPolicy::from_wire(r.display)?,
            backoff_ms: r.backoff_ms,
            max_backoff_ms: r.max_backoff_ms,
            stable_ms: r.stable_ms,
        })
    }
}

impl From<LastEnd> for wire::LastEnd {
    fn from(e: LastEnd) -> Self {
        Self { part: e.part.to_wire(), reason: e.reason, exit_code: e.exit_code, at_unix_ms: e.at_unix_ms }
    }
}

impl TryFrom<wire::LastEnd> for LastEnd {
    type Error = InvalidMessage;

    fn try_from(e: wire::LastEnd) -> Result<Self, InvalidMessage> {
        let part = Part::from_wire(e.part)?;
        Ok(Self { part, reason: e.reason, exit_code: e.exit_code, at_unix_ms: e.at_unix_ms })
    }
}

impl From<OutOfMemory> for wire::OutOfMemory {
    fn from(o: OutOfMemory) -> Self {
        let victim = |v: OomVictim| wire::OomVictim {
            process: v.process,
            pid: v.pid,
            part: v.part.to_wire(),
            at_unix_ms: v.at_unix_ms,
        };
        Self { kills: o.kills, last: o.last.map(victim) }
    }
}

impl TryFrom<wire::OutOfMemory> for OutOfMemory {
    type Error = InvalidMessage;

    fn try_from(o: wire::OutOfMemory) -> Result<Self, InvalidMessage> {
        let victim = |v: wire::OomVictim| {
            let part = Part::from_wire(v.part)?;
            Ok(OomVictim { process: v.process, pid: v.pid, part, at_unix_ms: v.at_unix_ms })
        };
        Ok(Self { kills: o.kills, last: o.last.map(victim).transpose()? })
    }
}
