//! `roost debug`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::{ListArgs, OutputArgs};

/// What can be seen of the daemon on this machine.
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// The sandboxes of this node
    #[command(after_help = "Example:\n  roost debug sandboxes -o wide")]
    Sandboxes(ListArgs),
    /// One sandbox: wish and observation
    #[command(after_help = "Example:\n  roost debug sandbox demo")]
    Sandbox(SandboxArg),
    /// Where the time of starts went: of one, or of the last ones summed up
    #[command(after_help = "\
Examples:
  roost debug trace demo                    its last start, stage by stage
  roost debug trace demo --last 20          p50 and p99 of its last starts
  roost debug trace --last 100              of all starts of this node
  roost debug trace --node gpu-a            of another node, through central")]
    Trace(TraceArgs),
    /// Collect everything a report needs into one file, without secrets
    #[command(after_help = "\
Examples:
  sudo roost debug bundle                                   the daemon on this machine
  roost debug bundle --central --node gpu-a --out b.tar.zst
  tar --zstd -xf b.tar.zst                                  to look through it

Secrets are taken out by those who know them, before they answer; manifest.json
says what was left out and why.")]
    Bundle(BundleArgs),
    /// The named tasks of the daemon: what each does, and since when
    #[command(after_help = "Example:\n  roost debug tasks")]
    Tasks(ListArgs),
    /// Everything the daemon holds, as JSON
    #[command(after_help = "Example:\n  roost debug dump | jq .")]
    Dump,
    /// Change what the daemon logs, until it restarts
    #[command(after_help = "\
Examples:
  roost debug log-level info,roostd::sandbox=debug
  roost debug log-level info")]
    LogLevel {
        /// A tracing filter
        filter: String,
    },
    /// What the daemon says of this node
    #[command(after_help = "Example:\n  roost debug node")]
    Node(OutputArgs),
}

/// One sandbox of this node.
#[derive(Debug, Args)]
pub(crate) struct SandboxArg {
    /// Name or id
    pub(crate) sandbox: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `trace`.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Name or id; without, all starts of the node
    pub(crate) sandbox: Option<String>,
    /// Sum up the last so many starts [default: 100 without a sandbox]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) last: Option<u32>,
    /// Ask this node through central, instead of the daemon on this machine
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `bundle`.
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// Ask central about itself
    #[arg(long)]
    pub(crate) central: bool,
    /// Ask this node through central; may be given several times
    #[arg(long = "node", value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Ask the daemon on this machine; the default when nothing else is asked
    #[arg(long = "socket")]
    pub(crate) local: bool,
    /// Where to write it [default: roost-bundle-TIME.tar.zst]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Most lines of each log, the latest ones [default: all that are in memory]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) log_lines: Option<u32>,
}
