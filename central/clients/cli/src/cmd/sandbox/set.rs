//! `roost sandbox set`.

use std::path::PathBuf;

use roost_proto::model::{LifetimeChange, ResourcesChange, Sandbox, UpdateSandbox, Validate};
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

/// Changes what each sandbox may use and how long it lives, and waits until the
/// kernel enforces limits when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: SetArgs) -> Result<(), CliError> {
    let body = body(&args)?;
    if let Some(path) = args.socket.clone() {
        return set_local(app, &args, &body, path).await;
    }
    let client = app.client()?;
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

/// What is to change.
fn body(args: &SetArgs) -> Result<UpdateSandbox, CliError> {
    let (resources, lifetime) = (ResourcesChange::from(args.change), LifetimeChange::from(args.lifetime));
    let body = UpdateSandbox {
        resources: (resources != ResourcesChange::default()).then_some(resources),
        lifetime: (!lifetime.is_nothing()).then_some(lifetime),
    };
    if body.validate().is_err() {
        return Err(CliError::usage("nothing to change is given", "see roost sandbox set --help"));
    }
    Ok(body)
}

/// Changes sandboxes of the daemon on this machine, which central does not
/// know.
async fn set_local(app: &App, args: &SetArgs, body: &UpdateSandbox, path: Option<PathBuf>) -> Result<(), CliError> {
    let socket = NodeSocket::connect(socket_path(app, path)).await?;
    let printer = Printer::new(&app.console, args.output);
    let mut several = Several::new(app);
    let mut changed = Vec::new();
    for name in &args.sandboxes {
        let updated = set_one(&socket, name.as_str(), body.clone()).await;
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

async fn set_one(socket: &NodeSocket, name: &str, change: UpdateSandbox) -> Result<LocalSandbox, NodeSocketError> {
    let sandbox_id = find_local(socket, name).await?.id.to_string();
    let UpdateSandbox { resources, lifetime } = change;
    let request =
        UpdateSandboxRequest { sandbox_id, resources: resources.map(Into::into), lifetime: lifetime.map(Into::into) };
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
