//! Changes of all replicas on their way to this one.
//!
//! ```text
//!   connect ─▶ LISTEN ─▶ tell of a gap, all generations ─▶ notices ─▶ read ─▶ sink
//!      ▲                                                      │
//!      └──────────────────── connection lost ◀────────────────┘
//! ```
//!
//! What happened while nobody listened is not known: followers are told of the
//! gap and look anew.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::Sandbox;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::SERVING_LOCK;
use super::connect::Connector;
use super::notice::{self, CHANNEL, Notice};
use crate::store::sql::Queues;
use crate::store::{Change, ChangeSink, StoreError};

/// Notifications that wait to be read. One stands for up to 300 changes; more
/// are dropped, which is a gap.
const INBOX_DEPTH: usize = 4096;
/// Notifications that are read together.
const BATCH: usize = 256;
/// Silence after which the connection is tried.
const PING_PERIOD: Duration = Duration::from_secs(5);
/// Wait before another connection is made.
const RECONNECT_WAIT: Duration = Duration::from_secs(1);

/// The feed's connection ended.
#[derive(Debug, thiserror::Error)]
#[error("the connection of the change feed ended")]
struct Ended;

fn ended(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(source.into())
}

struct Feed {
    connector: Connector,
    queues: Queues,
    sink: Arc<dyn ChangeSink>,
}

/// Follows the changes on a thread of its own until the guard is dropped.
pub(super) fn spawn(connector: Connector, queues: Queues, sink: Arc<dyn ChangeSink>) -> io::Result<DropGuard> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ending = CancellationToken::new();
    let guard = ending.clone().drop_guard();
    let feed = Feed { connector, queues, sink };
    let work = async move {
        // Both arms may be dropped anywhere: the next feed begins with a gap.
        tokio::select! {
            () = feed.run() => {}
            () = ending.cancelled() => {}
        }
    };
    std::thread::Builder::new().name("store-feed".into()).spawn(move || runtime.block_on(work))?;
    Ok(guard)
}

impl Feed {
    async fn run(&self) {
        let mut is_down = false;
        loop {
            let Err(error) = self.follow(&mut is_down).await;
            // Once per outage: the attempts in between say nothing new.
            if !is_down {
                tracing::warn!(error = crate::log::chain(&error), "change feed interrupted");
                is_down = true;
            }
            tokio::time::sleep(RECONNECT_WAIT).await;
        }
    }

    /// Delivers changes until the connection is lost.
    async fn follow(&self, is_down: &mut bool) -> Result<std::convert::Infallible, StoreError> {
        let (inbox_tx, mut inbox_rx) = mpsc::channel::<String>(INBOX_DEPTH);
        let overflow = Arc::new(AtomicBool::new(false));
        let overflowed = overflow.clone();
        let on_notice = Box::new(move |notification: tokio_postgres::Notification| {
            if inbox_tx.try_send(notification.payload().into()).is_err() {
                overflowed.store(true, Ordering::Relaxed);
            }
        });
        let client = self.connector.connect(on_notice).await?;
        // Held as long as the connection: see `Transaction::lock_out`.
        self.ask(&client, &format!("SELECT pg_advisory_lock_shared({SERVING_LOCK}); LISTEN {CHANNEL}")).await?;
        self.catch_up().await?;
        if std::mem::take(is_down) {
            tracing::info!("change feed is back");
        }
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            batch.clear();
            // Cancel-safe arms: a queue keeps what was not taken, and a sleep
            // begins anew.
            tokio::select! {
                taken = inbox_rx.recv_many(&mut batch, BATCH) => if taken == 0 { return Err(ended(Ended)) },
                () = tokio::time::sleep(PING_PERIOD) => self.ask(&client, "").await?,
            }
            if overflow.swap(false, Ordering::Relaxed) {
                tracing::warn!("change feed fell behind");
                self.catch_up().await?;
            }
            self.deliver(batch.iter().flat_map(|text| notice::read(text)).collect()).await?;
        }
    }

    async fn ask(&self, client: &Client, sql: &str) -> Result<(), StoreError> {
        let answer = tokio::time::timeout(self.connector.patience, client.batch_execute(sql)).await;
        answer.map_err(ended)?.map_err(ended)
    }

    /// Tells of the gap, and every session what its node's generation is.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let generations = self.queues.generations().await?;
        self.sink.gap();
        let desired = |(node_id, generation)| Change::Desired { node_id, generation };
        self.sink.committed(generations.into_iter().map(desired).collect());
        Ok(())
    }

    async fn deliver(&self, notices: Vec<Notice>) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        let mut ids: Vec<SandboxId> = Vec::new();
        for notice in &notices {
            if let Notice::Sandbox(id) = notice
                && seen.insert(id)
            {
                ids.push(id.clone());
            }
        }
        let mut present: HashMap<SandboxId, Sandbox> = HashMap::new();
        if !ids.is_empty() {
            present = self.queues.sandboxes_by_id(ids).await?.into_iter().map(|s| (s.id.clone(), s)).collect();
        }
        let changes: Vec<_> = notices.into_iter().filter_map(|notice| change(notice, &mut present)).collect();
        if !changes.is_empty() {
            self.sink.committed(changes);
        }
        Ok(())
    }
}

/// A sandbox that is no longer there has a notice of its end after this one;
/// one that was shown already is not shown again.
fn change(notice: Notice, present: &mut HashMap<SandboxId, Sandbox>) -> Option<Change> {
    Some(match notice {
        Notice::Sandbox(id) => Change::Sandbox(Box::new(present.remove(&id)?)),
        Notice::Gone(tenant, id) => Change::Gone { tenant, id },
        Notice::Removed(node) => Change::Removed(node),
        Notice::Renew(node) => Change::Renew(node),
        Notice::Desired(node_id, generation) => Change::Desired { node_id, generation },
    })
}
