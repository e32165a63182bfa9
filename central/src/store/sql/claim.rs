//! Claims: kept before a node is asked, and a sandbox once it has answered.
//!
//! ```text
//!   begin ─▶ asked ─┬─ aim: another node, or a sandbox of its own ─▶ asked
//!                   ├─ finish ─▶ kept, with its row in sandboxes
//!                   └─ drop: it got nothing
//! ```
//!
//! Only the node that a claim aims at can finish it. What another one gave, as
//! two requests with one key may go on at the same time, becomes a row that is
//! wanted deleted, so that its node removes it.

use roost_proto::id::{ClaimId, TenantId};
use roost_proto::model::{Claimed, Observed, Phase, RunState, Sandbox};

use super::row::{all, exists, first, from_json, int, maybe_parsed, parsed, text, to_json};
use super::{Row, Transaction, node, sandbox, timing, values};
use crate::store::{
    Aim, AimAt, BeginClaimError, Change, ClaimRecord, FinishClaim, FinishClaimError, NewClaim, SandboxKey, StoreError,
};

const TABLE: &str = "claims";
const COLUMNS: &str =
    "id, tenant_id, idempotency_key, body_sha256, state, node_id, sandbox_id, cold_reason, answer, name";

/// How a claim was finished; both are committed.
pub(super) enum Finished {
    /// It has its sandbox.
    Claimed(Box<Claimed>),
    /// It cannot have it, and the node is to delete it.
    Refused(FinishClaimError),
}

impl Finished {
    pub(super) fn into_result(self) -> Result<Claimed, FinishClaimError> {
        match self {
            Self::Claimed(claimed) => Ok(*claimed),
            Self::Refused(error) => Err(error),
        }
    }
}

fn read(row: &dyn Row) -> Result<ClaimRecord, StoreError> {
    Ok(ClaimRecord {
        id: parsed(row, TABLE, "id")?,
        tenant: parsed(row, TABLE, "tenant_id")?,
        key: row.text("idempotency_key")?.map(String::from),
        body_sha256: text(row, "body_sha256")?,
        is_kept: text(row, "state")? == "kept",
        node_id: maybe_parsed(row, TABLE, "node_id")?,
        sandbox_id: maybe_parsed(row, TABLE, "sandbox_id")?,
        cold_reason: row.text("cold_reason")?.map(String::from),
        answer: row.text("answer")?.map(|text| from_json(TABLE, text)).transpose()?.map(Box::new),
    })
}

pub(super) fn find(tx: &dyn Transaction, tenant: &TenantId, id: &ClaimId) -> Result<Option<ClaimRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM claims WHERE tenant_id = $1 AND id = $2");
    first(tx, &sql, values![tenant.as_str(), id.as_str()], read)
}

fn by_key(tx: &dyn Transaction, tenant: &TenantId, key: &str) -> Result<Option<ClaimRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM claims WHERE tenant_id = $1 AND idempotency_key = $2");
    first(tx, &sql, values![tenant.as_str(), key], read)
}

pub(super) fn begin(tx: &dyn Transaction, tenant: &TenantId, new: &NewClaim) -> Result<ClaimRecord, BeginClaimError> {
    if let Some(key) = &new.key
        && let Some(known) = by_key(tx, tenant, key)?
    {
        return same(known, new);
    }
    if let Some(name) = &new.name {
        let sql = "SELECT id FROM claims WHERE tenant_id = $1 AND name = $2 AND state = 'asked'";
        if sandbox::find(tx, tenant, &SandboxKey::Name(name.clone()))?.is_some()
            || exists(tx, sql, values![tenant.as_str(), name.as_str()])?
        {
            return Err(BeginClaimError::NameTaken(name.clone()));
        }
    }
    let sql = "INSERT INTO claims (id, tenant_id, idempotency_key, body_sha256, pool, name, state, node_id, \
               created_at_unix_ms) VALUES ($1, $2, $3, $4, $5, $6, 'asked', $7, $8) \
               ON CONFLICT (tenant_id, idempotency_key) DO NOTHING";
    let values = values![
        new.id.as_str(),
        tenant.as_str(),
        new.key.as_ref(),
        &new.body_sha256,
        new.pool.as_str(),
        new.name.as_ref().map(|name| name.as_str()),
        new.node_id.as_ref().map(|node| node.as_str()),
        int(new.now_unix_ms),
    ];
    // Another request with the same key may have come first.
    let kept = match (tx.execute(sql, values)?, &new.key) {
        (0, Some(key)) => by_key(tx, tenant, key)?,
        _ => find(tx, tenant, &new.id)?,
    };
    same(kept.ok_or(StoreError::Busy)?, new)
}

fn same(known: ClaimRecord, new: &NewClaim) -> Result<ClaimRecord, BeginClaimError> {
    if known.body_sha256 == new.body_sha256 { Ok(known) } else { Err(BeginClaimError::KeyReused) }
}

/// The condition lets one of two requests win, under every isolation level.
pub(super) fn aim(tx: &dyn Transaction, tenant: &TenantId, aim: &Aim) -> Result<bool, StoreError> {
    let from = aim.from.as_ref().map_or("", |node| node.as_str());
    let sql = "UPDATE claims SET node_id = $1, sandbox_id = $2, cold_reason = $3 WHERE tenant_id = $4 AND id = $5 \
               AND state = 'asked' AND sandbox_id IS NULL AND COALESCE(node_id, '') = $6";
    let (node, sandbox, reason) = match &aim.to {
        AimAt::Node(node) => (Some(node.as_str()), None, None),
        AimAt::Made { sandbox, reason } => (None, Some(sandbox.as_str()), Some(reason.as_str())),
    };
    Ok(tx.execute(sql, values![node, sandbox, reason, tenant.as_str(), aim.id.as_str(), from])? == 1)
}

pub(super) fn drop_asked(tx: &dyn Transaction, tenant: &TenantId, id: &ClaimId) -> Result<(), StoreError> {
    let sql = "DELETE FROM claims WHERE tenant_id = $1 AND id = $2 AND state = 'asked'";
    tx.execute(sql, values![tenant.as_str(), id.as_str()]).map(drop)
}

pub(super) fn stale(tx: &dyn Transaction, before_unix_ms: u64, limit: u32) -> Result<Vec<ClaimRecord>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM claims WHERE state = 'asked' AND created_at_unix_ms < $1 \
         ORDER BY created_at_unix_ms, id LIMIT $2"
    );
    all(tx, &sql, values![int(before_unix_ms), limit], read)
}

pub(super) fn finish(
    tx: &dyn Transaction,
    tenant: &TenantId,
    finish: &FinishClaim,
    changes: &mut Vec<Change>,
) -> Result<Finished, FinishClaimError> {
    // Requests that finish the same claim take turns from here on.
    let sql = "UPDATE claims SET state = state WHERE tenant_id = $1 AND id = $2";
    tx.execute(sql, values![tenant.as_str(), finish.id.as_str()])?;
    let record = find(tx, tenant, &finish.id)?;
    let sandbox = match sandbox::find_any(tx, &finish.held.id)? {
        Some(known) if known.run_state == RunState::Deleted => {
            return Ok(Finished::Refused(FinishClaimError::Deleting));
        }
        // Made for this claim, or this is a repetition.
        Some(known) => follow(tx, known, finish, changes)?,
        None => {
            let is_ours = record.as_ref().is_some_and(|r| r.node_id.as_ref() == Some(&finish.node_id) && !r.is_kept);
            let name = finish.held.name.as_ref().filter(|_| is_ours);
            let is_taken = match name {
                Some(name) => sandbox::find(tx, tenant, &SandboxKey::Name(name.clone()))?.is_some(),
                None => false,
            };
            let run_state = if is_ours && !is_taken { RunState::Running } else { RunState::Deleted };
            let sandbox = insert(tx, tenant, finish, run_state, changes)?;
            match name {
                _ if !is_ours => return Ok(Finished::Refused(FinishClaimError::Superseded)),
                Some(name) if is_taken => {
                    drop_asked(tx, tenant, &finish.id)?;
                    return Ok(Finished::Refused(FinishClaimError::NameTaken(name.clone())));
                }
                _ => sandbox,
            }
        }
    };
    let Some(record) = record else { return Ok(Finished::Refused(FinishClaimError::Superseded)) };
    let claimed = Claimed {
        claim_id: finish.id.clone(),
        sandbox,
        hook_exit_code: finish.hook_exit_code,
        steps: finish.steps.clone().unwrap_or_default(),
        cold: record.cold_reason.is_some(),
        cold_reason: record.cold_reason,
    };
    let answer = finish.steps.as_ref().map(|_| to_json(TABLE, &claimed)).transpose()?;
    let sql = "UPDATE claims SET state = 'kept', node_id = $1, sandbox_id = $2, answer = $3 WHERE id = $4";
    let values = values![finish.node_id.as_str(), claimed.sandbox.id.as_str(), answer, finish.id.as_str()];
    tx.execute(sql, values)?;
    Ok(Finished::Claimed(Box::new(claimed)))
}

/// A row for what the node holds, with its room.
fn insert(
    tx: &dyn Transaction,
    tenant: &TenantId,
    finish: &FinishClaim,
    run_state: RunState,
    changes: &mut Vec<Change>,
) -> Result<Sandbox, StoreError> {
    let (held, is_deleted) = (&finish.held, run_state == RunState::Deleted);
    let mut observed = Observed { usage: None, ..held.observed.clone() };
    if is_deleted {
        observed.phase = Phase::Deleting;
    }
    let sandbox = Sandbox {
        id: held.id.clone(),
        name: held.name.clone().filter(|_| !is_deleted),
        tenant: tenant.clone(),
        node_id: finish.node_id.clone(),
        // A wish that the node does not have yet is a newer one.
        generation: held.generation + u64::from(is_deleted),
        run_state,
        restart_count: held.restart_count,
        spec: held.spec.clone(),
        resources: held.resources.clone(),
        paused: held.paused,
        lifetime: held.lifetime,
        ttl_count: held.ttl_count,
        observed,
        created_at_unix_ms: finish.now_unix_ms,
        observed_at_unix_ms: Some(finish.now_unix_ms),
    };
    // The next desired state lists it, which confirms the claim to the node.
    let node_generation = node::take(tx, &finish.node_id, sandbox.resources())?;
    sandbox::insert(tx, &sandbox, node_generation)?;
    let resources = sandbox.resources.as_ref().map(|resources| to_json("sandboxes", resources)).transpose()?;
    let sql = "UPDATE sandboxes SET resources = $1, observed_at_unix_ms = $2 WHERE id = $3";
    tx.execute(sql, values![resources, int(finish.now_unix_ms), sandbox.id.as_str()])?;
    timing::keep(tx, &sandbox)?;
    tell(&sandbox, node_generation, changes);
    Ok(sandbox)
}

/// Takes the generation and the limits that the claim gave to a sandbox that
/// has a row.
fn follow(
    tx: &dyn Transaction,
    mut sandbox: Sandbox,
    finish: &FinishClaim,
    changes: &mut Vec<Change>,
) -> Result<Sandbox, StoreError> {
    let held = &finish.held;
    if sandbox.observed.revision <= held.observed.revision {
        sandbox.observed = Observed { usage: None, ..held.observed.clone() };
    }
    if sandbox.generation >= held.generation {
        return Ok(sandbox);
    }
    let node_generation = node::take(tx, &finish.node_id, held.resources.as_ref().unwrap_or(&held.spec.resources))?;
    node::release(tx, &finish.node_id, sandbox.resources())?;
    sandbox.generation = held.generation;
    sandbox.resources = held.resources.clone();
    (sandbox.paused, sandbox.lifetime, sandbox.ttl_count) = (held.paused, held.lifetime, held.ttl_count);
    let resources = sandbox.resources.as_ref().map(|resources| to_json("sandboxes", resources)).transpose()?;
    let sql = "UPDATE sandboxes SET generation = $1, node_generation = $2, resources = $3, cpu_request_millis = $4, \
               memory_request_bytes = $5 WHERE id = $6";
    let values = values![
        int(sandbox.generation),
        int(node_generation),
        resources,
        sandbox.resources().cpu_request_millis,
        int(sandbox.resources().memory_request_bytes),
        sandbox.id.as_str(),
    ];
    tx.execute(sql, values)?;
    timing::keep(tx, &sandbox)?;
    tell(&sandbox, node_generation, changes);
    Ok(sandbox)
}

fn tell(sandbox: &Sandbox, generation: u64, changes: &mut Vec<Change>) {
    changes.push(Change::Desired { node_id: sandbox.node_id.clone(), generation });
    changes.push(Change::Sandbox(Box::new(sandbox.clone())));
}
