//! Sandboxes: spec and observation.

use super::image::pull_policy_or;
use super::volume::mounts;
use super::{InvalidMessage, WireEnum, optional, parse, require, wire_enum};
use crate::model::{
    DisplayKind, DisplaySpec, DisplayState, Isolation, Observed, OutOfMemory, Phase, PullPolicy, Readiness, Resources,
    ResourcesChange, RunState, SandboxSpec, Stage, StageTiming, Usage, Validate, WindowManager,
};
use crate::types as wire;

wire_enum!(DisplayKind, wire::DisplayKind, "display.kind", { Xvfb <=> Xvfb });
wire_enum!(WindowManager, wire::WindowManager, "window_manager", { None <=> None, Image <=> Image, Platform <=> Platform });
wire_enum!(RunState, wire::RunState, "run_state", { Running <=> Running, Stopped <=> Stopped, Deleted <=> Deleted });
wire_enum!(Phase, wire::Phase, "phase", {
    Pending <=> Pending, Starting <=> Starting, Ready <=> Ready, Stopping <=> Stopping,
    Stopped <=> Stopped, Failed <=> Failed, Deleting <=> Deleting, Gone <=> Gone, Paused <=> Paused,
});
wire_enum!(Stage, wire::Stage, "stage", {
    Ledger <=> Ledger, Image <=> Image, Namespaces <=> Namespaces, Rootfs <=> Rootfs, DisplayContainer <=> DisplayContainer,
    DisplayServer <=> DisplayServer, Workload <=> Workload, WindowManager <=> WindowManager,
    Readiness <=> Readiness, FirstFrame <=> FirstFrame,
});

impl From<SandboxSpec> for wire::SandboxSpec {
    fn from(spec: SandboxSpec) -> Self {
        Self {
            template: spec.template.into(),
            image: spec.image.into(),
            pull_policy: spec.pull_policy.to_wire(),
            command: spec.command,
            env: spec.env.into_iter().collect(),
            working_dir: spec.working_dir.unwrap_or_default(),
            display: Some(spec.display.into()),
            window_manager: spec.window_manager.to_wire(),
            readiness: Some(spec.readiness.into()),
            resources: Some(spec.resources.into()),
            isolation: Some(wire::Isolation { nested_user_namespaces: spec.isolation.nested_user_namespaces }),
            stop_grace_ms: spec.stop_grace_ms,
            start_timeout_ms: spec.start_timeout_ms,
            restart: Some(spec.restart.into()),
            claim: Some(spec.claim.into()),
            volumes: spec.volumes.into_iter().map(Into::into).collect(),
            lifetime: (!spec.lifetime.is_default()).then(|| spec.lifetime.into()),
        }
    }
}

impl TryFrom<wire::SandboxSpec> for SandboxSpec {
    type Error = InvalidMessage;

    fn try_from(spec: wire::SandboxSpec) -> Result<Self, InvalidMessage> {
        let spec = Self {
            template: parse("template", &spec.template)?,
            image: parse("image", &spec.image)?,
            pull_policy: pull_policy_or(spec.pull_policy, PullPolicy::IfNotPresent)?,
            command: spec.command,
            env: spec.env.into_iter().collect(),
            working_dir: optional(spec.working_dir),
            display: require("display", spec.display)?.try_into()?,
            window_manager: WindowManager::from_wire(spec.window_manager)?,
            readiness: spec.readiness.unwrap_or_default().into(),
            resources: require("resources", spec.resources)?.into(),
            isolation: spec.isolation.unwrap_or_default().into(),
            stop_grace_ms: spec.stop_grace_ms,
            start_timeout_ms: spec.start_timeout_ms,
            restart: spec.restart.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            claim: spec.claim.map(Into::into).unwrap_or_default(),
            volumes: mounts("", spec.volumes)?,
            lifetime: spec.lifetime.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        };
        spec.validate().map_err(InvalidMessage)?;
        Ok(spec)
    }
}

impl From<DisplaySpec> for wire::DisplaySpec {
    fn from(display: DisplaySpec) -> Self {
        Self {
            kind: display.kind.to_wire(),
            width_px: display.width_px,
            height_px: display.height_px,
            glx: display.glx,
        }
    }
}

impl TryFrom<wire::DisplaySpec> for DisplaySpec {
    type Error = InvalidMessage;

    fn try_from(display: wire::DisplaySpec) -> Result<Self, InvalidMessage> {
        Ok(Self {
            kind: DisplayKind::from_wire(display.kind)?,
            width_px: display.width_px,
            height_px: display.height_px,
            glx: display.glx,
        })
    }
}

impl From<Readiness> for wire::Readiness {
    fn from(readiness: Readiness) -> Self {
        Self {
            probe: match readiness {
                Readiness::None => None,
                Readiness::WindowTitle(title) => Some(wire::readiness::Probe::WindowTitle(title)),
            },
        }
    }
}

impl From<wire::Readiness> for Readiness {
    fn from(readiness: wire::Readiness) -> Self {
        match readiness.probe {
            None => Self::None,
            Some(wire::readiness::Probe::WindowTitle(title)) => Self::WindowTitle(title),
        }
    }
}

impl From<wire::Isolation> for Isolation {
    fn from(isolation: wire::Isolation) -> Self {
        Self { nested_user_namespaces: isolation.nested_user_namespaces }
    }
}

impl From<Resources> for wire::Resources {
    fn from(r: Resources) -> Self {
        Self {
            cpu_request_millis: r.cpu_request_millis,
            cpu_limit_millis: r.cpu_limit_millis,
            memory_request_bytes: r.memory_request_bytes,
            memory_limit_bytes: r.memory_limit_bytes,
            pids_limit: r.pids_limit,
            shm_bytes: r.shm_bytes,
            disk_limit_bytes: r.disk_limit_bytes,
        }
    }
}

impl From<wire::Resources> for Resources {
    fn from(r: wire::Resources) -> Self {
        Self {
            cpu_request_millis: r.cpu_request_millis,
            cpu_limit_millis: r.cpu_limit_millis,
            memory_request_bytes: r.memory_request_bytes,
            memory_limit_bytes: r.memory_limit_bytes,
            pids_limit: r.pids_limit,
            shm_bytes: r.shm_bytes,
            disk_limit_bytes: r.disk_limit_bytes,
        }
    }
}

impl From<ResourcesChange> for wire::ResourcesChange {
    fn from(c: ResourcesChange) -> Self {
        Self {
            cpu_request_millis: c.cpu_request_millis,
            cpu_limit_millis: c.cpu_limit_millis,
            memory_request_bytes: c.memory_request_bytes,
            memory_limit_bytes: c.memory_limit_bytes,
            pids_limit: c.pids_limit,
            shm_bytes: c.shm_bytes,
            disk_limit_bytes: c.disk_limit_bytes,
        }
    }
}

impl From<wire::ResourcesChange> for ResourcesChange {
    fn from(c: wire::ResourcesChange) -> Self {
        Self {
            cpu_request_millis: c.cpu_request_millis,
            cpu_limit_millis: c.cpu_limit_millis,
            memory_request_bytes: c.memory_request_bytes,
            memory_limit_bytes: c.memory_limit_bytes,
            pids_limit: c.pids_limit,
            shm_bytes: c.shm_bytes,
            disk_limit_bytes: c.disk_limit_bytes,
        }
    }
}

/// Resources that stand alone on the wire, checked.
///
/// # Errors
/// Every rule that they break, under `resources.`.
pub fn resources(message: wire::Resources) -> Result<Resources, InvalidMessage> {
    let resources = Resources::from(message);
    let mut errors = Vec::new();
    resources.check("resources.", &mut errors);
    if errors.is_empty() { Ok(resources) } else { Err(InvalidMessage(errors)) }
}

impl From<Usage> for wire::Usage {
    fn from(u: Usage) -> Self {
        Self {
            memory_bytes: u.memory_bytes,
            cpu_us: u.cpu_us,
            shm_bytes: u.shm_bytes,
            pids: u.pids,
            disk_bytes: u.disk_bytes,
            pressure: u.pressure.map(Into::into),
        }
    }
}

impl From<wire::Usage> for Usage {
    fn from(u: wire::Usage) -> Self {
        Self {
            memory_bytes: u.memory_bytes,
            cpu_us: u.cpu_us,
            shm_bytes: u.shm_bytes,
            pids: u.pids,
            disk_bytes: u.disk_bytes,
            pressure: u.pressure.map(Into::into),
        }
    }
}

impl From<StageTiming> for wire::StageTiming {
    fn from(t: StageTiming) -> Self {
        Self { stage: t.stage.to_wire(), begin_us: t.begin_us, duration_us: t.duration_us }
    }
}

impl TryFrom<wire::StageTiming> for StageTiming {
    type Error = InvalidMessage;

    fn try_from(t: wire::StageTiming) -> Result<Self, InvalidMessage> {
        Ok(Self { stage: Stage::from_wire(t.stage)?, begin_us: t.begin_us, duration_us: t.duration_us })
    }
}

impl wire::SandboxObserved {
    /// The message for one sandbox; [`Observed`] itself does not hold the id.
    #[must_use]
    pub fn new(sandbox_id: &crate::id::SandboxId, o: Observed) -> Self {
        Self {
            sandbox_id: sandbox_id.to_string(),
            observed_generation: o.observed_generation,
            revision: o.revision,
            phase: o.phase.to_wire(),
            stage: o.stage.map_or(0, WireEnum::to_wire),
            reason: o.reason.unwrap_or_default(),
            message: o.message.unwrap_or_default(),
            stages: o.stages.into_iter().map(Into::into).collect(),
            // The wire counts from 1, so that 0 can mean "not known".
            display_number: o.display.map_or(0, |d| d.number.saturating_add(1)),
            ready_at_unix_ms: o.ready_at_unix_ms.unwrap_or_default(),
            starts: o.starts,
            exit_code: o.exit_code,
            usage: o.usage.map(Into::into),
            restarts: o.restarts,
            next_restart_at_unix_ms: o.next_restart_at_unix_ms.unwrap_or_default(),
            last_end: o.last_end.map(Into::into),
            out_of_memory: (o.out_of_memory != OutOfMemory::default()).then(|| o.out_of_memory.into()),
            limits: o.limits.map(Into::into),
            binding: o.binding.map(Into::into),
            ends: o.ends.map(Into::into),
        }
    }
}

impl TryFrom<wire::SandboxObserved> for Observed {
    type Error = InvalidMessage;

    fn try_from(o: wire::SandboxObserved) -> Result<Self, InvalidMessage> {
        Ok(Self {
            observed_generation: o.observed_generation,
            revision: o.revision,
            phase: Phase::from_wire(o.phase)?,
            stage: if o.stage == 0 { None } else { Some(Stage::from_wire(o.stage)?) },
            reason: optional(o.reason),
            message: optional(o.message),
            stages: o.stages.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            display: o.display_number.checked_sub(1).map(|number| DisplayState { number }),
            ready_at_unix_ms: (o.ready_at_unix_ms != 0).then_some(o.ready_at_unix_ms),
            starts: o.starts,
            exit_code: o.exit_code,
            usage: o.usage.map(Into::into),
            restarts: o.restarts,
            next_restart_at_unix_ms: (o.next_restart_at_unix_ms != 0).then_some(o.next_restart_at_unix_ms),
            last_end: o.last_end.map(TryInto::try_into).transpose()?,
            out_of_memory: o.out_of_memory.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            limits: o.limits.map(Into::into),
            binding: o.binding.map(TryInto::try_into).transpose()?,
            ends: o.ends.map(TryInto::try_into).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClaimId, SandboxId};
    use crate::model::{BindingState, Ends, ExpiryAction, ExpiryReason, LastEnd, OomVictim, Part};

    fn spec() -> SandboxSpec {
        serde_json::from_str(
            r#"{"template":"desktop","image":"roost/desktop","command":["/bin/true","x"],"env":{"A":"b"},
                "working_dir":"/tmp","pull_policy":"always","display":{"glx":true},"readiness":{"window_title":"Roost"},
                "isolation":{"nested_user_namespaces":true},
                "restart":{"application":"always","display":"on-failure","backoff_ms":100},
                "claim":{"hook":true,"hook_timeout_ms":50},"lifetime":{"ttl_ms":5000},
                "volumes":[{"name":"home","path":"/home/agent","read_only":true}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_spec_survives_the_wire() {
        let message: wire::SandboxSpec = spec().into();
        assert_eq!(SandboxSpec::try_from(message), Ok(spec()));
    }

    #[test]
    fn a_spec_of_an_older_peer_pulls_what_is_missing() {
        let message = wire::SandboxSpec { pull_policy: 0, ..spec().into() };
        assert_eq!(SandboxSpec::try_from(message).unwrap().pull_policy, PullPolicy::IfNotPresent);
        let unknown = wire::SandboxSpec { pull_policy: 9, ..spec().into() };
        let InvalidMessage(errors) = SandboxSpec::try_from(unknown).unwrap_err();
        assert_eq!(errors[0].field, "pull_policy");
    }

    #[test]
    fn a_spec_from_outside_is_validated() {
        let mut message: wire::SandboxSpec = spec().into();
        if let Some(resources) = &mut message.resources {
            resources.shm_bytes = 1;
        }
        let InvalidMessage(errors) = SandboxSpec::try_from(message).unwrap_err();
        assert_eq!(errors[0].field, "resources.shm_bytes");
    }

    #[test]
    fn an_observation_survives_the_wire() {
        let observed = Observed {
            phase: Phase::Starting,
            stage: Some(Stage::Rootfs),
            stages: vec![StageTiming { stage: Stage::Ledger, begin_us: 0, duration_us: 900 }],
            display: Some(DisplayState { number: 0 }),
            exit_code: Some(0),
            usage: Some(Usage {
                memory_bytes: 1,
                cpu_us: 2,
                shm_bytes: 3,
                pids: 4,
                disk_bytes: Some(0),
                pressure: None,
            }),
            restarts: 5,
            next_restart_at_unix_ms: Some(6),
            last_end: Some(LastEnd {
                part: Part::Display,
                reason: "display-exited".into(),
                exit_code: Some(0),
                at_unix_ms: 7,
            }),
            out_of_memory: OutOfMemory {
                kills: 8,
                last: Some(OomVictim { process: "hog".into(), pid: 9, part: Part::Application, at_unix_ms: 10 }),
            },
            limits: Some(Resources { disk_limit_bytes: 1 << 30, ..Resources::default() }),
            binding: Some(BindingState {
                claim_id: ClaimId::random(),
                bound: true,
                hook_exit_code: Some(0),
                bound_at_unix_ms: 11,
            }),
            ends: Some(Ends { at_unix_ms: 12, reason: ExpiryReason::Ttl, action: ExpiryAction::Delete }),
            ..Observed::pending()
        };
        let message = wire::SandboxObserved::new(&SandboxId::random(), observed.clone());
        assert_eq!(Observed::try_from(message), Ok(observed));
    }

    #[test]
    fn a_spec_of_a_peer_without_restart_policies_gets_the_defaults() {
        let message = wire::SandboxSpec { restart: None, ..spec().into() };
        assert_eq!(SandboxSpec::try_from(message).unwrap().restart, crate::model::Restart::default());
    }

    #[test]
    fn an_unknown_phase_is_refused_by_name() {
        let mut message = wire::SandboxObserved::new(&SandboxId::random(), Observed::pending());
        message.phase = 99;
        let InvalidMessage(errors) = Observed::try_from(message).unwrap_err();
        assert_eq!(errors[0].field, "phase");
    }
}
