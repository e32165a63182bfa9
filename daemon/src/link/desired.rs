//! Reading central's desired state. Pure.

use std::sync::Arc;

use roost_proto::convert::{InvalidMessage, WireEnum, parse, require, resources};
use roost_proto::model::RunState;
use roost_proto::node as wire;

use crate::sandbox::{Desired, Origin};

/// Reads every sandbox of a message; `now_unix_ms` is their time of creation
/// on this node, where they are new to it.
///
/// One unreadable sandbox refuses the whole message: leaving it out of a full
/// list would delete it.
pub(super) fn read(sandboxes: Vec<wire::DesiredSandbox>, now_unix_ms: u64) -> Result<Vec<Desired>, InvalidMessage> {
    sandboxes
        .into_iter()
        .enumerate()
        .map(|(index, sandbox)| {
            one(sandbox, now_unix_ms).map_err(|mut error| {
                for fault in &mut error.0 {
                    fault.field = format!("sandboxes[{index}].{}", fault.field);
                }
                error
            })
        })
        .collect()
}

fn one(sandbox: wire::DesiredSandbox, now_unix_ms: u64) -> Result<Desired, InvalidMessage> {
    Ok(Desired {
        id: parse("sandbox_id", &sandbox.sandbox_id)?,
        name: if sandbox.name.is_empty() { None } else { Some(parse("name", &sandbox.name)?) },
        tenant: parse("tenant", &sandbox.tenant)?,
        origin: Origin::Central,
        generation: sandbox.generation,
        run_state: RunState::from_wire(sandbox.run_state)?,
        restart_count: sandbox.restart_count,
        spec: require("spec", sandbox.spec)?.try_into()?,
        resources: sandbox.resources.map(resources).transpose()?,
        asked_generation: None,
        created_at_unix_ms: now_unix_ms,
        pool: None,
        binding: sandbox.binding.map(TryInto::try_into).transpose()?.map(Arc::new),
        unconfirmed: false,
        paused: sandbox.paused,
        lifetime: sandbox.lifetime.map(TryInto::try_into).transpose()?,
        ttl_count: sandbox.ttl_count,
        clock: None,
        brings_files: false,
    })
}

#[cfg(test)]
mod tests {
    use roost_proto::id::SandboxId;
    use roost_proto::model::SandboxSpec;

    use super::*;

    fn sandbox() -> wire::DesiredSandbox {
        let spec: SandboxSpec = serde_json::from_str(r#"{"template":"bare","image":"roost/desktop"}"#).unwrap();
        wire::DesiredSandbox {
            sandbox_id: SandboxId::random().to_string(),
            generation: 3,
            run_state: RunState::Stopped.to_wire(),
            restart_count: 1,
            spec: Some(spec.into()),
            tenant: "default".into(),
            name: String::new(),
            resources: None,
            binding: None,
            pool: String::new(),
            paused: false,
            lifetime: None,
            ttl_count: 0,
        }
    }

    #[test]
    fn a_sandbox_is_read_whole_and_belongs_to_central() {
        let read = read(vec![sandbox()], 42).unwrap().remove(0);
        assert_eq!(read.origin, Origin::Central);
        assert_eq!((read.generation, read.restart_count, read.created_at_unix_ms), (3, 1, 42));
        assert_eq!((read.run_state, read.name), (RunState::Stopped, None));
        assert_eq!(read.resources, None, "an older central sends none");
    }

    #[test]
    fn changed_limits_are_read_beside_the_spec_and_checked() {
        let changed = roost_proto::model::Resources { pids_limit: 300, ..Default::default() };
        let with = |r: roost_proto::model::Resources| wire::DesiredSandbox { resources: Some(r.into()), ..sandbox() };
        let read_one = read(vec![with(changed.clone())], 0).unwrap().remove(0);
        assert_eq!(read_one.resources(), &changed);
        assert_ne!(read_one.spec.resources, changed);
        let error = read(vec![with(roost_proto::model::Resources { pids_limit: 1, ..changed })], 0).unwrap_err();
        assert_eq!(error.0[0].field, "sandboxes[0].resources.pids_limit");
    }

    #[test]
    fn one_unreadable_sandbox_refuses_all_and_is_named_by_its_place() {
        let broken = wire::DesiredSandbox { tenant: "Not A Label".into(), ..sandbox() };
        let error = read(vec![sandbox(), broken], 0).unwrap_err();
        assert_eq!(error.0[0].field, "sandboxes[1].tenant");
    }
}
