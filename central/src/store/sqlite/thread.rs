//! Two threads that own the two connections, and their queues.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::migrate;
use crate::metrics::StoreMetrics;
use crate::store::{Change, ChangeSink, StoreError};

/// Calls that wait for a thread. One takes about a millisecond, so that a full
/// queue is a second of work: beyond that a caller is better told.
const QUEUE_DEPTH: usize = 1024;
/// How long a caller waits for a place in a full queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database with its threads; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Db {
    writer_tx: mpsc::Sender<Job>,
    reader_tx: mpsc::Sender<Job>,
    sink: Arc<dyn ChangeSink>,
    metrics: StoreMetrics,
}

impl Db {
    pub(super) fn open(path: &Path, sink: Arc<dyn ChangeSink>, metrics: StoreMetrics) -> Result<Self, StoreError> {
        let mut writer = connect(path)?;
        migrate::run(&mut writer)?;
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true)?;
        let writer_tx = spawn("store-writer", writer, path)?;
        let reader_tx = spawn("store-reader", reader, path)?;
        Ok(Self { writer_tx, reader_tx, sink, metrics })
    }

    /// Runs `work` in a transaction on the writing thread; commits if it
    /// succeeds, and hands its changes to the sink before anybody learns of it.
    pub(super) async fn write<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + std::error::Error + Send + 'static,
        F: FnOnce(&Transaction<'_>, &mut Vec<Change>) -> Result<T, E> + Send + 'static,
    {
        let sink = self.sink.clone();
        self.call(&self.writer_tx, operation, move |conn| {
            let engine = |error: rusqlite::Error| E::from(StoreError::from(error));
            // Immediate: the lock is taken at once, not in the middle.
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(engine)?;
            let mut changes = Vec::new();
            let value = work(&tx, &mut changes)?;
            tx.commit().map_err(engine)?;
            if !changes.is_empty() {
                sink.committed(changes);
            }
            Ok(value)
        })
        .await
    }

    /// Runs `work` on the reading thread, on one consistent state.
    pub(super) async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.call(&self.reader_tx, operation, move |conn| {
            let tx = conn.transaction()?;
            work(&tx)
        })
        .await
    }

    async fn call<T, E, F>(&self, queue: &mpsc::Sender<Job>, operation: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + std::error::Error + Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    {
        let begun = Instant::now();
        let (answer_tx, answer_rx) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            // A caller that went away wants no answer; the work stands.
            drop(answer_tx.send(work(conn)));
        });
        queue.send_timeout(job, QUEUE_TIMEOUT).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => StoreError::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => StoreError::Closed,
        })?;
        let answer = answer_rx.await.map_err(|_| StoreError::Closed)?;
        self.metrics.observe(operation, begun.elapsed());
        if let Err(error) = &answer {
            tracing::debug!(operation, error = crate::log::chain(error), "store call refused");
        }
        answer
    }
}

fn open_error(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Open { path: path.display().to_string(), source: source.into() }
}

/// Opens the file with what every connection needs.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    private(path).map_err(|source| open_error(path, source))?;
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open(path)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
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

fn spawn(name: &str, mut conn: Connection, path: &Path) -> Result<mpsc::Sender<Job>, StoreError> {
    let (tx, mut rx) = mpsc::channel::<Job>(QUEUE_DEPTH);
    let work = move || {
        while let Some(job) = rx.blocking_recv() {
            job(&mut conn);
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(|source| open_error(path, source))?;
    Ok(tx)
}
