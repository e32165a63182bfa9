//! `roost-central`: arguments → configuration → log → runtime → app → signal → drain.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use command::StoreCommand;
use roost_central::app::{App, default_tenant, issue_join_token, keep_admin_token, new_admin_token};
use roost_central::config::Config;
use roost_central::{log, shutdown};

mod command;

type Failure = Box<dyn std::error::Error>;

/// The central API of Roost.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/roost/central.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT (the default).
    Serve,
    /// Replaces the admin token and prints the new one, once.
    AdminToken,
    /// Prints a one-time token with which one node can join.
    JoinToken {
        /// How long it is good: a number and s, m, h or d.
        #[arg(long, default_value = "1h", value_parser = parse_life)]
        expires_in: Duration,
    },
    /// Says whether the configuration can be used.
    CheckConfig,
    /// Copies and checks the database of the configuration.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

/// Reads `90s`, `10m`, `1h` or `7d`.
fn parse_life(text: &str) -> Result<Duration, String> {
    let unit_s = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err("use a number and s, m, h or d, e.g. 1h".into()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| "use a number and s, m, h or d, e.g. 1h")?;
    number.checked_mul(unit_s).map(Duration::from_secs).ok_or_else(|| "that is too long".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roost-central: {}", log::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config)?;
    if let Some(Command::CheckConfig) = arguments.command {
        println!("{}: good", arguments.config.display());
        return Ok(());
    }
    log::init(&config.log)?;
    // Another provider can only be installed if this process did it before.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Some(Command::AdminToken) => admin_token(&config).await,
            Some(Command::JoinToken { expires_in }) => join_token(&config, expires_in).await,
            Some(Command::Store { ref command }) => command.run(&config).await,
            _ => serve(config).await,
        }
    })
}

async fn serve(config: Config) -> Result<(), Failure> {
    let grace = Duration::from_millis(config.shutdown_grace_ms);
    let app = App::build(config).await?;
    let ends = app.ends()?;
    let tasks = app.spawn();
    tracing::info!(api = %ends.api, link = %ends.link, admin = %ends.admin, "central serves");
    // Both arms only wait: cancel-safe.
    tokio::select! {
        signal = shutdown::signalled() => signal?,
        () = tasks.ending().cancelled() => return Err("a listener failed: see the log".into()),
    }
    if !tasks.finish(grace).await {
        tracing::warn!(grace_ms = grace.as_millis(), "grace is over: open requests are cut");
    }
    Ok(())
}

async fn admin_token(config: &Config) -> Result<(), Failure> {
    let (store, _) = App::open_store(config).await?;
    let secret = new_admin_token();
    keep_admin_token(&*store, &default_tenant()?, &secret).await?;
    println!("{}", secret.reveal());
    Ok(())
}

async fn join_token(config: &Config, life: Duration) -> Result<(), Failure> {
    let (store, authority) = App::open_store(config).await?;
    let issued = issue_join_token(&*store, &default_tenant()?, authority.fingerprint(), life.as_secs()).await?;
    println!("{}", issued.token);
    Ok(())
}
