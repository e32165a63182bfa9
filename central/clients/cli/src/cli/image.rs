//! `roost image`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use roost_proto::model::ImageRef;

use crate::output::ListArgs;

/// The verbs of an image.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images that nodes hold
    #[command(visible_alias = "list", after_help = "Example:\n  roost image ls -o wide")]
    Ls(ListImagesArgs),
    /// Have nodes fetch an image from its registry
    #[command(after_help = "\
A pull that broke off goes on from where it was. On the node itself, without central: --node-socket.

Examples:
  roost image pull registry.example/team/desktop:1 --node gpu-a --node gpu-b
  roost image pull registry.example/team/desktop@sha256:0123… --all-nodes --pin
  roost image pull registry.example/team/desktop:1 --node-socket")]
    Pull(PullArgs),
    /// Send an OCI or docker archive to a node
    #[command(after_help = "\
Examples:
  roost image import desktop.tar --node gpu-a
  roost image import desktop.tar --node-socket
  docker save my/desktop | roost image import - --node gpu-a --reference my/desktop:1")]
    Import(ImportArgs),
    /// Remove an image from nodes
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  roost image rm my/desktop:1 --node gpu-a
  roost image rm my/desktop:1 --all-nodes
  roost image rm my/desktop:1 --node-socket"
    )]
    Rm(RemoveImageArgs),
    /// Remove images that no sandbox uses and nobody pinned
    #[command(after_help = "\
Examples:
  roost image prune --node gpu-a --dry-run
  roost image prune --all-nodes --unused-for 7d
  roost image prune --node-socket")]
    Prune(PruneArgs),
    /// Write an image of a node into an OCI archive
    #[command(after_help = "Example:\n  roost image export my/desktop:1 --node gpu-a -o desktop.tar")]
    Export(ExportArgs),
    /// Keep an image from garbage collection and pruning
    #[command(after_help = "Example:\n  roost image pin my/desktop:1 --node gpu-a")]
    Pin(PinArgs),
    /// Let garbage collection have an image again
    #[command(after_help = "Example:\n  roost image unpin my/desktop:1 --node gpu-a")]
    Unpin(PinArgs),
}

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct ListImagesArgs {
    /// Only this node's (name or id), with pins, users and last use
    #[arg(long, conflicts_with = "node_socket")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// The daemon on this machine instead of central.
#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// Ask the daemon on this machine instead of central
    /// [default path: /run/roost/roostd.sock]
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) node_socket: Option<Option<PathBuf>>,
}

/// Which nodes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct NodesArgs {
    /// This node (name or id); may be repeated
    #[arg(long = "node", value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Every node that is online
    #[arg(long)]
    pub(crate) all_nodes: bool,
    /// Ask the daemon on this machine instead of central
    /// [default path: /run/roost/roostd.sock]
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) node_socket: Option<Option<PathBuf>>,
}

/// `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image, with its registry; may name a digest
    pub(crate) reference: ImageRef,
    #[command(flatten)]
    pub(crate) nodes: NodesArgs,
    /// Do not ask the registry where the image is already
    #[arg(long)]
    pub(crate) if_not_present: bool,
    /// Pin it as well
    #[arg(long)]
    pub(crate) pin: bool,
    #[command(flatten)]
    pub(crate) output: ListArgs,
}

/// `prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) nodes: NodesArgs,
    /// Only images that were not used for so long
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::values::duration)]
    pub(crate) unused_for: Duration,
    /// Only show what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: ListArgs,
}

/// `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The image
    pub(crate) reference: ImageRef,
    /// From this node (name or id) [default: the first that holds it]
    #[arg(long, conflicts_with = "node_socket")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// The archive; - = standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// `pin` and `unpin`.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// The image
    pub(crate) reference: ImageRef,
    #[command(flatten)]
    pub(crate) nodes: NodesArgs,
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The archive; - = standard input
    pub(crate) file: PathBuf,
    /// The node (name or id) [default: the only one there is]
    #[arg(long, conflicts_with = "node_socket")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Name it is stored under [default: the one in the archive]
    #[arg(long)]
    pub(crate) reference: Option<ImageRef>,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveImageArgs {
    /// The image
    pub(crate) reference: ImageRef,
    #[command(flatten)]
    pub(crate) nodes: NodesArgs,
}
