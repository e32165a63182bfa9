//! `roost sandbox rm`.

use roost_proto::id::SandboxName;
use roost_proto::model::{Phase, Sandbox};

use super::super::{App, Several, confirm, node};
use super::wait_for;
use crate::cli::{RemoveArgs, SelectorTerm};
use crate::client::{ClientError, Filter};
use crate::error::CliError;
use crate::output::human;
use crate::wait::progress::label;
use crate::wait::{Goal, Subject};

/// Removes sandboxes in few calls, and waits until they are gone when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: RemoveArgs) -> Result<(), CliError> {
    let Some(names) = targets(app, &args).await? else { return Ok(()) };
    let mut results = Vec::with_capacity(names.len());
    let sent = app.client()?.delete_sandboxes(&names, |items| results.extend(items)).await;
    let mut several = Several::new(app);
    let mut subjects = Vec::new();
    for result in results {
        match result {
            Err(error) if is_ignored(&args, &error) => {}
            // The id is the wait's: the name may be given away the moment it is free.
            Ok(sandbox) if args.waiting.wait => subjects.push(Subject::of(&sandbox)),
            Ok(sandbox) => app.console.line(&format!("{} deleting", label(&sandbox)))?,
            Err(error) => drop(several.take::<()>(Err(error.into()))?),
        }
    }
    several.take(sent.map_err(CliError::from))?;
    wait_for(app, &mut several, Goal::Gone, subjects, args.waiting.limit.timeout).await?;
    several.finish()
}

/// What to remove; none: there is nothing.
async fn targets(app: &App, args: &RemoveArgs) -> Result<Option<Vec<String>>, CliError> {
    if !args.is_selection() {
        return Ok(Some(args.sandboxes.iter().map(SandboxName::to_string).collect()));
    }
    let sandboxes = select(app, args).await?;
    if sandboxes.is_empty() {
        app.console.note("there are no such sandboxes");
        return Ok(None);
    }
    confirm_many(args, sandboxes.len())?;
    Ok(Some(sandboxes.into_iter().map(|sandbox| sandbox.id.to_string()).collect()))
}

/// The sandboxes that `--all`, `--all-stopped` and `--selector` mean.
async fn select(app: &App, args: &RemoveArgs) -> Result<Vec<Sandbox>, CliError> {
    let client = app.client()?;
    let mut filter = Filter::default();
    for term in &args.selector {
        match term {
            SelectorTerm::Phase(phase) => filter.phase = Some(*phase),
            SelectorTerm::Template(template) => filter.template = Some(template.clone()),
            SelectorTerm::Node(name) => filter.node = Some(node::find(client, name).await?.id),
        }
    }
    let mut sandboxes = client.list_sandboxes(&filter).await?;
    if args.all_stopped {
        sandboxes.retain(|sandbox| matches!(sandbox.observed.phase, Phase::Stopped | Phase::Failed));
    }
    Ok(sandboxes)
}

fn is_ignored(args: &RemoveArgs, error: &ClientError) -> bool {
    (args.ignore_not_found || args.is_selection()) && error.is_not_found()
}

/// Asks before many go that nobody has named; scripts are not asked.
fn confirm_many(args: &RemoveArgs, count: usize) -> Result<(), CliError> {
    if args.yes {
        return Ok(());
    }
    let what = human::count(count, "sandbox", "sandboxes");
    confirm(&format!("Remove {what} with everything in them?"))
}
