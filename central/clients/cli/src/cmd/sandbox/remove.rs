//! `roost sandbox rm`.

use roost_proto::id::SandboxName;
use roost_proto::model::Sandbox;

use super::super::{App, Several, confirm};
use super::{find, wait_for};
use crate::cli::RemoveArgs;
use crate::client::{ClientError, Filter};
use crate::error::CliError;
use crate::output::human;
use crate::wait::progress::label;
use crate::wait::{Goal, Subject};

/// Removes sandboxes, and waits until they are gone when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: RemoveArgs) -> Result<(), CliError> {
    let mut several = Several::new(app);
    let mut subjects = Vec::new();
    for (name, sandbox) in targets(app, &args, &mut several).await? {
        if !remove(app, &args, &name, &mut several).await? {
            continue;
        }
        match sandbox {
            Some(sandbox) if args.waiting.wait => subjects.push(Subject::of(&sandbox)),
            Some(sandbox) => app.console.line(&format!("{} deleting", label(&sandbox)))?,
            None => app.console.line(&format!("{name} deleting"))?,
        }
    }
    wait_for(app, &mut several, Goal::Gone, subjects, args.waiting.limit.timeout).await?;
    several.finish()
}

/// What to remove, with the sandbox itself where it was looked up: a wait
/// needs its id, as the name may be given away the moment it is free.
async fn targets(
    app: &App,
    args: &RemoveArgs,
    several: &mut Several<'_>,
) -> Result<Vec<(SandboxName, Option<Sandbox>)>, CliError> {
    if args.all {
        let sandboxes = app.client()?.list_sandboxes(&Filter::default()).await?;
        if sandboxes.is_empty() {
            app.console.note("there are no sandboxes");
            return Ok(Vec::new());
        }
        confirm_all(args, sandboxes.len())?;
        return Ok(sandboxes.into_iter().filter_map(by_id).collect());
    }
    if !args.waiting.wait {
        return Ok(args.sandboxes.iter().cloned().map(|name| (name, None)).collect());
    }
    let mut found = Vec::new();
    for name in &args.sandboxes {
        match find(app, name).await {
            Err(CliError::Client(error)) if is_ignored(args, &error) => {}
            outcome => found.extend(several.take(outcome)?.and_then(by_id)),
        }
    }
    Ok(found)
}

fn by_id(sandbox: Sandbox) -> Option<(SandboxName, Option<Sandbox>)> {
    // Every id is a DNS label, as names are.
    sandbox.id.as_str().parse().ok().map(|id| (id, Some(sandbox)))
}

fn is_ignored(args: &RemoveArgs, error: &ClientError) -> bool {
    (args.ignore_not_found || args.all) && error.is_not_found()
}

/// Whether the removal was accepted.
async fn remove(app: &App, args: &RemoveArgs, name: &SandboxName, several: &mut Several<'_>) -> Result<bool, CliError> {
    match app.client()?.delete_sandbox(name).await {
        Err(error) if is_ignored(args, &error) => Ok(false),
        outcome => Ok(several.take(outcome.map_err(CliError::from))?.is_some()),
    }
}

/// Asks before everything goes; scripts are not asked.
fn confirm_all(args: &RemoveArgs, count: usize) -> Result<(), CliError> {
    if args.yes {
        return Ok(());
    }
    let what = human::count(count, "sandbox", "sandboxes");
    confirm(&format!("Remove {what} with everything in them?"))
}
