//! The driver of PostgreSQL: for several replicas of central on one database.
//!
//! A fixed number of threads own a connection each and take jobs from one
//! queue. A transaction that gives way to another one (SQLSTATE 40001, 40P01,
//! 23505) begins anew, as does one whose connection is lost before its commit
//! was sent; of a commit whose answer is lost nobody knows, and the caller is
//! told so ([`StoreError::Unknown`]). Changes travel by NOTIFY within their
//! transaction, so that every replica learns of them in the order of the
//! commits: see `feed`.

mod connect;
mod feed;
mod notice;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod transaction;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::sql::{QUEUE_DEPTH, Queues, SqlStore};
use super::{ChangeSink, StoreError};
use crate::metrics::StoreMetrics;
use connect::Connector;
use worker::Worker;

/// Every central that serves shares this lock, and an import has it alone:
/// "roosu", next to the lock of the schema.
const SERVING_LOCK: i64 = 0x72_6f6f_7375;

/// Which database, and how it is reached.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://user@host:port/database`, without a password.
    pub url: String,
    /// File that holds the password; none = no password.
    pub password_file: Option<PathBuf>,
    /// Whether the connection is encrypted.
    pub sslmode: SslMode,
    /// Certificates in PEM that the server's is checked with; none = those of
    /// the system.
    pub ca_file: Option<PathBuf>,
    /// Connections for calls; the change feed has one more.
    pub pool_size: usize,
    /// Time for a new connection, its TLS and login included.
    pub connect_timeout: Duration,
    /// Time for one statement.
    pub statement_timeout: Duration,
}

/// Whether a connection is encrypted. A certificate is always checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it.
    Prefer,
    /// Always.
    VerifyFull,
}

/// Connects, and brings the schema up to date; of several replicas that start
/// together one does it and the others wait.
///
/// # Errors
/// [`StoreError::Open`] for a configuration that cannot be used,
/// [`StoreError::Unavailable`] while the server does not answer, and
/// [`StoreError::Newer`].
pub async fn open(
    config: &PostgresConfig,
    sink: Arc<dyn ChangeSink>,
    metrics: StoreMetrics,
) -> Result<SqlStore, StoreError> {
    let queues = start(config, &sink, metrics)?;
    queues.migrate().await?;
    let feed = feed::spawn(Connector::new(config)?, queues.clone(), sink).map_err(|e| open_error(config, e))?;
    Ok(SqlStore::with_feed(queues, feed))
}

/// The same without a look at the schema and without a change feed: for the
/// commands that copy and check whole databases.
///
/// # Errors
/// [`StoreError::Open`].
pub(super) fn start(
    config: &PostgresConfig,
    sink: &Arc<dyn ChangeSink>,
    metrics: StoreMetrics,
) -> Result<Queues, StoreError> {
    let connector = Arc::new(Connector::new(config)?);
    let (jobs_tx, jobs_rx) = mpsc::channel(QUEUE_DEPTH);
    let jobs_rx = Arc::new(Mutex::new(jobs_rx));
    for number in 0..config.pool_size {
        let worker =
            Worker::new(connector.clone(), sink.clone(), metrics.clone()).map_err(|e| open_error(config, e))?;
        let jobs_rx = jobs_rx.clone();
        let run = move || worker.run(&jobs_rx);
        let spawned = std::thread::Builder::new().name(format!("store-{number}")).spawn(run);
        spawned.map_err(|error| open_error(config, error))?;
    }
    Ok(Queues::new(jobs_tx.clone(), jobs_tx, metrics))
}

fn open_error(config: &PostgresConfig, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Open { path: config.url.clone(), source: source.into() }
}
