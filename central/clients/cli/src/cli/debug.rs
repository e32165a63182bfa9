//! `roost debug`.

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
    /// Where the time of a sandbox's last start went
    #[command(after_help = "Example:\n  roost debug trace demo")]
    Trace(SandboxArg),
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
