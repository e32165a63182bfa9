//! After this database went back in time: what nodes hold and it does not know.
//!
//! ```text
//!   restore ─▶ every node unsettled ─▶ settle: unknown ones become orphans
//!                                         │ adopt            │ remove
//!                                         ▼                  ▼
//!                                     a sandbox        deleted on its node
//! ```
//!
//! An orphan is a row like that of a sandbox, wanted exactly as its node has
//! it, so that the node is told to keep it and its room is taken. Nobody finds
//! it by name or in a list of sandboxes.

use roost_proto::id::{NodeId, SandboxId, SandboxName, TenantId};
use roost_proto::model::{Observed, Orphan, Phase, RunState, Sandbox};

use super::row::{all, count, first, first_count, int, maybe_count, parsed, to_json};
use super::sandbox::{self, COLUMNS};
use super::{Row, Transaction, node, timing, values};
use crate::store::{AdoptError, Change, Held, SandboxKey, Settled, StoreError};

const TABLE: &str = "sandboxes";

/// Notes that this database went back in time; how many nodes must be settled.
pub(in crate::store) fn mark(tx: &dyn Transaction, now_unix_ms: u64) -> Result<u64, StoreError> {
    tx.execute("UPDATE nodes SET unsettled_at_unix_ms = $1", values![int(now_unix_ms)])
}

/// Compares what a node holds with what is wanted of it. Its desired generation
/// rises above `node_generation`, the one that the node has made durable.
pub(super) fn settle(
    tx: &dyn Transaction,
    node: &NodeId,
    held: &[Held],
    node_generation: u64,
    now_unix_ms: u64,
) -> Result<Settled, StoreError> {
    node::raise_generation(tx, node, node_generation)?;
    let generation = node::bump(tx, node)?;
    tx.execute("UPDATE nodes SET unsettled_at_unix_ms = NULL WHERE id = $1", values![node.as_str()])?;
    let sql = "SELECT tenant_id FROM nodes WHERE id = $1";
    let tenant = first(tx, sql, values![node.as_str()], |row| parsed::<TenantId>(row, "nodes", "tenant_id"))?;
    let Some(tenant) = tenant else { return Ok(Settled::default()) };
    let mut settled = Settled::default();
    for held in held {
        match sandbox::find_any(tx, &held.id)? {
            Some(known) if known.node_id == *node => {
                settled.changed += u64::from(catch_up(tx, &known, held, generation)?);
            }
            // A node has no say in what belongs to another.
            Some(_) => settled.foreign.push(held.id.clone()),
            None => {
                insert(tx, &tenant, node, held, generation, now_unix_ms)?;
                settled.orphans += 1;
            }
        }
    }
    Ok(settled)
}

/// Makes sure that a wish which differs from the node's has a generation that
/// the node has never seen; restarts that were carried out stay counted.
fn catch_up(tx: &dyn Transaction, known: &Sandbox, held: &Held, node_generation: u64) -> Result<bool, StoreError> {
    let wish = (known.run_state, known.restart_count, &known.resources);
    let times = (known.paused, known.lifetime, known.ttl_count);
    let is_same = wish == (held.run_state, held.restart_count, &held.resources)
        && times == (held.paused, held.lifetime, held.ttl_count);
    if known.generation == held.generation && is_same {
        return Ok(false);
    }
    let generation = known.generation.max(held.generation) + 1;
    let restart_count = known.restart_count.max(held.restart_count);
    let sql = "UPDATE sandboxes SET generation = $1, restart_count = $2, node_generation = $3 WHERE id = $4";
    let values = values![int(generation), int(restart_count), int(node_generation), known.id.as_str()];
    tx.execute(sql, values).map(|_| true)
}

fn insert(
    tx: &dyn Transaction,
    tenant: &TenantId,
    node: &NodeId,
    held: &Held,
    node_generation: u64,
    now_unix_ms: u64,
) -> Result<(), StoreError> {
    let orphan = Sandbox {
        id: held.id.clone(),
        name: None,
        tenant: tenant.clone(),
        node_id: node.clone(),
        generation: held.generation,
        run_state: held.run_state,
        restart_count: held.restart_count,
        spec: held.spec.clone(),
        resources: held.resources.clone(),
        paused: held.paused,
        lifetime: held.lifetime,
        ttl_count: held.ttl_count,
        // The heartbeat that follows brings the rest, with its revision.
        observed: Observed { revision: 0, usage: None, ..held.observed.clone() },
        created_at_unix_ms: held.created_at_unix_ms,
        observed_at_unix_ms: None,
    };
    sandbox::insert(tx, &orphan, node_generation)?;
    let sql = "UPDATE sandboxes SET orphaned_at_unix_ms = $1, orphan_name = $2, resources = $3 WHERE id = $4";
    let resources = held.resources.as_ref().map(|resources| to_json(TABLE, resources)).transpose()?;
    let name = held.name.as_ref().map(SandboxName::as_str);
    tx.execute(sql, values![int(now_unix_ms), name, resources, held.id.as_str()])?;
    timing::keep(tx, &orphan)?;
    // It is there already: its room is taken, whether there is enough or not.
    let sql = "UPDATE nodes SET cpu_requested_millis = cpu_requested_millis + $1, \
               memory_requested_bytes = memory_requested_bytes + $2, sandboxes = sandboxes + 1, orphans = orphans + 1 \
               WHERE id = $3";
    let asked = orphan.resources();
    tx.execute(sql, values![asked.cpu_request_millis, int(asked.memory_request_bytes), node.as_str()]).map(drop)
}

/// Whether the row is that of an orphan; needs the column.
pub(super) fn is_orphan(row: &dyn Row) -> Result<bool, StoreError> {
    Ok(maybe_count(row, "orphaned_at_unix_ms")?.is_some())
}

fn read(row: &dyn Row) -> Result<Orphan, StoreError> {
    let mut sandbox = sandbox::read(row)?;
    sandbox.name = super::row::maybe_parsed(row, TABLE, "orphan_name")?;
    Ok(Orphan { sandbox, found_at_unix_ms: count(row, "orphaned_at_unix_ms")? })
}

/// The orphans of a tenant by their ids.
pub(super) fn list(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<Orphan>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, orphan_name, orphaned_at_unix_ms FROM sandboxes \
         WHERE tenant_id = $1 AND orphaned_at_unix_ms IS NOT NULL ORDER BY id"
    );
    all(tx, &sql, values![tenant.as_str()], read)
}

fn find(tx: &dyn Transaction, tenant: &TenantId, id: &SandboxId) -> Result<Option<Orphan>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, orphan_name, orphaned_at_unix_ms FROM sandboxes \
         WHERE tenant_id = $1 AND id = $2 AND orphaned_at_unix_ms IS NOT NULL"
    );
    first(tx, &sql, values![tenant.as_str(), id.as_str()], read)
}

/// Makes an orphan a sandbox like any other, under `name` or else the one that
/// it had.
pub(super) fn adopt(
    tx: &dyn Transaction,
    tenant: &TenantId,
    id: &SandboxId,
    name: Option<&SandboxName>,
    changes: &mut Vec<Change>,
) -> Result<Sandbox, AdoptError> {
    let orphan = find(tx, tenant, id)?.ok_or(AdoptError::NotFound)?;
    let name = name.cloned().or(orphan.sandbox.name);
    if let Some(name) = &name
        && sandbox::find(tx, tenant, &SandboxKey::Name(name.clone()))?.is_some()
    {
        return Err(AdoptError::NameTaken(name.clone()));
    }
    release(tx, id, name.as_ref(), &orphan.sandbox.node_id)?;
    let sandbox = Sandbox { name, ..orphan.sandbox };
    changes.push(Change::Sandbox(Box::new(sandbox.clone())));
    Ok(sandbox)
}

/// Has the node of an orphan delete it; until it is gone it is a sandbox
/// without a name.
pub(super) fn remove(
    tx: &dyn Transaction,
    tenant: &TenantId,
    id: &SandboxId,
    changes: &mut Vec<Change>,
) -> Result<Sandbox, AdoptError> {
    let mut sandbox = find(tx, tenant, id)?.ok_or(AdoptError::NotFound)?.sandbox;
    release(tx, id, None, &sandbox.node_id)?;
    let node_generation = node::bump(tx, &sandbox.node_id)?;
    sandbox.name = None;
    sandbox.run_state = RunState::Deleted;
    sandbox.generation += 1;
    sandbox.observed.phase = Phase::Deleting;
    sandbox.observed.stage = None;
    sandbox::keep_wish(tx, &sandbox, node_generation)?;
    changes.push(Change::Desired { node_id: sandbox.node_id.clone(), generation: node_generation });
    changes.push(Change::Sandbox(Box::new(sandbox.clone())));
    Ok(sandbox)
}

/// From now on the row is that of a sandbox.
fn release(tx: &dyn Transaction, id: &SandboxId, name: Option<&SandboxName>, node: &NodeId) -> Result<(), StoreError> {
    // The condition lets one of two decisions win, under every isolation level.
    let sql = "UPDATE sandboxes SET name = $1, orphan_name = NULL, orphaned_at_unix_ms = NULL \
               WHERE id = $2 AND orphaned_at_unix_ms IS NOT NULL";
    if tx.execute(sql, values![name.map(SandboxName::as_str), id.as_str()])? == 1 {
        tx.execute("UPDATE nodes SET orphans = orphans - 1 WHERE id = $1", values![node.as_str()])?;
    }
    Ok(())
}

/// How many nodes are still to be settled.
pub(super) fn unsettled(tx: &dyn Transaction) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) AS nodes FROM nodes WHERE unsettled_at_unix_ms IS NOT NULL";
    Ok(first_count(tx, sql, &[], "nodes")?.unwrap_or(0))
}
