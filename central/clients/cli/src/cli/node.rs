//! `roost node`.

use std::time::Duration;

use clap::{Args, Subcommand};
use roost_proto::id::{JoinTokenId, NodeId, SandboxName};

use crate::output::{ListArgs, OutputArgs};
use crate::values;

/// The verbs of a node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    #[command(visible_alias = "list", after_help = "Examples:\n  roost node ls\n  roost node ls -o wide")]
    Ls(ListArgs),
    /// Show everything about nodes
    #[command(after_help = "Example:\n  roost node get gpu-a")]
    Get(GetNodeArgs),
    /// Remove nodes from the registry; their certificates end
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  roost node rm gpu-a
  roost node rm gpu-a --force      it is lost for good, with its sandboxes"
    )]
    Rm(RemoveNodeArgs),
    /// Have nodes renew their certificates now
    #[command(after_help = "Examples:\n  roost node rotate gpu-a\n  roost node rotate gpu-a --wait")]
    Rotate(RotateNodeArgs),
    /// Sandboxes that central's restored database does not know
    #[command(after_help = "\
Examples:
  roost node orphans ls
  roost node orphans adopt --node gpu-a --all
  roost node orphans adopt sbx-0123456789abcdef --name demo-2
  roost node orphans rm sbx-0123456789abcdef")]
    Orphans(OrphansArgs),
    /// Take a node back that central's restored database does not know
    #[command(after_help = "\
The id is in the log of its roostd and of central. It keeps its certificate and its sandboxes.

Example:
  roost node readmit node-0123456789abcdef --name gpu-a")]
    Readmit(ReadmitNodeArgs),
    /// Make a token with which one node can join
    #[command(after_help = "\
Examples:
  roost node join-token --expires-in 10m > join-token
  roost node join-token ls
  roost node join-token rm join-0123456789abcdef")]
    JoinToken(JoinTokenArgs),
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetNodeArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveNodeArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Give up a lost or stolen node: it is cut off, its sandboxes are Gone (node-lost)
    #[arg(long)]
    pub(crate) force: bool,
    /// With --force on a terminal: do not ask
    #[arg(short, long, requires = "force")]
    pub(crate) yes: bool,
}

/// `rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateNodeArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Wait until the new certificates are in use
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

/// `join-token`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct JoinTokenArgs {
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    pub(crate) expires_in: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) action: Option<JoinTokenAction>,
}

/// What else can be done with join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenAction {
    /// List the tokens that are still good
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Make tokens worthless
    #[command(visible_alias = "delete")]
    Rm {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<JoinTokenId>,
    },
}

/// `orphans`.
#[derive(Debug, Args)]
pub(crate) struct OrphansArgs {
    #[command(subcommand)]
    pub(crate) action: OrphanAction,
}

/// What can be done with orphans.
#[derive(Debug, Subcommand)]
pub(crate) enum OrphanAction {
    /// List them
    #[command(visible_alias = "list")]
    Ls {
        /// Only those of this node
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Make them sandboxes like any other; nothing is restarted
    Adopt {
        #[command(flatten)]
        chosen: ChooseOrphans,
        /// Another name than the one it had
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        name: Option<SandboxName>,
    },
    /// Delete them with everything they hold
    #[command(visible_alias = "delete")]
    Rm {
        #[command(flatten)]
        chosen: ChooseOrphans,
        /// On a terminal: do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Which orphans.
#[derive(Debug, Args)]
pub(crate) struct ChooseOrphans {
    /// Ids or names
    #[arg(value_name = "SANDBOX", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) orphans: Vec<String>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    /// Only those of this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
}

/// `readmit`.
#[derive(Debug, Args)]
pub(crate) struct ReadmitNodeArgs {
    /// Its id
    #[arg(value_name = "NODE_ID")]
    pub(crate) node: NodeId,
    /// Name that it is to be listed under
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
}
