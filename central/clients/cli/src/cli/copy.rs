//! `roost sandbox cp`.

use clap::Args;

use super::image::SocketArgs;
use crate::output::OutputArgs;

/// `cp`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// What to copy, and last where to: LOCAL, SANDBOX:/PATH, or - for a tar
    /// archive on standard input or output
    #[arg(required = true, num_args = 2.., value_name = "SOURCE> <TARGET")]
    pub(crate) paths: Vec<String>,
    /// Follow links that are named as SOURCE; links below are always copied as
    /// links
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
