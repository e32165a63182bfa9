//! Requests, limits and times that change while a sandbox lives, with the room
//! that it takes on its node.

use roost_proto::id::{NodeId, TenantId};
use roost_proto::model::{Resources, RunState, Sandbox, Validate};

use super::row::{count, first, first_count, int, text, to_json, uint};
use super::sandbox::{self, Replay, keep_answer, replay};
use super::{Transaction, timing, values};
use crate::place::{PlaceError, Refusal};
use crate::store::{Change, Created, NewResources, SandboxKey, StoreError, UpdateSandboxError};

const TABLE: &str = "sandboxes";

pub(super) fn set(
    tx: &dyn Transaction,
    tenant: &TenantId,
    key: &SandboxKey,
    new: &NewResources,
    changes: &mut Vec<Change>,
) -> Result<Created, UpdateSandboxError> {
    if let Some((key, body)) = &new.idempotency {
        match replay(tx, tenant, key, body)? {
            Replay::New => {}
            Replay::Answer(sandbox) => return Ok(Created { sandbox: *sandbox, replayed: true }),
            Replay::Reused => return Err(UpdateSandboxError::KeyReused),
        }
    }
    let mut sandbox = sandbox::find(tx, tenant, key)?.ok_or(UpdateSandboxError::NotFound)?;
    if sandbox.run_state == RunState::Deleted {
        return Err(UpdateSandboxError::Deleting);
    }
    let held = sandbox.generation;
    if new.if_generation.is_some_and(|wanted| wanted != held) {
        return Err(UpdateSandboxError::Generation { held });
    }
    new.change.validate().map_err(UpdateSandboxError::Invalid)?;
    let before = sandbox.clone();
    let resources = match &new.change.resources {
        Some(change) => change.apply(sandbox.resources()).map_err(UpdateSandboxError::Invalid)?,
        None => sandbox.resources().clone(),
    };
    if let Some(change) = &new.change.lifetime {
        let lifetime = change.apply(sandbox.lifetime()).map_err(UpdateSandboxError::Invalid)?;
        if lifetime != *sandbox.lifetime() {
            sandbox.lifetime = Some(lifetime);
        }
        sandbox.ttl_count += u64::from(change.ttl_ms.is_some());
    }
    if resources != *sandbox.resources() || sandbox != before {
        change(tx, &mut sandbox, &resources, changes)?;
    }
    if let Some(idempotency) = &new.idempotency {
        keep_answer(tx, &sandbox, idempotency, new.now_unix_ms)?;
    }
    Ok(Created { sandbox, replayed: false })
}

fn change(
    tx: &dyn Transaction,
    sandbox: &mut Sandbox,
    resources: &Resources,
    changes: &mut Vec<Change>,
) -> Result<(), UpdateSandboxError> {
    let node_generation = resize(tx, &sandbox.node_id, sandbox.resources(), resources)?;
    sandbox.generation += 1;
    if resources != sandbox.resources() {
        sandbox.resources = Some(resources.clone());
    }
    let kept = sandbox.resources.as_ref().map(|resources| to_json(TABLE, resources)).transpose()?;
    let sql = "UPDATE sandboxes SET resources = $1, cpu_request_millis = $2, memory_request_bytes = $3, \
               generation = $4, node_generation = $5 WHERE id = $6";
    let values = values![
        kept,
        resources.cpu_request_millis,
        int(resources.memory_request_bytes),
        int(sandbox.generation),
        int(node_generation),
        sandbox.id.as_str(),
    ];
    tx.execute(sql, values)?;
    timing::keep(tx, sandbox)?;
    changes.push(Change::Desired { node_id: sandbox.node_id.clone(), generation: node_generation });
    changes.push(Change::Sandbox(Box::new(sandbox.clone())));
    Ok(())
}

/// Takes or gives back room on a node and raises its desired generation, which
/// it returns. Smaller requests are taken by a node that is too full as well.
fn resize(tx: &dyn Transaction, id: &NodeId, before: &Resources, after: &Resources) -> Result<u64, UpdateSandboxError> {
    let cpu = i64::from(after.cpu_request_millis) - i64::from(before.cpu_request_millis);
    let memory = int(after.memory_request_bytes) - int(before.memory_request_bytes);
    let sql = "UPDATE nodes SET cpu_requested_millis = cpu_requested_millis + $1, \
               memory_requested_bytes = memory_requested_bytes + $2, desired_generation = desired_generation + 1 \
               WHERE id = $3 AND (CAST($1 AS BIGINT) <= 0 OR cpu_requested_millis + $1 <= cpu_allocatable_millis) \
               AND (CAST($2 AS BIGINT) <= 0 OR memory_requested_bytes + $2 <= memory_allocatable_bytes) RETURNING desired_generation";
    match first_count(tx, sql, values![cpu, memory, id.as_str()], "desired_generation")? {
        Some(generation) => Ok(generation),
        None => Err(UpdateSandboxError::Place(no_room(tx, id, cpu, memory)?)),
    }
}

fn no_room(tx: &dyn Transaction, id: &NodeId, cpu: i64, memory: i64) -> Result<PlaceError, StoreError> {
    let sql = "SELECT name, cpu_requested_millis, cpu_allocatable_millis, memory_requested_bytes, \
               memory_allocatable_bytes FROM nodes WHERE id = $1";
    let refusal = first(tx, sql, values![id.as_str()], |row| {
        let free = |all: &str, used: &str| Ok::<_, StoreError>(count(row, all)?.saturating_sub(count(row, used)?));
        let (free_cpu, free_memory) = (
            free("cpu_allocatable_millis", "cpu_requested_millis")?,
            free("memory_allocatable_bytes", "memory_requested_bytes")?,
        );
        let reason = if uint(cpu) > free_cpu {
            format!("has {free_cpu} thousandths of a core free, {cpu} more are requested")
        } else {
            format!("has {free_memory} bytes of memory free, {memory} more are requested")
        };
        Ok(Refusal { node: text(row, "name")?, reason })
    })?;
    Ok(PlaceError::NothingFits(refusal.into_iter().collect()))
}
