//! What commands do, one file per group.

mod catalog;
mod config;
mod copy;
mod debug;
mod doctor;
mod exec;
mod image;
mod logs;
mod node;
mod pool;
mod sandbox;
mod screenshot;
mod shell;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use roost_proto::model::{Profile, Template};

use crate::cli::{Cli, Command, GlobalArgs};
use crate::client::Client;
use crate::context::{Environment, resolve};
use crate::error::{CliError, Exit};
use crate::node_socket::DEFAULT_SOCKET;
use crate::output::Console;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct App {
    /// Where it writes to.
    pub(crate) console: Console,
    /// What every command takes.
    pub(crate) global: GlobalArgs,
    /// The environment.
    pub(crate) env: Environment,
    client: OnceLock<Client>,
}

impl App {
    /// The server to call; found once, with its warnings.
    ///
    /// # Errors
    /// There is none, or the token must not go there.
    pub(crate) fn client(&self) -> Result<&Client, CliError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let target = resolve(&self.global.overrides(), &self.env)?;
        for warning in &target.warnings {
            self.console.warn(warning);
        }
        let client = Client::new(target, self.global.request_timeout)?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// Where the daemon on this machine listens: as the caller says, the
/// environment, or by default.
fn socket_path(app: &App, asked: Option<PathBuf>) -> PathBuf {
    asked.or_else(|| app.env.path("ROOST_NODE_SOCKET")).unwrap_or_else(|| DEFAULT_SOCKET.into())
}

/// Runs a command to its end.
///
/// # Errors
/// See [`CliError`].
pub(crate) async fn run(cli: Cli, console: Console) -> Result<ExitCode, CliError> {
    let app = App { console, global: cli.global, env: Environment::read(), client: OnceLock::new() };
    let done = match cli.command {
        Command::Sandbox(command) => return sandbox::run(&app, command).await,
        Command::Node(command) => node::run(&app, command).await,
        Command::Pool(command) => pool::run(&app, command).await,
        Command::Volume(args) => volume::run(&app, args).await,
        Command::Template(command) => catalog::run::<Template>(&app, command).await,
        Command::Profile(command) => catalog::run::<Profile>(&app, command).await,
        Command::Image(command) => image::run(&app, command).await,
        Command::Doctor(args) => doctor::run(&app, args).await,
        Command::Debug(args) => debug::run(&app, args).await,
        Command::Config(command) => config::run(&app, command),
        Command::Version(args) => shell::version(&app, args).await,
        Command::Completion { shell } => shell::completion(&app, shell),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Several things of which some may fail: each failure is told at once, the
/// first decides how the command ends.
#[derive(Debug)]
pub(crate) struct Several<'a> {
    app: &'a App,
    exit: Option<Exit>,
}

impl<'a> Several<'a> {
    /// Nothing has failed yet.
    pub(crate) fn new(app: &'a App) -> Self {
        Self { app, exit: None }
    }

    /// Takes one outcome; `None` when it was a failure, which is told.
    ///
    /// # Errors
    /// The result cannot be shown any more: nothing else makes sense then.
    pub(crate) fn take<T>(&mut self, outcome: Result<T, CliError>) -> Result<Option<T>, CliError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error @ CliError::Output(_)) => Err(error),
            Err(error) => {
                error.tell(&self.app.console);
                self.exit.get_or_insert_with(|| error.exit());
                Ok(None)
            }
        }
    }

    /// How all of them ended.
    ///
    /// # Errors
    /// The first failure's way to end.
    pub(crate) fn finish(self) -> Result<(), CliError> {
        self.exit.map_or(Ok(()), |exit| Err(CliError::Told(exit)))
    }
}

/// Asks on a terminal before something is lost; scripts are not asked.
///
/// # Errors
/// The answer is not yes, or the terminal went away.
fn confirm(question: &str) -> Result<(), CliError> {
    use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    let error = |source| CliError::File { operation: "ask on", path: "the terminal".into(), source };
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ").and_then(|()| err.flush()).map_err(error)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(error)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(CliError::usage("nothing was removed", "answer y, or give --yes"))
    }
}
