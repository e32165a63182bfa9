//! The driver of SQLite: one file, WAL, every commit synchronous.
//!
//! All writes go through one thread and all reads through another, so that a
//! long list never delays a creation. Two processes may open the file at the
//! same time: `roost-central join-token` works beside a running server.

mod thread;
mod transaction;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::sql::{Queues, SqlStore, migrate};
use super::{ChangeSink, StoreError};
use crate::metrics::StoreMetrics;
use transaction::SqliteTransaction;

/// Which file, and how it is used.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The file; it is created where it does not exist (mode 0600).
    pub path: PathBuf,
    /// How long a statement waits for another process that writes.
    pub busy_timeout: Duration,
}

/// Opens the file and brings its schema up to date.
///
/// # Errors
/// [`StoreError::Open`], [`StoreError::Newer`], and [`StoreError::Busy`] while
/// another process writes.
pub fn open(config: &SqliteConfig, sink: Arc<dyn ChangeSink>, metrics: StoreMetrics) -> Result<SqlStore, StoreError> {
    let lock = lock_file(&config.path).map_err(|error| open_error(&config.path, error))?;
    lock.try_lock_shared().map_err(|_| StoreError::Busy)?;
    let mut writer = connect(config)?;
    let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    migrate::run(&SqliteTransaction(&tx))?;
    tx.commit()?;
    let reader = connect(config)?;
    reader.pragma_update(None, "query_only", true)?;
    let writer_tx = thread::spawn("store-writer", writer, sink.clone()).map_err(|e| open_error(&config.path, e))?;
    let reader_tx = thread::spawn("store-reader", reader, sink).map_err(|e| open_error(&config.path, e))?;
    Ok(SqlStore::with_lock(Queues::new(writer_tx, reader_tx, metrics), lock))
}

/// The file by which a central that serves and an import keep clear of each
/// other.
fn lock_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    File::options().create(true).append(true).mode(0o600).open(name)
}

/// Keeps every central from opening the file for as long as the answer lives;
/// none where one has it open.
///
/// # Errors
/// [`StoreError::Open`].
pub(super) fn lock_out(config: &SqliteConfig) -> Result<Option<File>, StoreError> {
    let fault = |source| open_error(&config.path, source);
    let file = lock_file(&config.path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(fault(error)),
    }
}

/// The same without a look at the schema: for the commands that copy and check
/// whole databases. The file must exist, unless it may be made.
///
/// # Errors
/// [`StoreError::Open`].
pub(super) fn start(
    config: &SqliteConfig,
    sink: Arc<dyn ChangeSink>,
    metrics: StoreMetrics,
    may_create: bool,
) -> Result<Queues, StoreError> {
    if !may_create && !config.path.exists() {
        return Err(open_error(&config.path, std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    let (writer, reader) = (connect(config)?, connect(config)?);
    let writer_tx = thread::spawn("store-writer", writer, sink.clone()).map_err(|e| open_error(&config.path, e))?;
    let reader_tx = thread::spawn("store-reader", reader, sink).map_err(|e| open_error(&config.path, e))?;
    Ok(Queues::new(writer_tx, reader_tx, metrics))
}

fn open_error(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Open { path: path.display().to_string(), source: source.into() }
}

/// Opens the file with what every connection needs.
fn connect(config: &SqliteConfig) -> Result<Connection, StoreError> {
    let path = &config.path;
    private(path).map_err(|source| open_error(path, source))?;
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open(path)?;
        conn.busy_timeout(config.busy_timeout)?;
        conn.pragma_update(None, "journal_mode", "wal")?;
        // Every commit reaches the disk before it is answered.
        conn.pragma_update(None, "synchronous", "full")?;
        conn.pragma_update(None, "foreign_keys", true)?;
        Ok(conn)
    };
    open().map_err(|source| open_error(path, source))
}

/// Makes sure that only the owner may read the file, before anything is in it.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
pub(super) mod tests;
