//! System benches of Roost on real parts: a private containerd, the real
//! daemon, the real images.
//!
//! Figures go to stdout, one JSON object a line ([`report`]); everything for
//! people goes to stderr. Each bench has a node of its own and leaves nothing
//! behind. `run.sh` builds what is needed and then runs this.

mod adopt;
mod cgroup;
mod checkpoint;
mod cold_start;
mod daemon_idle;
mod density;
mod fleet;
mod memory;
mod node;
mod placement;
mod proc;
mod progress;
mod report;
mod screenshot;
mod start_rate;
mod warm_claim;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use report::Report;
use roost_tests::Result;
use tokio::signal::unix::{SignalKind, signal};

/// Runs benches and prints one JSON object a line.
#[derive(Debug, Parser)]
#[command(name = "benches/run.sh")]
struct Arguments {
    /// Benches to run; none means all.
    #[arg(value_enum, value_name = "NAME", hide_possible_values = true)]
    names: Vec<Name>,
    /// Starts, sandboxes, pictures or nodes, instead of the bench's own number.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    n: Option<u32>,
    /// Prints the names.
    #[arg(long)]
    list: bool,
}

/// A bench; the names are fixed, other programs read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    ColdStart,
    StartRate,
    Memory,
    DaemonIdle,
    Adopt,
    Screenshot,
    Fleet,
    Placement,
    WarmClaim,
    ClaimRate,
    Density,
    Checkpoint,
}

impl Name {
    const ALL: [Self; 12] = [
        Self::ColdStart,
        Self::StartRate,
        Self::Memory,
        Self::DaemonIdle,
        Self::Adopt,
        Self::Screenshot,
        Self::Fleet,
        Self::Placement,
        Self::WarmClaim,
        Self::ClaimRate,
        Self::Density,
        Self::Checkpoint,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::ColdStart => "cold-start",
            Self::StartRate => "start-rate",
            Self::Memory => "memory",
            Self::DaemonIdle => "daemon-idle",
            Self::Adopt => "adopt",
            Self::Screenshot => "screenshot",
            Self::Fleet => "fleet",
            Self::Placement => "placement",
            Self::WarmClaim => "warm-claim",
            Self::ClaimRate => "claim-rate",
            Self::Density => "density",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// Runs it; `n` is the user's number in place of the bench's own.
    async fn run(self, n: Option<usize>) -> Result<()> {
        let report = Report::new(self.as_str())?;
        match self {
            Self::ColdStart => cold_start::run(&report, n).await,
            Self::StartRate => start_rate::run(&report, n).await,
            Self::Memory => memory::run(&report, n).await,
            Self::DaemonIdle => daemon_idle::run(&report, n).await,
            Self::Adopt => adopt::run(&report, n).await,
            Self::Screenshot => screenshot::run(&report, n).await,
            Self::Fleet => fleet::run(&report, n).await,
            Self::Placement => placement::run(&report, n).await,
            Self::WarmClaim => warm_claim::run(&report, n).await,
            Self::ClaimRate => warm_claim::rate(&report, n).await,
            Self::Density => density::run(&report, n).await,
            Self::Checkpoint => checkpoint::run(&report, n).await,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        Name::ALL.iter().for_each(|name| println!("{}", name.as_str()));
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: must run as root: the benches make containers, mounts and cgroups");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run_all(&arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the named benches one after the other; one that fails does not keep
/// the others from running.
async fn run_all(arguments: &Arguments) -> Result<()> {
    let names = if arguments.names.is_empty() { &Name::ALL[..] } else { &arguments.names };
    let n = arguments.n.map(usize::try_from).transpose()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut failed = Vec::new();
    for name in names {
        // Dropping a bench drops its node, which ends and removes everything:
        // all arms may be cancelled.
        let result = tokio::select! {
            result = name.run(n) => result,
            _ = interrupt.recv() => return Err("interrupted".into()),
            _ = terminate.recv() => return Err("terminated".into()),
        };
        if let Err(error) = result {
            eprintln!("{}: error: {error}", name.as_str());
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_lists_every_bench_by_the_name_that_the_command_line_takes() {
        let script = include_str!("../run.sh");
        let line = script.lines().find_map(|line| line.strip_prefix("readonly benches=(")).unwrap();
        let listed: Vec<&str> = line.trim_end_matches(')').split(' ').collect();
        let own: Vec<&str> = Name::ALL.iter().map(|name| name.as_str()).collect();
        assert_eq!(listed, own);
        for name in Name::ALL {
            assert_eq!(Name::from_str(name.as_str(), false), Ok(name));
        }
        assert_eq!(Name::value_variants(), Name::ALL);
    }
}
