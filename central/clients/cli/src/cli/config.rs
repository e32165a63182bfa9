//! `roost config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::ListArgs;

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// List contexts
    #[command(after_help = "Example:\n  roost config get-contexts")]
    GetContexts(ListArgs),
    /// Choose the current context
    #[command(after_help = "Example:\n  roost config use-context lab")]
    UseContext {
        /// Which
        name: String,
    },
    /// Make or change a context
    #[command(after_help = "\
Examples:
  roost config set-context lab --server https://roost.lab --token-stdin < token
  roost config set-context lab --server https://roost.lab --token-file /etc/roost/token
  roost config set-context lab --ca-file /etc/roost/ca.pem

The first context becomes the current one.")]
    SetContext(SetContextArgs),
    /// Forget contexts
    #[command(after_help = "Example:\n  roost config delete-context lab")]
    DeleteContext {
        /// Which
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Print the name of the current context
    #[command(after_help = "Example:\n  roost config current-context")]
    CurrentContext,
    /// Print the file, tokens masked
    #[command(after_help = "Example:\n  roost config view")]
    View,
}

/// `set-context`; `--server` and `--token-file` are the global ones.
#[derive(Debug, Args)]
pub(crate) struct SetContextArgs {
    /// Its name
    pub(crate) name: String,
    /// Read the token from standard input and keep it
    #[arg(long)]
    pub(crate) token_stdin: bool,
    /// Certificates that may sign the server's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow the token over plain http to another machine
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) insecure: Option<bool>,
    /// Make it the current context
    #[arg(long = "use")]
    pub(crate) is_current: bool,
}
