//! `roost version` and `roost completion`.

use clap::CommandFactory as _;
use serde::Serialize;

use super::App;
use crate::cli::{Cli, Shell, VersionArgs};
use crate::client::Call;
use crate::error::CliError;
use crate::output::Printer;

/// This command's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<serde_json::Value>,
}

/// Shows both versions; the own one also when the server does not answer.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn version(app: &App, args: VersionArgs) -> Result<(), CliError> {
    let printer = Printer::new(&app.console, args.output);
    let asked = if args.client { None } else { Some(ask(app).await) };
    let (server, outcome) = match asked {
        None => (None, Ok(())),
        Some(Ok(value)) => (Some(value), Ok(())),
        Some(Err(error)) => (None, Err(error)),
    };
    let versions = Versions { client: VERSION, server };
    printer.one(&versions, VERSION, || match &versions.server {
        Some(server) => format!("client  {VERSION}\nserver  {}", words(server)),
        None => format!("client  {VERSION}"),
    })?;
    outcome
}

async fn ask(app: &App) -> Result<serde_json::Value, CliError> {
    Ok(app.client()?.json(&Call::get("/version")).await?)
}

/// The version, then whatever else the server says of itself.
fn words(server: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let Some(fields) = server.as_object() else { return text(server) };
    let version = fields.get("version").map(text);
    let rest =
        fields.iter().filter(|(name, _)| *name != "version").map(|(name, value)| format!("{name} {}", text(value)));
    let rest = rest.collect::<Vec<_>>().join(", ");
    match version {
        Some(version) if rest.is_empty() => version,
        Some(version) => format!("{version} ({rest})"),
        None => rest,
    }
}

/// Prints a completion script.
///
/// # Errors
/// The result cannot be shown.
pub(super) fn completion(app: &App, shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, "roost", &mut script);
    Ok(app.console.raw(&script)?)
}
