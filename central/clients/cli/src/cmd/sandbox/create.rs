//! `roost sandbox create`.

use std::collections::BTreeMap;
use std::path::Path;

use roost_proto::model::{CreateSandbox, Sandbox};

use super::super::App;
use crate::cli::CreateArgs;
use crate::error::CliError;
use crate::output::Printer;
use crate::values;
use crate::wait::progress::label;
use crate::wait::{Goal, Subject, wait};

/// Makes a sandbox, and waits until it is Ready when asked to.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, args: CreateArgs) -> Result<(), CliError> {
    let mut env = BTreeMap::new();
    for path in &args.env_file {
        env.extend(read_env_file(path)?);
    }
    // What is typed wins over what is in a file.
    env.extend(args.env.iter().cloned());
    let body =
        CreateSandbox { template: args.template.clone(), profile: args.profile.clone(), name: args.name.clone(), env };
    let sandbox = app.client()?.create_sandbox(&body).await?;
    if args.waiting.wait { wait_until_ready(app, &args, sandbox).await } else { show_created(app, &args, &sandbox) }
}

fn read_env_file(path: &Path) -> Result<BTreeMap<String, String>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::File {
        operation: "read",
        path: path.into(),
        source,
    })?;
    values::env_file(&text).map_err(|error| CliError::usage(format!("{}: {error}", path.display()), ""))
}

fn show_created(app: &App, args: &CreateArgs, sandbox: &Sandbox) -> Result<(), CliError> {
    let name = label(sandbox);
    Ok(Printer::new(&app.console, args.output).one(sandbox, &name, || format!("{name} created"))?)
}

/// Programs get the sandbox itself on standard output, people one line.
async fn wait_until_ready(app: &App, args: &CreateArgs, sandbox: Sandbox) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, args.output);
    let subject = Subject::of(&sandbox);
    let name = subject.label.clone();
    let mut failure = None;
    let goal = (Goal::Ready, vec![subject]);
    wait(app.client()?, &app.console, goal, args.waiting.limit.timeout, |ending| {
        match (ending.outcome, ending.sandbox) {
            (Ok(line), Some(sandbox)) => printer.one(&sandbox, &name, || line)?,
            (Ok(line), None) => app.console.line(&line)?,
            (Err(error), _) => failure = Some(error),
        }
        Ok(())
    })
    .await?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}
