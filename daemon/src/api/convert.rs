//! Between the messages of this API and the domain.

use roost_proto::convert::{InvalidMessage, WireEnum, parse, require};
use roost_proto::id::{SandboxId, SandboxName};
use roost_proto::model::SandboxSpec;
use roost_proto::node as wire;
use roost_proto::types::SandboxObserved;

use super::exec::{ExecSpec, TerminalSize};
use crate::sandbox::{Desired, Origin, View};

/// Most bytes of an exec's command and environment: what a sandbox's own
/// command may have, and half of what the kernel takes.
const EXEC_ARGUMENTS_MAX_BYTES: usize = 64 << 10;
/// Largest terminal edge: the kernel's own type.
const TERMINAL_MAX: u32 = u16::MAX as u32;

/// The message for one sandbox.
pub(super) fn sandbox(view: View) -> wire::Sandbox {
    let desired = &*view.desired;
    wire::Sandbox {
        from_central: desired.origin == Origin::Central,
        created_at_unix_ms: desired.created_at_unix_ms,
        observed: Some(SandboxObserved::new(&desired.id, view.observed)),
        desired: Some(desired_sandbox(desired)),
    }
}

fn desired_sandbox(desired: &Desired) -> wire::DesiredSandbox {
    wire::DesiredSandbox {
        sandbox_id: desired.id.to_string(),
        generation: desired.generation,
        run_state: desired.run_state.to_wire(),
        restart_count: desired.restart_count,
        spec: Some(desired.spec.clone().into()),
        tenant: desired.tenant.to_string(),
        name: desired.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        resources: desired.resources.clone().map(Into::into),
        binding: desired.binding.as_deref().cloned().map(Into::into),
        pool: desired.pool.as_ref().map(ToString::to_string).unwrap_or_default(),
        paused: desired.paused,
        lifetime: desired.lifetime.map(Into::into),
        ttl_count: desired.ttl_count,
    }
}

/// Reads the id that nearly every request carries.
pub(super) fn sandbox_id(text: &str) -> Result<SandboxId, InvalidMessage> {
    parse("sandbox_id", text)
}

/// Id, name and validated spec of a create.
pub(super) fn create(
    request: wire::CreateSandboxRequest,
) -> Result<(SandboxId, Option<SandboxName>, SandboxSpec), InvalidMessage> {
    let id = sandbox_id(&request.sandbox_id)?;
    let name = if request.name.is_empty() { None } else { Some(parse("name", &request.name)?) };
    let spec = require("spec", request.spec)?.try_into()?;
    Ok((id, name, spec))
}

/// Sandbox and program of an exec.
pub(super) fn exec_start(start: wire::ExecStart) -> Result<(SandboxId, ExecSpec), InvalidMessage> {
    let id = sandbox_id(&start.sandbox_id)?;
    let size = start.size.map(terminal_size).transpose()?;
    let spec = ExecSpec {
        command: start.command,
        env: start.env.into_iter().collect(),
        working_dir: (!start.working_dir.is_empty()).then_some(start.working_dir),
        terminal: start.tty.then(|| size.unwrap_or_default()),
        stdin: start.stdin,
    };
    check_exec(&spec)?;
    Ok((id, spec))
}

fn check_exec(spec: &ExecSpec) -> Result<(), InvalidMessage> {
    let fault = |field: &str, problem: &str| Err(InvalidMessage::field(field, problem));
    if spec.command.first().is_none_or(String::is_empty) {
        return fault("command", "must begin with a program");
    }
    if spec.command.iter().any(|argument| argument.contains('\0')) {
        return fault("command", "must not contain NUL");
    }
    if spec.env.iter().any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')) {
        return fault("env", "a name must not be empty or contain \"=\", and neither name nor value may contain NUL");
    }
    if spec.working_dir.as_ref().is_some_and(|dir| !dir.starts_with('/') || dir.contains('\0')) {
        return fault("working_dir", "must be an absolute path");
    }
    let bytes = spec.command.iter().map(String::len).sum::<usize>()
        + spec.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if bytes > EXEC_ARGUMENTS_MAX_BYTES {
        return fault("command", "takes more than 64 KiB with env: pass large data on standard input");
    }
    Ok(())
}

/// A terminal size that the kernel can hold.
pub(super) fn terminal_size(size: wire::TerminalSize) -> Result<TerminalSize, InvalidMessage> {
    let edge = |field: &str, value: u32| match u16::try_from(value) {
        Ok(edge) if edge > 0 => Ok(edge),
        _ => Err(InvalidMessage::field(field, format!("{value} is out of range: use 1 to {TERMINAL_MAX}"))),
    };
    Ok(TerminalSize { columns: edge("size.columns", size.columns)?, rows: edge("size.rows", size.rows)? })
}

/// A signal number of Linux.
pub(super) fn signal(number: u32) -> Result<i32, InvalidMessage> {
    match i32::try_from(number) {
        Ok(signal @ 1..=64) => Ok(signal),
        _ => Err(InvalidMessage::field("signal", format!("{number} is no signal: use 1 to 64"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> wire::ExecStart {
        wire::ExecStart {
            sandbox_id: SandboxId::random().to_string(),
            command: vec!["/bin/true".into()],
            ..wire::ExecStart::default()
        }
    }

    fn field(start: wire::ExecStart) -> String {
        exec_start(start).unwrap_err().0.remove(0).field
    }

    #[test]
    fn an_exec_names_the_field_that_is_wrong() {
        assert_eq!(field(wire::ExecStart { command: vec![], ..start() }), "command");
        assert_eq!(field(wire::ExecStart { command: vec!["a\0".into()], ..start() }), "command");
        assert_eq!(field(wire::ExecStart { command: vec!["x".repeat(70_000)], ..start() }), "command");
        assert_eq!(field(wire::ExecStart { working_dir: "tmp".into(), ..start() }), "working_dir");
        assert_eq!(field(wire::ExecStart { env: [("A=B".into(), "c".into())].into(), ..start() }), "env");
        assert_eq!(field(wire::ExecStart { sandbox_id: "box".into(), ..start() }), "sandbox_id");
    }

    #[test]
    fn a_terminal_without_size_gets_the_usual_one() {
        let (_, spec) = exec_start(wire::ExecStart { tty: true, ..start() }).unwrap();
        assert_eq!(spec.terminal, Some(TerminalSize { columns: 80, rows: 24 }));
        let (_, spec) = exec_start(start()).unwrap();
        assert_eq!(spec.terminal, None);
    }

    #[test]
    fn sizes_and_signals_outside_the_kernels_range_are_refused() {
        assert!(terminal_size(wire::TerminalSize { columns: 0, rows: 24 }).is_err());
        assert!(terminal_size(wire::TerminalSize { columns: 80, rows: 65_536 }).is_err());
        assert!(signal(0).is_err());
        assert!(signal(65).is_err());
        assert_eq!(signal(15), Ok(15));
    }
}
