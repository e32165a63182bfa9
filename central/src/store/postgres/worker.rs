//! A thread with a connection: transactions, and when they begin anew.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::connect::Connector;
use super::notice;
use super::transaction::{Fault, PostgresTransaction, Session};
use crate::changes::lock;
use crate::metrics::{RetryReason, StoreMetrics};
use crate::store::sql::{Call, Job, Mode};
use crate::store::{Change, ChangeSink, StoreError};

/// How often a transaction is attempted. Each time another one has come
/// through, so that with a few dozen connections this is never reached.
const ATTEMPTS: u32 = 12;
/// Bounds of the wait before another attempt; half of it is random, so that
/// those who met once do not meet again.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(64);
/// How often a transaction may lose its connection: once is a restart of the
/// server, twice is a server that is away.
const LOSSES: u32 = 2;
/// Every central that changes the schema takes this lock: "roost" in ASCII.
const SCHEMA_LOCK: i64 = 0x72_6f6f_7374;

/// Copies and migrations take as long as they take.
const NO_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

/// How an attempt ended.
enum End {
    /// Committed, or rolled back as the call wished.
    Done,
    /// Not in effect, and worth another attempt.
    Again(Fault, StoreError),
    /// Over.
    Failed(StoreError),
}

/// The owner of one connection.
pub(super) struct Worker {
    runtime: Runtime,
    connector: Arc<Connector>,
    session: Option<Session>,
    sink: Arc<dyn ChangeSink>,
    metrics: StoreMetrics,
}

impl Worker {
    pub(super) fn new(
        connector: Arc<Connector>,
        sink: Arc<dyn ChangeSink>,
        metrics: StoreMetrics,
    ) -> std::io::Result<Self> {
        // Its own: the connection is driven while this thread waits for it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, connector, session: None, sink, metrics })
    }

    /// Takes jobs until the queue is closed.
    pub(super) fn run(mut self, jobs_rx: &Mutex<mpsc::Receiver<Job>>) {
        loop {
            // Whoever holds the lock waits for the next job, the others for it.
            let job = lock(jobs_rx).blocking_recv();
            let Some(Job { mode, mut call }) = job else { return };
            let end = self.complete(mode, &mut *call);
            call.answer(end);
        }
    }

    fn complete(&mut self, mode: Mode, call: &mut dyn Call) -> Result<(), StoreError> {
        let (mut wait, mut losses) = (FIRST_WAIT, 0);
        for attempt in 1.. {
            let (fault, error) = match self.attempt(mode, call) {
                End::Done => return Ok(()),
                End::Failed(error) => return Err(error),
                End::Again(fault, error) => (fault, error),
            };
            losses += u32::from(fault == Fault::Lost);
            if attempt >= ATTEMPTS || losses >= LOSSES {
                return Err(error);
            }
            self.metrics.retried(if fault == Fault::Lost {
                RetryReason::ConnectionLost
            } else {
                RetryReason::Conflict
            });
            std::thread::sleep(wait / 2 + wait.mul_f64(rand::rng().random_range(0.0..0.5)));
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Err(StoreError::Busy)
    }

    /// One transaction from begin to end.
    fn attempt(&mut self, mode: Mode, call: &mut dyn Call) -> End {
        let session = match self.session() {
            Ok(session) => session,
            Err(error) => return End::Failed(error),
        };
        let tx = PostgresTransaction {
            runtime: &self.runtime,
            session: &session,
            patience: if mode.is_long() { Duration::MAX } else { self.connector.patience },
            fault: Cell::new(None),
        };
        let end = transact(&tx, mode, call, &*self.sink);
        // A connection in an unknown state is worth nothing.
        if tx.fault.get() != Some(Fault::Lost) && !session.client.is_closed() {
            self.session = Some(session);
        }
        end
    }

    fn session(&mut self) -> Result<Session, StoreError> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let client = self.runtime.block_on(self.connector.connect(Box::new(drop)))?;
        Ok(Session::new(client))
    }
}

fn begin(mode: Mode) -> String {
    match mode {
        Mode::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".into(),
        Mode::ReadLong => format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {NO_LIMITS}"),
        Mode::Write => "BEGIN ISOLATION LEVEL REPEATABLE READ".into(),
        Mode::WriteLatest => "BEGIN ISOLATION LEVEL READ COMMITTED".into(),
        Mode::Alone => {
            format!("BEGIN ISOLATION LEVEL READ COMMITTED; {NO_LIMITS}; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        }
    }
}

fn transact(tx: &PostgresTransaction<'_>, mode: Mode, call: &mut dyn Call, sink: &dyn ChangeSink) -> End {
    if let Err(error) = tx.wait(tx.session.client.batch_execute(&begin(mode))) {
        return again(tx, error);
    }
    let is_wanted = call.attempt(tx);
    let changes = call.take_changes();
    let mut told = Ok(());
    if is_wanted && tx.fault.get().is_none() {
        told = notice::send(tx, &changes);
    }
    match (tx.fault.get(), is_wanted) {
        (None, true) => commit(tx, mode, changes, sink),
        (None | Some(Fault::Refused), false) => {
            roll_back(tx);
            End::Done
        }
        (Some(_), _) => {
            roll_back(tx);
            again(tx, told.err().unwrap_or_else(|| StoreError::Statement(Box::new(Swallowed))))
        }
    }
}

/// A call went on after a statement had failed.
#[derive(Debug, thiserror::Error)]
#[error("a statement of the transaction failed")]
struct Swallowed;

/// What follows from the failure that the transaction has noted.
fn again(tx: &PostgresTransaction<'_>, error: StoreError) -> End {
    match tx.fault.get() {
        Some(Fault::Conflict) => End::Again(Fault::Conflict, StoreError::Busy),
        Some(Fault::Lost) => End::Again(Fault::Lost, lost(error)),
        Some(Fault::Refused) | None => End::Failed(error),
    }
}

fn lost(error: StoreError) -> StoreError {
    if matches!(error, StoreError::Unavailable(_)) { error } else { StoreError::Unavailable(Box::new(error)) }
}

/// Ends a transaction without effect. A connection that fails here is noted as
/// lost, and its end has the same effect.
fn roll_back(tx: &PostgresTransaction<'_>) {
    if tx.fault.get() == Some(Fault::Lost) {
        return;
    }
    if let Err(error) = tx.wait(tx.session.client.batch_execute("ROLLBACK")) {
        tracing::debug!(error = crate::log::chain(&error), "transaction ended with its connection");
        tx.fault.set(Some(Fault::Lost));
    }
}

fn commit(tx: &PostgresTransaction<'_>, mode: Mode, changes: Vec<Change>, sink: &dyn ChangeSink) -> End {
    if let Err(error) = tx.wait(tx.session.client.batch_execute("COMMIT")) {
        // Only a lost answer leaves it open whether a write took effect.
        return match tx.fault.get() {
            Some(Fault::Lost) if mode.writes() => End::Failed(StoreError::Unknown(Box::new(error))),
            _ => again(tx, error),
        };
    }
    // The feed brings all changes, in the order of the commits. A session that
    // waits for its desired state need not wait for the feed.
    let desired: Vec<_> = changes.into_iter().filter(|change| matches!(change, Change::Desired { .. })).collect();
    if !desired.is_empty() {
        sink.committed(desired);
    }
    End::Done
}
