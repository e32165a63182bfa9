//! `roost sandbox create`.

use std::collections::BTreeMap;
use std::path::Path;

use roost_proto::id::SandboxName;
use roost_proto::model::{CreateSandbox, Sandbox};

use super::super::{App, Several};
use super::list::table;
use crate::cli::CreateArgs;
use crate::error::CliError;
use crate::output::Printer;
use crate::values;
use crate::wait::progress::label;
use crate::wait::{Goal, Subject, wait};

/// Makes sandboxes, and waits until they are Ready when asked to.
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
    let body = CreateSandbox {
        template: args.template.clone(),
        profile: args.profile.clone(),
        name: args.name.clone(),
        env,
        lifetime: args.lifetime.into(),
    };
    if args.count > 1 {
        return create_many(app, &args, &body).await;
    }
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

/// The names of many: the given one with their numbers.
fn numbered(name: Option<&SandboxName>, count: u32) -> Result<Vec<Option<SandboxName>>, CliError> {
    let width = count.to_string().len();
    let one = |number: u32| match name {
        None => Ok(None),
        Some(name) => format!("{name}-{number:0width$}").parse().map(Some),
    };
    let names = (1..=count).map(one).collect::<Result<_, _>>();
    names.map_err(|error| CliError::usage(format!("--name with its number: {error}"), "choose a shorter name"))
}

/// Makes many in few calls; those that are refused do not hold up the others.
async fn create_many(app: &App, args: &CreateArgs, body: &CreateSandbox) -> Result<(), CliError> {
    let names = numbered(args.name.as_ref(), args.count)?;
    let bodies: Vec<_> = names.into_iter().map(|name| CreateSandbox { name, ..body.clone() }).collect();
    let mut results = Vec::with_capacity(bodies.len());
    let sent = app.client()?.create_sandboxes(&bodies, |items| results.extend(items)).await;
    let mut several = Several::new(app);
    let mut made = Vec::new();
    for result in results {
        made.extend(several.take(result.map_err(CliError::from))?);
    }
    several.take(sent.map_err(CliError::from))?;
    if args.waiting.wait {
        made = wait_for_all(app, args, &mut several, made).await?;
    }
    table(app, args.output, &made).await?;
    several.finish()
}

/// Waits for all of them, with one live line; what each is at the end.
async fn wait_for_all(
    app: &App,
    args: &CreateArgs,
    several: &mut Several<'_>,
    made: Vec<Sandbox>,
) -> Result<Vec<Sandbox>, CliError> {
    let mut latest: BTreeMap<_, _> = made.iter().map(|sandbox| (sandbox.id.clone(), sandbox.clone())).collect();
    let goal = (Goal::Ready, made.iter().map(Subject::of).collect());
    let mut failures = Vec::new();
    wait(app.client()?, &app.console, goal, args.waiting.limit.timeout, |ending| {
        if let Some(sandbox) = ending.sandbox {
            latest.insert(sandbox.id.clone(), sandbox);
        }
        failures.extend(ending.outcome.err());
        Ok(())
    })
    .await?;
    for failure in failures {
        several.take::<()>(Err(failure.into()))?;
    }
    Ok(made.iter().filter_map(|sandbox| latest.remove(&sandbox.id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_many_are_numbered_and_sort_as_they_are_counted() {
        let name = "desk".parse().unwrap();
        let names = numbered(Some(&name), 12).unwrap();
        let text = |at: usize| names[at].as_ref().unwrap().to_string();
        assert_eq!((text(0), text(11)), ("desk-01".into(), "desk-12".into()));
        assert_eq!(numbered(None, 3).unwrap(), [None, None, None]);
        let long = "x".repeat(62).parse().unwrap();
        assert!(numbered(Some(&long), 100).unwrap_err().to_string().contains("--name"));
    }
}
