//! A thread that owns a connection, and its queue.

use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::mpsc;

use super::transaction::SqliteTransaction;
use crate::store::sql::{Call, Job, Mode, QUEUE_DEPTH};
use crate::store::{ChangeSink, StoreError};

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn spawn(name: &str, mut conn: Connection, sink: Arc<dyn ChangeSink>) -> std::io::Result<mpsc::Sender<Job>> {
    let (tx, mut rx) = mpsc::channel::<Job>(QUEUE_DEPTH);
    let work = move || {
        while let Some(mut job) = rx.blocking_recv() {
            let end = run(&mut conn, job.mode, &mut *job.call, &*sink);
            job.call.answer(end);
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(work)?;
    Ok(tx)
}

fn run(conn: &mut Connection, mode: Mode, call: &mut dyn Call, sink: &dyn ChangeSink) -> Result<(), StoreError> {
    // Immediate: the lock is taken at once, not in the middle.
    let behavior = if mode.writes() { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
    let tx = conn.transaction_with_behavior(behavior)?;
    if !call.attempt(&SqliteTransaction(&tx)) {
        return Ok(());
    }
    tx.commit()?;
    let changes = call.take_changes();
    if !changes.is_empty() {
        sink.committed(changes);
    }
    Ok(())
}
