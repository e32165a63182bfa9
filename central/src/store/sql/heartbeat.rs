//! One heartbeat, one transaction.

use std::collections::HashSet;

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{Observed, Phase, RunState};

use super::row::{all, count, exists, first, int, parsed, to_json};
use super::{Row, Transaction, node, orphan, sandbox, timing, values};
use crate::store::{Change, Fence, HeartbeatBatch, StoreError};

pub(super) fn apply(
    tx: &dyn Transaction,
    batch: &HeartbeatBatch,
    changes: &mut Vec<Change>,
) -> Result<bool, StoreError> {
    if is_fenced(tx, batch)? {
        return Ok(false);
    }
    // Only a complete list makes the new process the known one: a list that
    // breaks off in the middle begins anew, and its revisions with it.
    if batch.reset_revisions && batch.listed.is_some() {
        let sql = "UPDATE nodes SET instance_id = $1 WHERE id = $2";
        tx.execute(sql, values![&batch.instance_id, batch.node_id.as_str()])?;
        // Also of what the new process does not list: it may have lost it, and
        // counts from the begin when it is told of it again.
        let sql = "UPDATE sandboxes SET observed_revision = 0 WHERE node_id = $1";
        tx.execute(sql, values![batch.node_id.as_str()])?;
    }
    if let Some(status) = &batch.status {
        node::set_status(tx, &batch.node_id, status)?;
    }
    for (id, observed) in &batch.observed {
        observe(tx, batch, id, observed, changes)?;
    }
    if let Some(listed) = &batch.listed {
        forget_missing(tx, batch, listed, changes)?;
    }
    Ok(true)
}

/// Whether another session speaks for the node.
fn is_fenced(tx: &dyn Transaction, batch: &HeartbeatBatch) -> Result<bool, StoreError> {
    let Fence { closed, replica } = &batch.fence;
    if closed.is_cancelled() {
        return Ok(true);
    }
    let Some(replica) = replica else { return Ok(false) };
    let sql = "SELECT 1 FROM nodes WHERE id = $1 AND held_by = $2";
    Ok(!exists(tx, sql, values![batch.node_id.as_str(), replica])?)
}

/// Takes one observation, unless it is older than what is known. One statement:
/// a full heartbeat brings hundreds. Local sandboxes and those that are gone
/// here are the node's own affair.
fn observe(
    tx: &dyn Transaction,
    batch: &HeartbeatBatch,
    id: &SandboxId,
    observed: &Observed,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE sandboxes SET observed = $1, observed_revision = $2, observed_at_unix_ms = $3, \
         phase = CASE WHEN run_state = 'deleted' THEN 'Deleting' ELSE $4 END \
         WHERE id = $5 AND node_id = $6 AND ($7 = 1 OR observed_revision < $2) \
         RETURNING {}, orphaned_at_unix_ms",
        sandbox::COLUMNS
    );
    let values = values![
        to_json("sandboxes", observed)?,
        int(observed.revision),
        int(batch.now_unix_ms),
        observed.phase.to_string(),
        id.as_str(),
        batch.node_id.as_str(),
        i64::from(batch.reset_revisions),
    ];
    let read = |row: &dyn Row| Ok((sandbox::read(row)?, orphan::is_orphan(row)?));
    let Some((now, is_orphan)) = first(tx, &sql, values, read)? else { return Ok(()) };
    if is_orphan {
        return Ok(());
    }
    if now.run_state == RunState::Deleted && observed.phase == Phase::Gone {
        timing::keep_ending(tx, &now, batch.now_unix_ms)?;
        return sandbox::remove(tx, &now, changes);
    }
    let now = if timing::is_over(&now) { timing::give_up(tx, now, changes)? } else { now };
    changes.push(Change::Sandbox(Box::new(now)));
    Ok(())
}

/// Removes what was to be deleted and is not on the node any more.
fn forget_missing(
    tx: &dyn Transaction,
    batch: &HeartbeatBatch,
    listed: &HashSet<SandboxId>,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    for (id, node_generation) in deleted_on(tx, &batch.node_id)? {
        // Before the node knows of the deletion, missing may mean "not yet".
        if node_generation > batch.acked_generation || listed.contains(&id) {
            continue;
        }
        if let Some(gone) = sandbox::find_any(tx, &id)? {
            timing::keep_ending(tx, &gone, batch.now_unix_ms)?;
            sandbox::remove(tx, &gone, changes)?;
        }
    }
    Ok(())
}

fn deleted_on(tx: &dyn Transaction, node: &NodeId) -> Result<Vec<(SandboxId, u64)>, StoreError> {
    let sql = "SELECT id, node_generation FROM sandboxes WHERE node_id = $1 AND run_state = 'deleted'";
    all(tx, sql, values![node.as_str()], |row| Ok((parsed(row, "sandboxes", "id")?, count(row, "node_generation")?)))
}
