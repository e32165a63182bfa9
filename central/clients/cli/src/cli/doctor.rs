//! `roost doctor`.

use std::path::PathBuf;

use clap::Args;

use crate::output::OutputArgs;

const AFTER_HELP: &str = "\
Examples:
  sudo roost doctor                     this machine, before or after the installation
  sudo roost doctor --sandboxes 1000    for as many sandboxes
  roost doctor --node gpu-a             a node that runs, through central
  sudo roost doctor --node-socket            the daemon on this machine

Ends with 0 if the host is fit (warnings included), with 1 if something is to be mended.
It changes nothing. What it needs of this machine is the program roostd.";

/// Check whether a machine is fit for sandboxes, and say what to change
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DoctorArgs {
    /// Ask this node, through central
    #[arg(long, value_name = "NODE", conflicts_with_all = ["socket", "config", "roostd"])]
    pub(crate) node: Option<String>,
    /// Ask the daemon that runs on this machine [default path: /run/roost/roostd.sock]
    #[arg(long = "node-socket", alias = "socket", value_name = "PATH", num_args = 0..=1, conflicts_with_all = ["config", "roostd"])]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) socket: Option<Option<PathBuf>>,
    /// Judge limits for so many sandboxes [default: as configured]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sandboxes: Option<u32>,
    /// Configuration of the daemon [default: /etc/roost/roostd.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The program roostd [default: beside this one, then in the path]
    #[arg(long, value_name = "FILE")]
    pub(crate) roostd: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
