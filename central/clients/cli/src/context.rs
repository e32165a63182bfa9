//! Which server is called, and as whom.
//!
//! [`file`]: the contexts that are kept on disk. [`resolve`]: file, flags and
//! environment become one [`Target`]. [`server`]: the server's address.
//! A token is never an argument, and a context's token goes to that context's
//! server only.

pub(crate) mod environment;
pub(crate) mod file;
pub(crate) mod resolve;
pub(crate) mod server;
pub(crate) mod token;

pub(crate) use environment::Environment;
pub(crate) use file::{ConfigFile, Context};
pub(crate) use resolve::{Overrides, Target, resolve};
pub(crate) use server::ServerUrl;
pub(crate) use token::Token;

use std::path::PathBuf;

/// Why no server can be called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// A file could not be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// `read`, `write`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The config file says something that is not understood.
    #[error("{} is not a valid configuration: {problem}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Line, field and what is wrong.
        problem: String,
    },
    /// A context that is not in the file.
    #[error("there is no context \"{name}\" in {}", path.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Which file.
        path: PathBuf,
        /// The contexts that are there.
        known: Vec<String>,
    },
    /// An address or token that cannot be used.
    #[error("{origin}: {problem}")]
    Value {
        /// Where it was given, e.g. `ROOST_SERVER`.
        origin: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The token would travel in clear text.
    #[error("refusing to send the token over plain http to {server}: anyone on the way could read it")]
    PlainHttp {
        /// The server.
        server: String,
    },
    /// Neither `HOME`, `XDG_CONFIG_HOME` nor `ROOST_CONFIG` is set.
    #[error("no place for the configuration: set HOME, XDG_CONFIG_HOME or ROOST_CONFIG")]
    NoHome,
}
