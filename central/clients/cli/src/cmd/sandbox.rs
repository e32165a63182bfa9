//! `roost sandbox`.

mod claim;
mod create;
mod list;
mod remove;
mod set;
mod show;
mod verb;

pub(super) use list::tone;
pub(super) use show::spec_fields;

use std::process::ExitCode;

use roost_proto::id::SandboxName;
use roost_proto::model::Sandbox;

use super::{App, Several, copy, exec, logs, screenshot};
use crate::cli::{SandboxCommand, WaitArgs};
use crate::client::Verb;
use crate::error::CliError;
use crate::wait::{Goal, Subject, wait};

/// Runs one verb.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, command: SandboxCommand) -> Result<ExitCode, CliError> {
    let done = match command {
        SandboxCommand::Create(args) => create::run(app, args).await,
        SandboxCommand::Claim(args) => return claim::run(app, args).await,
        SandboxCommand::Ls(args) => list::run(app, args).await,
        SandboxCommand::Get(args) => show::run(app, args.sandboxes, args.output).await,
        SandboxCommand::Start(args) => verb::run(app, Verb::Start, args).await,
        SandboxCommand::Stop(args) => verb::run(app, Verb::Stop, args).await,
        SandboxCommand::Restart(args) => verb::run(app, Verb::Restart, args).await,
        SandboxCommand::Pause(args) => verb::run(app, Verb::Pause, args).await,
        SandboxCommand::Resume(args) => verb::run(app, Verb::Resume, args).await,
        SandboxCommand::Set(args) => set::run(app, args).await,
        SandboxCommand::Rm(args) => remove::run(app, args).await,
        SandboxCommand::Exec(args) => return exec::run(app, args).await,
        SandboxCommand::Cp(args) => copy::run(app, args).await,
        SandboxCommand::Logs(args) => logs::run(app, args).await,
        SandboxCommand::Screenshot(args) => screenshot::run(app, args).await,
        SandboxCommand::Wait(args) => run_wait(app, args).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

async fn run_wait(app: &App, args: WaitArgs) -> Result<(), CliError> {
    let mut several = Several::new(app);
    let mut subjects = Vec::new();
    for name in &args.sandboxes {
        match find(app, name).await {
            Err(CliError::Client(error)) if args.goal == Goal::Gone && error.is_not_found() => {
                app.console.line(&format!("{name} {}", Goal::Gone))?;
            }
            found => subjects.extend(several.take(found)?.map(|sandbox| Subject::of(&sandbox))),
        }
    }
    wait_for(app, &mut several, args.goal, subjects, args.limit.timeout).await?;
    several.finish()
}

/// One sandbox by name or id.
async fn find(app: &App, name: &SandboxName) -> Result<Sandbox, CliError> {
    Ok(app.client()?.get_sandbox(name).await?)
}

/// Waits for sandboxes and prints one line for each that gets there.
async fn wait_for(
    app: &App,
    several: &mut Several<'_>,
    goal: Goal,
    subjects: Vec<Subject>,
    timeout: std::time::Duration,
) -> Result<(), CliError> {
    let mut endings = Vec::new();
    wait(app.client()?, &app.console, (goal, subjects), timeout, |ending| match ending.outcome {
        Ok(line) => Ok(app.console.line(&line)?),
        Err(error) => {
            endings.push(error);
            Ok(())
        }
    })
    .await?;
    for error in endings {
        several.take::<()>(Err(error.into()))?;
    }
    Ok(())
}
