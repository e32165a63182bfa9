//! What can be typed.
//!
//! One file per noun; here the command itself and what all nouns share.

mod catalog;
mod claim;
mod config;
mod copy;
mod debug;
#[cfg(test)]
mod docs;
mod doctor;
mod image;
mod lifetime;
mod node;
mod pool;
mod sandbox;
mod volume;

pub(crate) use catalog::{ApplyArgs, CatalogCommand, GetManifestArgs, RemoveManifestArgs};
pub(crate) use claim::{ClaimArgs, FileArg, SecretArg, SecretSource};
pub(crate) use config::{ConfigCommand, SetContextArgs};
pub(crate) use copy::CopyArgs;
pub(crate) use debug::{BundleArgs, DebugCommand, TraceArgs};
pub(crate) use doctor::DoctorArgs;
pub(crate) use image::{
    ExportArgs, ImageCommand, ImportArgs, ListImagesArgs, NodesArgs, PinArgs, PruneArgs, PullArgs, RemoveImageArgs,
};
pub(crate) use lifetime::LifetimeArgs;
pub(crate) use node::{
    ChooseOrphans, JoinTokenAction, JoinTokenArgs, NodeCommand, OrphanAction, OrphansArgs, ReadmitNodeArgs,
    RemoveNodeArgs, RotateNodeArgs,
};
pub(crate) use pool::{GetPoolArgs, ListPoolsArgs, PoolCommand, RemovePoolsArgs, SetPoolArgs};
pub(crate) use sandbox::{
    CreateArgs, ExecArgs, ListSandboxesArgs, LogsArgs, RemoveArgs, SandboxCommand, ScreenshotArgs, SelectorTerm,
    SetArgs, VerbArgs, WaitArgs,
};

pub(crate) use volume::{
    GetVolumeArgs, ListCheckpointsArgs, RemoveVolumesArgs, VolumeArgs, VolumeCommand, VolumePlace,
};

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::context::{Overrides, ServerUrl};
use crate::output::OutputArgs;
use crate::values;

const AFTER_HELP: &str = "\
Examples:
  roost sandbox create desktop --name demo --wait   a desktop, ready to use
  roost sandbox screenshot demo                     what it shows
  roost sandbox exec -it demo -- bash               a shell inside
  roost sandbox rm demo

Exit codes:
  0 ok   1 error   2 wrong usage   3 not found   4 conflict
  5 unauthorized   6 timeout   7 unavailable
  8 `sandbox claim`: the claim stands, its hook ended with another status than 0
  `sandbox exec` ends with the program's own code.

Environment:
  ROOST_CONTEXT, ROOST_SERVER     as --context, --server
  ROOST_TOKEN, ROOST_TOKEN_FILE   the token; it is never an argument
  ROOST_CONFIG                    the contexts (default ~/.config/roost/config.toml)
  ROOST_NODE_SOCKET               the path of --node-socket, where that names none
  NO_COLOR                        no colours";

/// Desktops for AI agents, launched straight on GPU nodes
#[derive(Debug, Parser)]
#[command(name = "roost", version, after_help = AFTER_HELP)]
#[command(disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct GlobalArgs {
    /// Use this context instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Call this server instead of the context's
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<ServerUrl>,
    /// Read the token from this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Longest time for one answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = values::positive_duration)]
    pub(crate) request_timeout: Duration,
}

impl GlobalArgs {
    /// What is said about the target.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { context: self.context.clone(), server: self.server.clone(), token_file: self.token_file.clone() }
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, see, use and remove desktops
    #[command(subcommand, visible_aliases = ["sb", "sandboxes"])]
    Sandbox(SandboxCommand),
    /// The machines that run them
    #[command(subcommand, visible_alias = "nodes")]
    Node(NodeCommand),
    /// Desktops that are kept ready for claims
    #[command(subcommand, visible_alias = "pools")]
    Pool(PoolCommand),
    /// Homes that outlive sandboxes
    #[command(visible_aliases = ["vol", "volumes"])]
    Volume(VolumeArgs),
    /// How sandboxes are made: image, screen, application
    #[command(subcommand, visible_aliases = ["tpl", "templates"])]
    Template(CatalogCommand),
    /// What sandboxes may use: CPU, memory, isolation
    #[command(subcommand, visible_alias = "profiles")]
    Profile(CatalogCommand),
    /// Images on the nodes
    #[command(subcommand, visible_aliases = ["img", "images"])]
    Image(ImageCommand),
    Doctor(DoctorArgs),
    /// Look into daemons: sandboxes, starts, tasks; collect a support bundle
    Debug(DebugArgs),
    /// Servers and tokens that this command knows
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Versions of this command and of the server
    Version(VersionArgs),
    /// Print a script that completes commands in your shell
    #[command(after_help = "\
Examples:
  roost completion bash > /etc/bash_completion.d/roost
  roost completion zsh > \"${fpath[1]}/_roost\"
  roost completion fish > ~/.config/fish/completions/roost.fish")]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// `roost debug`.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// The daemon's socket [default: /run/roost/roostd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) node_socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: DebugCommand,
}

/// `roost version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Only this command's version; asks no server
    #[arg(long)]
    pub(crate) client: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Shells that can complete.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash
    Bash,
    /// The Z shell
    Zsh,
    /// fish
    Fish,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shorthands_mean_the_same() {
        for line in ["roost sb ls", "roost sandbox list", "roost sandbox ls", "roost sandboxes ls"] {
            let cli = parse(line).unwrap();
            assert!(matches!(cli.command, Command::Sandbox(SandboxCommand::Ls(_))), "{line}");
        }
        for line in ["roost sb rm a b", "roost sandbox delete a b"] {
            match parse(line).unwrap().command {
                Command::Sandbox(SandboxCommand::Rm(args)) => assert_eq!(args.sandboxes.len(), 2, "{line}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_follows_the_dashes_belongs_to_the_program() {
        match parse("roost sandbox exec -it demo -- ls -la --color").unwrap().command {
            Command::Sandbox(SandboxCommand::Exec(args)) => {
                assert!(args.stdin && args.tty);
                assert_eq!(args.command, ["ls", "-la", "--color"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_option_takes_a_token() {
        for bad in ["roost --token x sandbox ls", "roost sandbox ls --token x", "roost config set-context a --token x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sandbox_is_named_by_a_name_or_id() {
        assert!(parse("roost sandbox get demo sbx-0123456789abcdef").is_ok());
        for bad in ["roost sandbox get ../nodes", "roost sandbox get Demo", "roost sandbox get"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_command_has_help_with_examples() {
        for command in Cli::command().get_subcommands() {
            for verb in command.get_subcommands() {
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{} {} has no examples", command.get_name(), verb.get_name());
            }
        }
    }
}
