//! `roostd-sim`: a fleet of simulated nodes in one process.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use roostd::logging;
use roostd::sandbox::failure::chain;
use roostd::sim::command::Command;
use roostd::sim::spread::Spread;
use roostd::sim::{Fleet, SimConfig};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code for a configuration that cannot be used, as sysexits.h has it.
const EX_CONFIG: u8 = 78;
/// Threads for usage samples: they only compute.
const BLOCKING_THREADS: usize = 2;
/// Between two lines or looks at how the fleet does.
const LOOK: Duration = Duration::from_secs(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Plays many Roost nodes at one central: real enrolment, real connections,
/// simulated sandboxes.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Configuration file; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Nodes to play.
    #[arg(long)]
    nodes: Option<u32>,
    /// Most sandboxes of one node.
    #[arg(long)]
    sandboxes: Option<u32>,
    /// Address of central's NodeLink, e.g. https://127.0.0.1:7701.
    #[arg(long, value_name = "URL")]
    central: Option<String>,
    /// File with one join string a line.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Directory of the nodes' keys and certificates.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Nodes that begin to connect in a second.
    #[arg(long, value_name = "N")]
    connects_per_s: Option<u32>,
    /// Time of a start in milliseconds, e.g. 240±60.
    #[arg(long, value_name = "SPREAD")]
    start_ms: Option<Spread>,
    /// Share of the starts that fail, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    fail: Option<f64>,
    /// Share of the running sandboxes whose usage moves, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    busy: Option<f64>,
    /// Workloads that end by themselves in a second.
    #[arg(long, value_name = "RATE")]
    crashes_per_s: Option<f64>,
    /// Connections that break in a second.
    #[arg(long, value_name = "RATE")]
    disconnects_per_s: Option<f64>,
    /// Read commands from standard input, answer each with one JSON line:
    /// status, disconnect SHARE, restart SHARE, crash COUNT, oom COUNT.
    #[arg(long)]
    commands: bool,
}

impl Args {
    /// The file with the flags over it, checked.
    fn config(&self) -> Result<SimConfig, roostd::config::ConfigError> {
        fn lay<T: Clone>(over: &mut T, flag: Option<&T>) {
            if let Some(value) = flag {
                *over = value.clone();
            }
        }
        let mut config = self.config.as_deref().map_or_else(|| Ok(SimConfig::default()), SimConfig::read)?;
        lay(&mut config.fleet.nodes, self.nodes.as_ref());
        lay(&mut config.node.sandboxes_max, self.sandboxes.as_ref());
        lay(&mut config.central.address, self.central.as_ref());
        lay(&mut config.central.join_token_file, self.join_token_file.clone().map(Some).as_ref());
        lay(&mut config.fleet.state_dir, self.state_dir.as_ref());
        lay(&mut config.fleet.connects_per_s, self.connects_per_s.as_ref());
        lay(&mut config.start.time_ms, self.start_ms.as_ref());
        lay(&mut config.start.fail, self.fail.as_ref());
        lay(&mut config.node.busy, self.busy.as_ref());
        lay(&mut config.mischief.crashes_per_s, self.crashes_per_s.as_ref());
        lay(&mut config.mischief.disconnects_per_s, self.disconnects_per_s.as_ref());
        config.check()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => return fail(&error, EX_CONFIG),
    };
    if let Err(error) = logging::init(config.log.format, &config.log.filter) {
        return fail(&error, EX_CONFIG);
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let result = runtime.block_on(run(config, args.commands));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, 1),
    }
}

/// Runs until SIGTERM, SIGINT or the end of the commands.
async fn run(config: SimConfig, commands: bool) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let fleet = Fleet::new(config, CancellationToken::new());
    let play = async {
        start(&fleet).await?;
        if commands { obey(&fleet).await } else { show(&fleet).await }
    };
    // Cancel-safe: signals are latches, and the fleet is stopped below.
    let result = tokio::select! {
        result = play => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    fleet.stop().await;
    result
}

async fn start(fleet: &Fleet) -> Result<(), Failure> {
    let bar = ProgressBar::with_draw_target(Some(u64::try_from(fleet.status().nodes)?), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("starting nodes [{bar:30}] {pos}/{len} {eta}")?.progress_chars("=> "));
    fleet.start(|| bar.inc(1)).await?;
    bar.finish_and_clear();
    tracing::info!(nodes = fleet.status().nodes, "all nodes are started");
    Ok(())
}

/// Says how the fleet does: on a terminal in one line that changes, else only
/// when it changes.
async fn show(fleet: &Fleet) -> Result<(), Failure> {
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    spinner.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let is_terminal = std::io::stderr().is_terminal();
    let mut before = None;
    loop {
        let status = fleet.status();
        let roostd::sim::fleet::FleetStatus { nodes, connected, sandboxes, ready } = status;
        spinner.set_message(format!("{connected}/{nodes} nodes connected, {ready}/{sandboxes} sandboxes Ready"));
        spinner.tick();
        if !is_terminal && before != Some(status) {
            let problem = fleet.problem().filter(|_| connected < nodes);
            tracing::info!(nodes, connected, sandboxes, ready, problem, "fleet");
        }
        before = Some(status);
        tokio::time::sleep(LOOK).await;
    }
}

/// Answers commands until standard input ends.
async fn obey(fleet: &Fleet) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.parse::<Command>() {
            Ok(command) => {
                let met = fleet.obey(command).await?;
                let mut answer = serde_json::to_value(fleet.status())?;
                answer["met"] = met.into();
                answer["problem"] = fleet.problem().into();
                println!("{answer}");
            }
            Err(error) => println!("{}", serde_json::json!({ "error": error.to_string() })),
        }
    }
    Ok(())
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("roostd-sim: {}", chain(error));
    ExitCode::from(code)
}
