//! `roostd`: the Roost node daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use roostd::app::App;
use roostd::config::Config;
use roostd::logging;
use roostd::sandbox::failure::chain;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code for a configuration that cannot be used, as sysexits.h has it.
const EX_CONFIG: u8 = 78;

/// The Roost node daemon: launches desktops for AI agents on this machine.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/roost/roostd.toml")]
    config: PathBuf,
    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return fail(&error, EX_CONFIG),
    };
    if args.check {
        println!("{} is right", args.config.display());
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
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %args.config.display(), "roostd starts");
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
