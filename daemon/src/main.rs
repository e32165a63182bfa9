//! `roostd`: the Roost node daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use roost_proto::model::Verdict;
use roostd::app::App;
use roostd::config::Config;
use roostd::doctor;
use roostd::logging;
use roostd::sandbox::failure::chain;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code for a configuration that cannot be used, as sysexits.h has it.
const EX_CONFIG: u8 = 78;
/// Configuration that is read unless another is named.
const DEFAULT_CONFIG: &str = "/etc/roost/roostd.toml";

/// The Roost node daemon: launches desktops for AI agents on this machine.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Configuration file [default: /etc/roost/roostd.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check this host, before or after anything is installed; changes nothing.
    ///
    /// Ends with 0 if the host is fit (warnings included), with 1 if not.
    Doctor {
        /// Judge limits for so many sandboxes [default: sandboxes.max of the
        /// configuration].
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
        sandboxes: Option<u32>,
        /// How to show the result.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

/// Form of a result.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let path = args.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    let is_doctor = matches!(args.command, Some(Command::Doctor { .. }));
    // Before anything is installed there is no file, and the defaults hold.
    let config = if is_doctor && args.config.is_none() && !path.exists() {
        Config::default()
    } else {
        match Config::load(&path) {
            Ok(config) => config,
            Err(error) => return fail(&error, EX_CONFIG),
        }
    };
    if let Some(Command::Doctor { sandboxes, output }) = args.command {
        return run_doctor(&config, sandboxes, output);
    }
    if args.check {
        println!("{} is right", path.display());
        return ExitCode::SUCCESS;
    }
    let log = match logging::init(config.log.format, &config.log.filter) {
        Ok(log) => log,
        Err(error) => return fail(&error, EX_CONFIG),
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "roostd starts");
    let result = runtime.block_on(run(config, log));
    // Blocking work that hangs, in containerd or on a disk, must not hold us.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&*error), "roostd ends");
            fail(&*error, 1)
        }
    }
}

/// Checks the host and tells.
fn run_doctor(config: &Config, sandboxes: Option<u32>, output: Output) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let sandboxes = sandboxes.unwrap_or_else(|| doctor::configured_sandboxes(config));
    // A daemon that serves this configuration holds its own port.
    let is_running = std::os::unix::net::UnixStream::connect(&config.api.socket).is_ok();
    let report = runtime.block_on(doctor::examine(config, sandboxes, is_running));
    match output {
        Output::Text => print!("{}", doctor::print::text(&report)),
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => return fail(&error, 1),
        },
    }
    if report.verdict() == Verdict::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs until SIGTERM (Kubernetes, systemd) or SIGINT (a terminal).
async fn run(config: Config, log: logging::LogControl) -> Result<(), Box<dyn std::error::Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    // Cancel-safe: a signal is a latch; a start that is cut off is as a kill.
    let app = tokio::select! {
        app = App::start(config, log, shutdown.clone()) => app?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("roostd stops; sandboxes go on");
    app.stop().await;
    Ok(())
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("roostd: {}", chain(error));
    ExitCode::from(code)
}
