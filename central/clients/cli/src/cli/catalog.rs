//! `roost template` and `roost profile`, which differ in the noun only.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use roost_proto::id::TemplateName;

use crate::output::{ListArgs, OutputArgs};

/// The verbs of a template or profile.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// List them
    #[command(visible_alias = "list", after_help = "Examples:\n  roost template ls\n  roost profile ls -o wide")]
    Ls(ListArgs),
    /// Show some, as a file that `apply` takes
    #[command(after_help = "Example:\n  roost template get desktop > desktop.toml")]
    Get(GetManifestArgs),
    /// Make or replace those in files (TOML, JSON or YAML)
    #[command(after_help = "\
Examples:
  roost template apply -f desktop.toml
  roost profile apply -f small.toml -f browser.toml
  roost template get desktop -o json | jq '.name = \"mine\"' | roost template apply -f -")]
    Apply(ApplyArgs),
    /// Delete some; sandboxes made from them stay
    #[command(visible_alias = "delete", after_help = "Example:\n  roost template rm desktop")]
    Rm(RemoveManifestArgs),
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetManifestArgs {
    /// Names
    // Both nouns have the same rule for names.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<TemplateName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The file; - = standard input; may be repeated
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveManifestArgs {
    /// Names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<TemplateName>,
}
