//! `roost-central`: arguments → configuration → log → runtime → app → signal → drain.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use command::StoreCommand;
use roost_central::app::{App, default_tenant, issue_join_token};
use roost_central::config::Config;
use roost_central::upkeep::{backup, ca, token};
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
    /// Replaces the admin token at once and prints the new one, once.
    AdminToken,
    /// The admin token.
    Token {
        #[command(subcommand)]
        action: TokenAction,
    },
    /// The certificate authority by which nodes and central know each other.
    Ca {
        #[command(subcommand)]
        action: CaAction,
    },
    /// Writes database and CA into one file, beside a running server.
    Backup {
        /// The new file, made with mode 0600; `-` is standard output. It holds
        /// the CA's key: keep it as you keep that.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Without the database, where other tools keep that.
        #[arg(long)]
        ca_only: bool,
    },
    /// Makes the state of a central from a backup, whatever its database is.
    Restore {
        /// The file; `-` is standard input.
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        /// Replaces the tokens, templates and profiles that a first start of
        /// central has made. Nodes and sandboxes are never replaced.
        #[arg(long)]
        force: bool,
    },
    /// Prints one-time tokens, one a line: each is good for one node.
    JoinToken {
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
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

#[derive(Debug, Subcommand)]
enum TokenAction {
    /// Makes a new admin token and prints it, once; the old one goes on for a while.
    Rotate {
        /// How long the old one is good: a number and s, m, h or d.
        #[arg(long, default_value = "24h", value_parser = parse_life)]
        overlap: Duration,
    },
}

#[derive(Debug, Subcommand)]
enum CaAction {
    /// Shows which CAs are trusted and how many nodes have certificates of each.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes the next CA; both are trusted, and nodes get certificates of the next.
    Rotate,
    /// Ends the rotation: only the next CA is trusted.
    Retire {
        /// Even if nodes are locked out by it.
        #[arg(long)]
        force: bool,
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
        match &arguments.command {
            Some(Command::AdminToken) => admin_token(&config, Duration::ZERO).await,
            Some(Command::Token { action: TokenAction::Rotate { overlap } }) => admin_token(&config, *overlap).await,
            Some(Command::JoinToken { count, expires_in }) => join_tokens(&config, *count, *expires_in).await,
            Some(Command::Ca { action }) => authority(&config, action).await,
            Some(Command::Backup { out, ca_only }) => keep(&config, out, *ca_only).await,
            Some(Command::Restore { input, force }) => restore(&config, input, *force).await,
            Some(Command::Store { command }) => command.run(&config).await,
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

async fn admin_token(config: &Config, overlap: Duration) -> Result<(), Failure> {
    println!("{}", token::rotate(config, overlap).await?);
    Ok(())
}

async fn authority(config: &Config, action: &CaAction) -> Result<(), Failure> {
    let status = match action {
        CaAction::Status { .. } => ca::status(config).await?,
        CaAction::Rotate => ca::rotate(config).await?,
        CaAction::Retire { force } => ca::retire(config, *force).await?,
    };
    match action {
        CaAction::Status { json: true } => println!("{}", serde_json::to_string_pretty(&status)?),
        _ => print!("{}", status.text()),
    }
    Ok(())
}

async fn keep(config: &Config, out: &Path, ca_only: bool) -> Result<(), Failure> {
    let (bar, on_progress) = command::progress();
    let kept = backup::write(config, out, ca_only, on_progress).await?;
    bar.finish_and_clear();
    let rows = kept.rows.map_or_else(|| "the CA".into(), |rows| format!("{rows} rows and the CA"));
    eprintln!("kept {rows}: whoever has the file can pass for central and for any node");
    Ok(())
}

async fn restore(config: &Config, input: &Path, force: bool) -> Result<(), Failure> {
    let (bar, on_progress) = command::progress();
    let manifest = backup::restore(config, input, force, on_progress).await?;
    bar.finish_and_clear();
    let (release, moment) = (&manifest.release, manifest.moment());
    if manifest.has_database() {
        eprintln!(
            "restored what {release} kept on {moment}: start roost-central. Sandboxes that were made since stay on \
             their nodes: see `roost node orphans ls`"
        );
    } else {
        eprintln!("restored the CA that {release} kept on {moment}; the backup holds no database");
    }
    Ok(())
}

async fn join_tokens(config: &Config, count: u32, life: Duration) -> Result<(), Failure> {
    let (store, authorities) = App::open_store(config).await?;
    let (tenant, fingerprint) = (default_tenant()?, authorities.serving().fingerprint());
    for _ in 0..count {
        let issued = issue_join_token(&*store, &tenant, fingerprint, life.as_secs()).await?;
        println!("{}", issued.token);
    }
    Ok(())
}
