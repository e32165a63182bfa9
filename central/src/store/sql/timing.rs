//! Time: pauses and lifetimes of sandboxes, and what is gone because its time
//! was over.

use roost_proto::id::TenantId;
use roost_proto::model::{ExpiryReason, Phase, RunState, Sandbox};

use super::row::{count, first, int, text, to_json};
use super::{Transaction, node, sandbox, values};
use crate::store::{Change, Ending, SandboxKey, StoreError};

/// Keeps whether a sandbox stands still, and how long it lives.
pub(super) fn keep(tx: &dyn Transaction, sandbox: &Sandbox) -> Result<(), StoreError> {
    let lifetime = sandbox.lifetime.as_ref().map(|lifetime| to_json("sandboxes", lifetime)).transpose()?;
    let sql = "UPDATE sandboxes SET paused = $1, lifetime = $2, ttl_count = $3 WHERE id = $4";
    let values = values![i64::from(sandbox.paused), lifetime, int(sandbox.ttl_count), sandbox.id.as_str()];
    tx.execute(sql, values).map(drop)
}

/// Whether a node has deleted a sandbox because its time was over, and waits
/// for central's word.
pub(super) fn is_over(sandbox: &Sandbox) -> bool {
    let observed = &sandbox.observed;
    let is_expired = observed.reason.as_deref().is_some_and(ExpiryReason::is_named);
    observed.phase == Phase::Deleting && is_expired && sandbox.run_state != RunState::Deleted
}

/// Takes the node's word that the time of a sandbox is over: it is not wanted
/// any more.
pub(super) fn give_up(
    tx: &dyn Transaction,
    mut sandbox: Sandbox,
    changes: &mut Vec<Change>,
) -> Result<Sandbox, StoreError> {
    let node_generation = node::bump(tx, &sandbox.node_id)?;
    sandbox.run_state = RunState::Deleted;
    sandbox.generation += 1;
    sandbox::keep_wish(tx, &sandbox, node_generation)?;
    changes.push(Change::Desired { node_id: sandbox.node_id.clone(), generation: node_generation });
    Ok(sandbox)
}

/// Keeps why a sandbox is gone, if its time was over.
pub(super) fn keep_ending(tx: &dyn Transaction, sandbox: &Sandbox, now_unix_ms: u64) -> Result<(), StoreError> {
    let observed = &sandbox.observed;
    let Some(reason) = observed.reason.as_deref().filter(|reason| ExpiryReason::is_named(reason)) else {
        return Ok(());
    };
    let sql = "INSERT INTO endings VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
    let values = values![
        sandbox.id.as_str(),
        sandbox.tenant.as_str(),
        sandbox.name.as_ref().map(|name| name.as_str()),
        reason,
        observed.message.as_deref().unwrap_or_default(),
        int(now_unix_ms),
    ];
    tx.execute(sql, values).map(drop)
}

/// Why a sandbox is gone; of several of one name the last.
pub(super) fn ending(tx: &dyn Transaction, tenant: &TenantId, key: &SandboxKey) -> Result<Option<Ending>, StoreError> {
    let (column, name) = match key {
        SandboxKey::Id(id) => ("id", id.as_str()),
        SandboxKey::Name(name) => ("name", name.as_str()),
    };
    let sql = format!(
        "SELECT reason, message, ended_at_unix_ms FROM endings WHERE tenant_id = $1 AND {column} = $2 \
         ORDER BY ended_at_unix_ms DESC LIMIT 1"
    );
    first(tx, &sql, values![tenant.as_str(), name], |row| {
        Ok(Ending {
            reason: text(row, "reason")?,
            message: text(row, "message")?,
            ended_at_unix_ms: count(row, "ended_at_unix_ms")?,
        })
    })
}

/// Drops what was kept before a time.
pub(super) fn expire(tx: &dyn Transaction, before_unix_ms: u64) -> Result<u64, StoreError> {
    tx.execute("DELETE FROM endings WHERE ended_at_unix_ms < $1", values![int(before_unix_ms)])
}
