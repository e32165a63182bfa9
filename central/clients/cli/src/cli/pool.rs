//! `roost pool`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use roost_proto::id::{PoolName, ProfileName, TemplateName};
use roost_proto::model::PoolUpdate;

use crate::output::{ListArgs, OutputArgs};
use crate::values;

/// The verbs of a pool.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Make a pool or replace what it is to be
    #[command(after_help = "\
Examples:
  roost pool set desks --template desktop --min-ready 4
  roost pool set desks --template desktop --min-ready 4 --max 20 --demand-window 5s --node gpu-1 --node gpu-2
  sudo roost pool set mine --node-socket --template-file desktop.toml --profile-file small.toml --min-ready 2

Numbers are those of each node. `roost sandbox claim` takes a desktop.")]
    Set(SetPoolArgs),
    /// List pools with what they have ready
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  roost pool ls
  sudo roost pool ls --node-socket"
    )]
    Ls(ListPoolsArgs),
    /// Show how a pool stands on each node
    #[command(after_help = "Example:\n  roost pool get desks")]
    Get(GetPoolArgs),
    /// Remove pools with the desktops that nobody has claimed
    #[command(visible_alias = "delete", after_help = "Example:\n  roost pool rm desks")]
    Rm(RemovePoolsArgs),
}

/// `set`.
#[derive(Debug, Args)]
pub(crate) struct SetPoolArgs {
    /// The pool
    pub(crate) pool: PoolName,
    /// What its desktops are made from
    #[arg(long, required_unless_present = "socket", conflicts_with = "socket")]
    pub(crate) template: Option<TemplateName>,
    /// What they may use [default: the template's own]
    #[arg(long, conflicts_with = "socket")]
    pub(crate) profile: Option<ProfileName>,
    /// Only on this node (its name); may be repeated [default: on every node]
    #[arg(long = "node", value_name = "NODE", conflicts_with = "socket")]
    pub(crate) nodes: Vec<String>,
    /// Make the pool on this machine, without central
    /// [default path: /run/roost/roostd.sock]
    #[arg(long = "node-socket", alias = "socket", value_name = "PATH", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) socket: Option<Option<PathBuf>>,
    /// With --node-socket: the template, as `roost template get` prints it
    #[arg(
        long,
        value_name = "FILE",
        requires = "socket",
        conflicts_with = "template",
        required_unless_present = "template"
    )]
    pub(crate) template_file: Option<PathBuf>,
    /// With --node-socket: the profile, as `roost profile get` prints it
    #[arg(
        long,
        value_name = "FILE",
        requires = "socket",
        conflicts_with = "template",
        required_unless_present = "template"
    )]
    pub(crate) profile_file: Option<PathBuf>,
    /// Set a variable in all of them; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Fewest that are kept ready
    #[arg(long, value_name = "COUNT")]
    pub(crate) min_ready: u32,
    /// Most that exist unclaimed at once [default: twice --min-ready, at least 1 more]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max: Option<u32>,
    /// Starts under way at once
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub(crate) starts_at_once: u32,
    /// Hold the claims of so long ready on top of --min-ready, by their recent rate
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    pub(crate) demand_window: Duration,
    /// How a change replaces what there is: on-replenish or recreate
    #[arg(long, value_name = "HOW", default_value = "on-replenish", value_parser = update)]
    pub(crate) update: PoolUpdate,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl SetPoolArgs {
    /// Most that exist unclaimed at once.
    pub(crate) fn max(&self) -> u32 {
        let min = self.min_ready;
        self.max.unwrap_or_else(|| min.saturating_mul(2).max(min.saturating_add(1)))
    }

    /// The window of demand, in milliseconds.
    pub(crate) fn demand_window_ms(&self) -> u32 {
        u32::try_from(self.demand_window.as_millis()).unwrap_or(u32::MAX)
    }
}

fn update(text: &str) -> Result<PoolUpdate, String> {
    match text {
        "on-replenish" => Ok(PoolUpdate::OnReplenish),
        "recreate" => Ok(PoolUpdate::Recreate),
        _ => Err("use on-replenish or recreate".into()),
    }
}

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct ListPoolsArgs {
    /// List the pools of this machine
    /// [default path: /run/roost/roostd.sock]
    #[arg(long = "node-socket", alias = "socket", value_name = "PATH", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) socket: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetPoolArgs {
    /// The pool
    pub(crate) pool: PoolName,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemovePoolsArgs {
    /// Names
    #[arg(required = true, value_name = "POOL")]
    pub(crate) pools: Vec<PoolName>,
    /// Remove pools of this machine
    /// [default path: /run/roost/roostd.sock]
    #[arg(long = "node-socket", alias = "socket", value_name = "PATH", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) socket: Option<Option<PathBuf>>,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::{Cli, Command};

    use super::*;

    fn set(line: &str) -> Result<SetPoolArgs, clap::Error> {
        match Cli::try_parse_from(line.split_whitespace())?.command {
            Command::Pool(PoolCommand::Set(args)) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pool_has_room_to_grow_unless_it_is_told_otherwise() {
        for (line, max) in [("0", 1), ("1", 2), ("4", 8), ("4 --max 5", 5)] {
            let args = set(&format!("roost pool set desks --template desktop --min-ready {line}")).unwrap();
            assert_eq!(args.max(), max, "{line}");
        }
    }

    #[test]
    fn a_template_is_a_name_for_central_and_a_file_for_a_node() {
        assert!(set("roost pool set p --min-ready 1").is_err());
        assert!(set("roost pool set p --node-socket --min-ready 1").is_err());
        assert!(set("roost pool set p --template t --template-file t.toml --min-ready 1").is_err());
        assert!(set("roost pool set p --node-socket --template t --min-ready 1").is_err());
        let local = set("roost pool set p --min-ready 1 --template-file t --profile-file p --node-socket").unwrap();
        assert_eq!(local.socket, Some(None));
    }
}
