//! Calls on their way to the threads of a driver.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Transaction;
use crate::metrics::StoreMetrics;
use crate::store::{Change, StoreError};

/// Calls that wait for a thread. One takes about a millisecond, so that a full
/// queue is a second of work: beyond that a caller is better told.
pub(in crate::store) const QUEUE_DEPTH: usize = 1024;
/// How long a caller waits for a place in a full queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a transaction sees of others that run beside it. Where all writes go
/// through one thread the two ways to write are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Mode {
    /// Reads one consistent state.
    Read,
    /// Reads and writes one consistent state: whoever changed a row meanwhile
    /// makes this one begin again, so that nothing is decided on an old row.
    Write,
    /// Each statement sees what is newest: for transactions whose writes carry
    /// their conditions, on rows that many want at the same time.
    WriteLatest,
    /// [`Mode::Read`] without a limit of time: for copies of everything.
    ReadLong,
    /// Writes without a limit of time, one at a time over all processes: for
    /// schemas and copies of everything.
    Alone,
}

impl Mode {
    /// Whether a transaction of this kind may change anything.
    pub(in crate::store) fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::ReadLong)
    }

    /// Whether it may last as long as it likes.
    pub(in crate::store) fn is_long(self) -> bool {
        matches!(self, Self::ReadLong | Self::Alone)
    }
}

/// A piece of work for a driver.
pub(in crate::store) struct Job {
    /// Its transaction.
    pub(in crate::store) mode: Mode,
    /// What is to be done.
    pub(in crate::store) call: Box<dyn Call>,
}

/// What a driver does in a transaction. It may be attempted several times;
/// each attempt begins anew, in a transaction of its own.
pub(in crate::store) trait Call: Send {
    /// Does the work; true = commit.
    fn attempt(&mut self, tx: &dyn Transaction) -> bool;
    /// The changes of the last attempt, for the change sink.
    fn take_changes(&mut self) -> Vec<Change>;
    /// Tells the caller: what the last attempt found, or why its transaction
    /// did not come to an end.
    fn answer(self: Box<Self>, end: Result<(), StoreError>);
}

struct Work<T, E, F> {
    work: F,
    found: Option<Result<T, E>>,
    changes: Vec<Change>,
    answer_tx: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Call for Work<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: FnMut(&dyn Transaction, &mut Vec<Change>) -> Result<T, E> + Send,
{
    fn attempt(&mut self, tx: &dyn Transaction) -> bool {
        self.changes.clear();
        self.found.insert((self.work)(tx, &mut self.changes)).is_ok()
    }

    fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn answer(self: Box<Self>, end: Result<(), StoreError>) {
        let Self { found, answer_tx, .. } = *self;
        let found = end.map_err(E::from).and_then(|()| found.unwrap_or_else(|| Err(StoreError::Closed.into())));
        // A caller that went away wants no answer; the work stands.
        drop(answer_tx.send(found));
    }
}

/// The ends of a driver's queues; its threads end when these are dropped.
#[derive(Debug, Clone)]
pub(in crate::store) struct Queues {
    writer_tx: mpsc::Sender<Job>,
    reader_tx: mpsc::Sender<Job>,
    metrics: Arc<StoreMetrics>,
}

impl Queues {
    /// Queues of a driver; both may lead to the same threads.
    pub(in crate::store) fn new(
        writer_tx: mpsc::Sender<Job>,
        reader_tx: mpsc::Sender<Job>,
        metrics: StoreMetrics,
    ) -> Self {
        Self { writer_tx, reader_tx, metrics: Arc::new(metrics) }
    }

    /// Runs `work` in a [`Mode::Write`] transaction; commits if it succeeds,
    /// and hands its changes on before the caller learns of it.
    pub(super) async fn write<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + std::error::Error + Send + 'static,
        F: FnMut(&dyn Transaction, &mut Vec<Change>) -> Result<T, E> + Send + 'static,
    {
        self.call(operation, Mode::Write, work).await
    }

    /// The same in a [`Mode::WriteLatest`] transaction.
    pub(super) async fn write_latest<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + std::error::Error + Send + 'static,
        F: FnMut(&dyn Transaction, &mut Vec<Change>) -> Result<T, E> + Send + 'static,
    {
        self.call(operation, Mode::WriteLatest, work).await
    }

    /// Runs `work` on one consistent state.
    pub(in crate::store) async fn read<T, F>(&self, operation: &'static str, mut work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&dyn Transaction) -> Result<T, StoreError> + Send + 'static,
    {
        self.call(operation, Mode::Read, move |tx: &dyn Transaction, _: &mut Vec<Change>| work(tx)).await
    }

    /// Runs `work` in a transaction of any kind.
    pub(in crate::store) async fn call<T, E, F>(&self, operation: &'static str, mode: Mode, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + std::error::Error + Send + 'static,
        F: FnMut(&dyn Transaction, &mut Vec<Change>) -> Result<T, E> + Send + 'static,
    {
        let begun = Instant::now();
        let (answer_tx, answer_rx) = oneshot::channel();
        let call = Box::new(Work { work, found: None, changes: Vec::new(), answer_tx });
        let queue = if mode.writes() { &self.writer_tx } else { &self.reader_tx };
        queue.send_timeout(Job { mode, call }, QUEUE_TIMEOUT).await.map_err(|error| match error {
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
