//! Sets up tracing from the configuration.

use std::sync::LazyLock;

use roost_proto::support::LogRing;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::writer::MakeWriterExt;

use crate::config::{LogConfig, LogFormat};

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be parsed.
    #[error("log.filter \"{filter}\" is not a tracing filter: use e.g. \"info\" or \"info,roost_central::link=debug\"")]
    Filter {
        /// The configured text.
        filter: String,
        /// What the parser said.
        #[source]
        source: ParseError,
    },
    /// A subscriber is set already.
    #[error("logging is already set up in this process")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The last lines of this process's log, for support bundles.
pub fn ring() -> &'static LogRing {
    static RING: LazyLock<LogRing> = LazyLock::new(LogRing::default);
    &RING
}

/// Sends log lines to standard error, for the whole process.
///
/// # Errors
/// See [`LogError`].
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| LogError::Filter { filter: config.filter.clone(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr.and(|| ring().clone()));
    match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::Twice)
}

/// An error with all its sources in one line: what the log shows.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
