//! `roost image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use roost_proto::model::ImageRef;

use crate::output::ListArgs;

/// The verbs of an image.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images that nodes hold
    #[command(visible_alias = "list", after_help = "Example:\n  roost image ls -o wide")]
    Ls(ListArgs),
    /// Send an OCI or docker archive to a node
    #[command(after_help = "\
Examples:
  roost image import desktop.tar --node gpu-a
  docker save my/desktop | roost image import - --node gpu-a --reference my/desktop:1")]
    Import(ImportArgs),
    /// Remove an image from nodes
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  roost image rm my/desktop:1 --node gpu-a
  roost image rm my/desktop:1 --all-nodes"
    )]
    Rm(RemoveImageArgs),
}

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The archive; - = standard input
    pub(crate) file: PathBuf,
    /// The node (name or id) [default: the only one there is]
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Name it is stored under [default: the one in the archive]
    #[arg(long)]
    pub(crate) reference: Option<ImageRef>,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveImageArgs {
    /// The image
    pub(crate) reference: ImageRef,
    /// From this node (name or id); may be repeated
    #[arg(long = "node", value_name = "NODE", required_unless_present = "all_nodes", conflicts_with = "all_nodes")]
    pub(crate) nodes: Vec<String>,
    /// From every node that holds it
    #[arg(long)]
    pub(crate) all_nodes: bool,
}
