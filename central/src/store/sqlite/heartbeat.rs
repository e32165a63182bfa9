//! One heartbeat, one transaction.

use std::collections::HashSet;

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{Observed, Phase, RunState};
use rusqlite::{Connection, Transaction, params};

use super::row::{all, count, execute, first, int, parsed, to_json, uint};
use super::{node, sandbox};
use crate::store::{Change, HeartbeatBatch, StoreError};

pub(super) fn apply(tx: &Transaction<'_>, batch: &HeartbeatBatch, changes: &mut Vec<Change>) -> Result<(), StoreError> {
    if batch.reset_revisions {
        let sql = "UPDATE nodes SET instance_id = $1 WHERE id = $2";
        execute(tx, sql, params![batch.instance_id, batch.node_id.as_str()])?;
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
    Ok(())
}

/// Takes one observation, unless it is older than what is known.
fn observe(
    tx: &Transaction<'_>,
    batch: &HeartbeatBatch,
    id: &SandboxId,
    observed: &Observed,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let sql = "SELECT run_state, observed_revision FROM sandboxes WHERE id = $1 AND node_id = $2";
    let held = first(tx, sql, params![id.as_str(), batch.node_id.as_str()], |row| {
        Ok((sandbox::read_run_state(row)?, uint(row.get("observed_revision")?)))
    })?;
    // Local sandboxes and those that are gone here are the node's own affair.
    let Some((run_state, revision)) = held else { return Ok(()) };
    if observed.revision <= revision && !batch.reset_revisions {
        return Ok(());
    }
    let phase = if run_state == RunState::Deleted { Phase::Deleting } else { observed.phase };
    let sql = "UPDATE sandboxes SET observed = $1, observed_revision = $2, observed_at_unix_ms = $3, phase = $4 \
               WHERE id = $5";
    let text = to_json("sandboxes", observed)?;
    let values = params![text, int(observed.revision), int(batch.now_unix_ms), phase.to_string(), id.as_str()];
    execute(tx, sql, values)?;
    let Some(now) = sandbox::find_any(tx, id)? else { return Ok(()) };
    if run_state == RunState::Deleted && observed.phase == Phase::Gone {
        return sandbox::remove(tx, &now, changes);
    }
    changes.push(Change::Sandbox(Box::new(now)));
    Ok(())
}

/// Removes what was to be deleted and is not on the node any more.
fn forget_missing(
    tx: &Transaction<'_>,
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
            sandbox::remove(tx, &gone, changes)?;
        }
    }
    Ok(())
}

fn deleted_on(conn: &Connection, node: &NodeId) -> Result<Vec<(SandboxId, u64)>, StoreError> {
    let sql = "SELECT id, node_generation FROM sandboxes WHERE node_id = $1 AND run_state = 'deleted'";
    all(conn, sql, params![node.as_str()], |row| Ok((parsed(row, "sandboxes", "id")?, count(row, "node_generation")?)))
}
