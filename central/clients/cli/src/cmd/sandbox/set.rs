//! `roost sandbox set`.

use std::path::PathBuf;

use roost_proto::model::{ResourcesChange, Sandbox, UpdateSandbox};
use roost_proto::node::UpdateSandboxRequest;

use super::super::debug::{LocalSandbox, find_local};
use super::super::{App, Several, socket_path};
use super::wait_for;
use crate::cli::SetArgs;
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};
use crate::output::Printer;
use crate::wait::progress::label;
use crate::wait::{Goal, Subject};

/// Changes what each sandbox may use, and waits until the kernel enforces it
/// when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: SetArgs) -> Result<(), CliError> {
    if let Some(path) = args.socket.clone() {
        return set_local(app, &args, path).await;
    }
    let client = app.client()?;
    let body = UpdateSandbox { resources: ResourcesChange::from(args.change) };
    let mut several = Several::new(app);
    let mut changed = Vec::new();
    for name in &args.sandboxes {
        let updated = client.update_sandbox(name, &body, args.if_generation).await;
        changed.extend(several.take(updated.map_err(CliError::from))?);
    }
    if args.waiting.wait {
        let subjects = changed.iter().map(Subject::of).collect();
        wait_for(app, &mut several, Goal::Updated, subjects, args.waiting.limit.timeout).await?;
    } else {
        show(app, &args, &changed)?;
    }
    several.finish()
}

/// Changes sandboxes of the daemon on this machine, which central does not
/// know.
async fn set_local(app: &App, args: &SetArgs, path: Option<PathBuf>) -> Result<(), CliError> {
    let socket = NodeSocket::connect(socket_path(app, path)).await?;
    let printer = Printer::new(&app.console, args.output);
    let mut several = Several::new(app);
    let mut changed = Vec::new();
    for name in &args.sandboxes {
        let updated = set_one(&socket, name.as_str(), ResourcesChange::from(args.change)).await;
        changed.extend(several.take(updated.map_err(CliError::from))?);
    }
    match changed.as_slice() {
        many if many.len() > 1 && printer.is_data() => printer.data(&many)?,
        all => {
            for sandbox in all {
                let name = sandbox.label();
                printer.one(sandbox, &name, || format!("{name} changed"))?;
            }
        }
    }
    several.finish()
}

async fn set_one(socket: &NodeSocket, name: &str, change: ResourcesChange) -> Result<LocalSandbox, NodeSocketError> {
    let sandbox_id = find_local(socket, name).await?.id.to_string();
    let request = UpdateSandboxRequest { sandbox_id, resources: Some(change.into()) };
    Ok(LocalSandbox::try_from(socket.api().update_sandbox(request).await?.into_inner())?)
}

fn show(app: &App, args: &SetArgs, changed: &[Sandbox]) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, args.output);
    match changed {
        many if many.len() > 1 && printer.is_data() => printer.data(&many)?,
        all => {
            for sandbox in all {
                let name = label(sandbox);
                printer.one(sandbox, &name, || format!("{name} changed"))?;
            }
        }
    }
    Ok(())
}
