//! The first reconciliation: adopt what runs, reap what nobody owns.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::SandboxId;

use super::ledger::{Change, Contents, DecodeRecordError, Ledger, LedgerError, Progress, Record, decode};
use super::plan::Existing;
use crate::app::StartError;
use crate::containerd;
use crate::facts;
use crate::host::clock;
use crate::host::fault;
use crate::sandbox::claim::claimed;
use crate::sandbox::expiry::LifeClock;
use crate::sandbox::failure::chain;
use crate::sandbox::layout::Layout;
use crate::sandbox::node_time::{NodeTime, Uptime};
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::{Manager, Node, teardown};
use crate::tasks::Tasks;

/// Orphans that are removed at once: each keeps containerd busy for a while.
const REAP_AT_ONCE: usize = 8;
/// First and longest wait for containerd.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Opens the ledger. One that cannot be read is moved aside and rebuilt from
/// the records in containerd's containers: that loses stopped sandboxes and
/// history, not a running desktop. The last value tells whether that is so.
///
/// # Errors
/// When no ledger can be opened at all.
pub fn open_ledger(layout: &Layout) -> Result<(Ledger, Contents, bool), LedgerError> {
    let dir = layout.ledger();
    match Ledger::open(&dir) {
        Ok((ledger, contents)) => Ok((ledger, contents, false)),
        Err(error) if is_broken(&error) => {
            let aside = dir.with_file_name(format!("ledger.broken-{}", unix_ms()));
            tracing::error!(error = %chain(&error), aside = %aside.display(), "ledger is broken: it is rebuilt from containerd");
            move_aside(&dir, &aside)?;
            let (ledger, contents) = Ledger::open(&dir)?;
            Ok((ledger, contents, true))
        }
        Err(error) => Err(error),
    }
}

/// Only damage counts: a full disk or a lock passes, and the record of a newer
/// daemon is read by it when it comes back.
pub(super) fn is_broken(error: &LedgerError) -> bool {
    match error {
        LedgerError::Record { source, .. } => !matches!(**source, DecodeRecordError::Newer { .. }),
        LedgerError::Store { source, .. } => {
            let damage = |e: &sled::Error| !matches!(e, sled::Error::Io(_));
            source.downcast_ref::<sled::Error>().is_some_and(damage)
        }
        LedgerError::Damaged { .. } => true,
        LedgerError::TooLarge { .. } | LedgerError::Closed => false,
    }
}

fn move_aside(dir: &Path, aside: &Path) -> Result<(), LedgerError> {
    std::fs::rename(dir, aside).map_err(|e| LedgerError::Store {
        operation: "move aside",
        path: dir.to_owned(),
        source: Arc::new(e),
    })
}

/// Node time as it goes on from what the ledger holds; durable before any
/// deadline is kept in it.
///
/// # Errors
/// When the kernel does not say for how long it runs, or the ledger does not
/// take it.
pub async fn resume_time(ledger: &Ledger, kept: Option<&Uptime>) -> Result<(Uptime, NodeTime), StartError> {
    let uptime = Uptime::resume(kept, &facts::boot_id()?, clock::monotonic_ms()?);
    let time = NodeTime::new(uptime.alive_ms);
    ledger.commit(vec![Change::Uptime(uptime.clone())]).await?;
    Ok((uptime, time))
}

/// Everything of this daemon that exists, and the records that containers
/// carry. Waits for containerd.
pub async fn survey(node: &Node) -> (Existing, Vec<Record>) {
    let mut retry = RETRY.0;
    loop {
        match list(node).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "containerd cannot be listed yet");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}

async fn list(node: &Node) -> Result<(Existing, Vec<Record>), containerd::Error> {
    node.client.ensure_namespace().await?;
    let containers = node.client.list_containers().await?;
    let tasks = node.client.list_tasks().await?;
    let records = containers.iter().filter_map(|c| decode(c.record_json.as_deref()?).ok());
    let records = records.map(|record| unless_claimed(node, record)).collect();
    let mut names = node.cgroups.list();
    for dir in [node.layout.sandboxes(), node.layout.logs()] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        names.extend(entries.filter_map(|e| e.file_name().into_string().ok()));
    }
    let existing = Existing { containers: containers.into_iter().map(|c| c.id).collect(), tasks, names };
    Ok((existing, records))
}

/// A container carries the record of the time it was made. A desktop that was
/// claimed since is nobody else's: its claim has kept a newer one.
fn unless_claimed(node: &Node, record: Record) -> Record {
    let newer = claimed(&node.layout.sandbox(&record.desired.id).claim())
        .filter(|kept| kept.desired.id == record.desired.id && kept.desired.generation > record.desired.generation);
    newer.unwrap_or(record)
}

/// The records to go on with: the ledger's, and those that only containers
/// carry, which are written to the ledger. A record leaves the ledger after
/// its containers are gone, so a container without one tells of a ledger that
/// was lost.
///
/// # Errors
/// When the ledger does not take them.
pub async fn recover(
    ledger: &Ledger,
    mut records: Vec<(Record, Progress)>,
    carried: Vec<Record>,
    time: NodeTime,
) -> Result<Vec<(Record, Progress)>, LedgerError> {
    let known = records.len();
    for record in carried.into_iter().map(|record| with_new_clock(record, time.now_ms())) {
        // Both containers of a sandbox carry it.
        if !records.iter().any(|(r, _)| r.desired.id == record.desired.id) {
            // What runs was made by its last restart.
            let restarts_done = record.desired.restart_count;
            records.push((record, Progress { restarts_done, ..Progress::default() }));
        }
    }
    let recovered = &records[known..];
    if !recovered.is_empty() {
        tracing::warn!(count = recovered.len(), "sandboxes that the ledger did not hold are recovered");
        ledger.commit(recovered.iter().map(|(r, _)| Change::Put(Box::new(r.clone()))).collect()).await?;
    }
    Ok(records)
}

/// Node time of a ledger that was lost begins anew, and with it the times of
/// what it is recovered from.
fn with_new_clock(mut record: Record, now_ms: u64) -> Record {
    if record.desired.clock.is_some() {
        Arc::make_mut(&mut record.desired).clock = Some(LifeClock::begin(now_ms));
    }
    record
}

/// Removes what nobody owns, in the background: adopted sandboxes do not wait
/// for it, and the ids cannot be used again before it is done.
pub fn reap(node: &Arc<Node>, manager: &Manager, tasks: &Tasks, orphans: BTreeSet<SandboxId>) {
    use futures::StreamExt;
    if orphans.is_empty() {
        return;
    }
    manager.begin_reap(orphans.iter().cloned());
    let (node, manager) = (node.clone(), manager.clone());
    tasks.spawn("reap", async move {
        let reaped = futures::stream::iter(orphans).for_each_concurrent(REAP_AT_ONCE, async |id| {
            reap_one(&node, &id).await;
            manager.end_reap(&id);
        });
        reaped.await;
    });
}

async fn reap_one(node: &Node, id: &SandboxId) {
    let mut retry = RETRY.0;
    loop {
        let stopped = teardown::stop(node, id, Duration::ZERO).await;
        fault::pass("reap.stopped");
        let result = match stopped {
            Ok(()) => teardown::remove_files(node, id).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                fault::pass("reap.removed");
                tracing::info!(sandbox = %id, "orphan reaped");
                return;
            }
            Err(error) => {
                tracing::warn!(sandbox = %id, error = %chain(&error), "orphan cannot be reaped yet");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}
