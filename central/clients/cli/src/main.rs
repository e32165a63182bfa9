//! `roost`: the command line of Roost.
//!
//! [`cli`]: what can be typed. [`cmd`]: what it does, one file per group.
//! [`context`]: which server, as whom. [`client`]: the REST API.
//! [`node_socket`]: the daemon on this machine. [`wait`]: `--wait`.
//! [`output`]: what is shown. [`error`]: how it ends.

mod cli;
mod client;
mod cmd;
mod context;
mod error;
mod node_socket;
mod output;
mod terminal;
mod values;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::error::{CliError, Exit};
use crate::output::Console;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return show_usage(&message),
    };
    let console = Console::detect();
    match run(cli, console) {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.tell(&console);
            error.exit().into()
        }
    }
}

fn run(cli: Cli, console: Console) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::File {
        operation: "start",
        path: "the asynchronous runtime".into(),
        source,
    })?;
    let outcome = runtime.block_on(cmd::run(cli, console));
    // A read of standard input cannot be interrupted: leave it behind.
    runtime.shutdown_background();
    outcome
}

/// Help and version are no errors; everything else the parser says is.
fn show_usage(message: &clap::Error) -> ExitCode {
    // Nothing is left to do when even this cannot be written.
    let _ = message.print();
    if message.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS }
}
