//! Sandboxes: what is wanted of them, and how that reaches their nodes.

use roost_proto::id::{NodeId, SandboxId, TenantId};
use roost_proto::model::{Observed, Phase, RunState, Sandbox};

use super::row::{
    all, count, document, first, first_count, from_json, int, maybe_count, maybe_parsed, parsed, text, to_json,
};
use super::{Row, Transaction, node, values};
use crate::place::{PlaceError, Refusal};
use crate::store::types::run_state_text;
use crate::store::{
    Change, CreateSandboxError, Created, Desired, NewSandbox, PlaceFn, SandboxFilter, SandboxKey, StoreError,
};

const TABLE: &str = "sandboxes";
/// What [`read`] reads.
pub(super) const COLUMNS: &str = "id, tenant_id, name, node_id, generation, run_state, restart_count, spec, resources, \
                       paused, lifetime, ttl_count, observed, observed_at_unix_ms, created_at_unix_ms";

/// How often a placement begins anew when the room that it chose was taken
/// meanwhile: each round another request has succeeded.
const PLACE_ROUNDS: usize = 16;

/// One row as the model shows it; usage is not in the database.
pub(super) fn read(row: &dyn Row) -> Result<Sandbox, StoreError> {
    let run_state = read_run_state(row)?;
    let mut observed: Observed = document(row, TABLE, "observed")?;
    if run_state == RunState::Deleted {
        // Until the node says Gone, whatever it saw before.
        observed.phase = Phase::Deleting;
        observed.stage = None;
    }
    Ok(Sandbox {
        id: parsed(row, TABLE, "id")?,
        name: maybe_parsed(row, TABLE, "name")?,
        tenant: parsed(row, TABLE, "tenant_id")?,
        node_id: parsed(row, TABLE, "node_id")?,
        generation: count(row, "generation")?,
        run_state,
        restart_count: count(row, "restart_count")?,
        spec: document(row, TABLE, "spec")?,
        resources: row.text("resources")?.map(|text| from_json(TABLE, text)).transpose()?,
        paused: count(row, "paused")? != 0,
        lifetime: row.text("lifetime")?.map(|text| from_json(TABLE, text)).transpose()?,
        ttl_count: count(row, "ttl_count")?,
        observed,
        created_at_unix_ms: count(row, "created_at_unix_ms")?,
        observed_at_unix_ms: maybe_count(row, "observed_at_unix_ms")?,
    })
}

/// Reads the column `run_state`.
fn read_run_state(row: &dyn Row) -> Result<RunState, StoreError> {
    serde_json::from_value(text(row, "run_state")?.into())
        .map_err(|source| StoreError::Corrupt { table: TABLE, source: Box::new(source) })
}

pub(super) fn find(tx: &dyn Transaction, tenant: &TenantId, key: &SandboxKey) -> Result<Option<Sandbox>, StoreError> {
    let (column, text) = match key {
        SandboxKey::Id(id) => ("id", id.as_str()),
        SandboxKey::Name(name) => ("name", name.as_str()),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM sandboxes WHERE tenant_id = $1 AND {column} = $2 AND orphaned_at_unix_ms IS NULL"
    );
    first(tx, &sql, values![tenant.as_str(), text], read)
}

/// One sandbox by id in whatever tenant: for the node link.
pub(super) fn find_any(tx: &dyn Transaction, id: &SandboxId) -> Result<Option<Sandbox>, StoreError> {
    first(tx, &format!("SELECT {COLUMNS} FROM sandboxes WHERE id = $1"), values![id.as_str()], read)
}

/// Sandboxes of one statement: few texts to prepare, and far below the number
/// of placeholders that an engine takes.
const FIND_CHUNK: usize = 64;

/// Those of the sandboxes that exist, in whatever tenant: for the change feed.
pub(super) fn find_all(tx: &dyn Transaction, ids: &[SandboxId]) -> Result<Vec<Sandbox>, StoreError> {
    let mut found = Vec::new();
    for chunk in ids.chunks(FIND_CHUNK) {
        // Filled up with the last one, so that there are two texts only.
        let count = if chunk.len() == 1 { 1 } else { FIND_CHUNK };
        let values: Vec<_> =
            (0..count).filter_map(|n| chunk.get(n).or_else(|| chunk.last())).map(|id| id.as_str().into()).collect();
        let places = (1..=count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        found.extend(all(tx, &format!("SELECT {COLUMNS} FROM sandboxes WHERE id IN ({places})"), &values, read)?);
    }
    Ok(found)
}

pub(super) fn list(
    tx: &dyn Transaction,
    tenant: &TenantId,
    filter: &SandboxFilter,
    limit: u32,
) -> Result<Vec<Sandbox>, StoreError> {
    // Absent filters are empty texts and match everything.
    let sql = format!(
        "SELECT {COLUMNS} FROM sandboxes WHERE tenant_id = $1 AND orphaned_at_unix_ms IS NULL \
         AND ($2 = '' OR phase = $2) AND ($3 = '' OR template = $3) AND ($4 = '' OR node_id = $4) AND (created_at_unix_ms, id) > ($5, $6) \
         ORDER BY created_at_unix_ms, id LIMIT $7"
    );
    let (after_ms, after_id) = filter.after.as_ref().map_or((-1, ""), |(ms, id)| (int(*ms), id.as_str()));
    let phase = filter.phase.map(|p| p.to_string()).unwrap_or_default();
    let template = filter.template.as_ref().map_or("", |t| t.as_str());
    let node = filter.node.as_ref().map_or("", NodeId::as_str);
    all(tx, &sql, values![tenant.as_str(), phase, template, node, after_ms, after_id, limit], read)
}

pub(super) fn count_phases(tx: &dyn Transaction) -> Result<Vec<(String, u64)>, StoreError> {
    let sql = "SELECT phase, COUNT(*) AS sandboxes FROM sandboxes WHERE orphaned_at_unix_ms IS NULL GROUP BY phase";
    all(tx, sql, &[], |row| Ok((text(row, "phase")?, count(row, "sandboxes")?)))
}

pub(super) fn create(
    tx: &dyn Transaction,
    tenant: &TenantId,
    new: &NewSandbox,
    place: &PlaceFn,
    changes: &mut Vec<Change>,
) -> Result<Created, CreateSandboxError> {
    if let Some((key, body)) = &new.idempotency {
        match replay(tx, tenant, key, body)? {
            Replay::New => {}
            Replay::Answer(sandbox) => return Ok(Created { sandbox: *sandbox, replayed: true }),
            Replay::Reused => return Err(CreateSandboxError::KeyReused),
        }
    }
    if let Some(name) = &new.name
        && find(tx, tenant, &SandboxKey::Name(name.clone()))?.is_some()
    {
        return Err(CreateSandboxError::NameTaken(name.clone()));
    }
    let (node_id, node_generation) = reserve(tx, tenant, new, place)?;
    let sandbox = Sandbox {
        id: new.id.clone(),
        name: new.name.clone(),
        tenant: tenant.clone(),
        node_id,
        generation: 1,
        run_state: RunState::Running,
        restart_count: 0,
        spec: new.spec.clone(),
        resources: None,
        paused: false,
        lifetime: None,
        ttl_count: 0,
        observed: Observed::pending(),
        created_at_unix_ms: new.now_unix_ms,
        observed_at_unix_ms: None,
    };
    insert(tx, &sandbox, node_generation)?;
    if let Some(idempotency) = &new.idempotency {
        keep_answer(tx, &sandbox, idempotency, new.now_unix_ms)?;
    }
    changes.push(Change::Desired { node_id: sandbox.node_id.clone(), generation: node_generation });
    changes.push(Change::Sandbox(Box::new(sandbox.clone())));
    Ok(Created { sandbox, replayed: false })
}

/// Takes room on the node of the hint or else chooses one; where another took
/// the last room between the two, anew.
fn reserve(
    tx: &dyn Transaction,
    tenant: &TenantId,
    new: &NewSandbox,
    place: &PlaceFn,
) -> Result<(NodeId, u64), CreateSandboxError> {
    let spec = &new.spec;
    if let Some(hint) = &new.hint
        && let Some(generation) = node::reserve(tx, hint, &spec.resources)?
    {
        return Ok((hint.clone(), generation));
    }
    let mut lost = Vec::new();
    for _ in 0..PLACE_ROUNDS {
        let rooms = node::rooms(tx, tenant, &spec.image)?;
        let node_id = place(&rooms).map_err(CreateSandboxError::Place)?;
        if let Some(generation) = node::reserve(tx, &node_id, &spec.resources)? {
            return Ok((node_id, generation));
        }
        let reason = "lost its room to another request: try again".into();
        lost.push(Refusal { node: node_id.to_string(), reason });
    }
    Err(CreateSandboxError::Place(PlaceError::NothingFits(lost)))
}

/// Keeps the answer to an idempotency key.
pub(super) fn keep_answer(
    tx: &dyn Transaction,
    sandbox: &Sandbox,
    (key, body): &(String, String),
    now_unix_ms: u64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO idempotency_keys VALUES ($1, $2, $3, $4, $5)";
    let answer = to_json(TABLE, sandbox)?;
    tx.execute(sql, values![sandbox.tenant.as_str(), key, body, answer, int(now_unix_ms)]).map(drop)
}

/// What an idempotency key stands for.
pub(super) enum Replay {
    /// Nothing yet.
    New,
    /// The answer that it got before.
    Answer(Box<Sandbox>),
    /// Another request.
    Reused,
}

/// Looks an idempotency key up.
pub(super) fn replay(tx: &dyn Transaction, tenant: &TenantId, key: &str, body: &str) -> Result<Replay, StoreError> {
    let sql = "SELECT body_sha256, answer FROM idempotency_keys WHERE tenant_id = $1 AND idempotency_key = $2";
    let found =
        first(tx, sql, values![tenant.as_str(), key], |row| Ok((text(row, "body_sha256")?, text(row, "answer")?)))?;
    Ok(match found {
        None => Replay::New,
        Some((earlier, _)) if earlier != body => Replay::Reused,
        Some((_, answer)) => Replay::Answer(Box::new(from_json("idempotency_keys", &answer)?)),
    })
}

pub(super) fn insert(tx: &dyn Transaction, s: &Sandbox, node_generation: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO sandboxes (id, tenant_id, name, node_id, generation, node_generation, run_state, \
               restart_count, template, spec, cpu_request_millis, memory_request_bytes, phase, observed, \
               observed_revision, created_at_unix_ms) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    let values = values![
        s.id.as_str(),
        s.tenant.as_str(),
        s.name.as_ref().map(|n| n.as_str()),
        s.node_id.as_str(),
        int(s.generation),
        int(node_generation),
        run_state_text(s.run_state),
        int(s.restart_count),
        s.spec.template.as_str(),
        to_json(TABLE, &s.spec)?,
        s.resources().cpu_request_millis,
        int(s.resources().memory_request_bytes),
        s.observed.phase.to_string(),
        to_json(TABLE, &s.observed)?,
        int(s.observed.revision),
        int(s.created_at_unix_ms),
    ];
    tx.execute(sql, values).map(drop)
}

/// Keeps what is wanted of a sandbox now.
pub(super) fn keep_wish(tx: &dyn Transaction, sandbox: &Sandbox, node_generation: u64) -> Result<(), StoreError> {
    let sql = "UPDATE sandboxes SET run_state = $1, restart_count = $2, generation = $3, node_generation = $4, \
               phase = $5, paused = $6 WHERE id = $7";
    let values = values![
        run_state_text(sandbox.run_state),
        int(sandbox.restart_count),
        int(sandbox.generation),
        int(node_generation),
        sandbox.observed.phase.to_string(),
        i64::from(sandbox.paused),
        sandbox.id.as_str(),
    ];
    tx.execute(sql, values).map(drop)
}

/// Forgets a sandbox that its node no longer holds, and frees its room.
pub(super) fn remove(tx: &dyn Transaction, sandbox: &Sandbox, changes: &mut Vec<Change>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM sandboxes WHERE id = $1", values![sandbox.id.as_str()])?;
    node::release(tx, &sandbox.node_id, sandbox.resources())?;
    changes.push(Change::Gone { tenant: sandbox.tenant.clone(), id: sandbox.id.clone() });
    Ok(())
}

/// Forgets a sandbox whose node will never answer again; watchers are told why.
pub(super) fn lose(
    tx: &dyn Transaction,
    mut sandbox: Sandbox,
    node: &str,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    sandbox.observed.phase = Phase::Gone;
    sandbox.observed.stage = None;
    sandbox.observed.reason = Some("node-lost".into());
    sandbox.observed.message = Some(format!("its node {node} was removed as lost: create it again"));
    changes.push(Change::Sandbox(Box::new(sandbox.clone())));
    remove(tx, &sandbox, changes)
}

pub(super) fn desired(tx: &dyn Transaction, node: &NodeId, base: Option<u64>) -> Result<Desired, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sandboxes WHERE node_id = $1 AND node_generation > $2 ORDER BY node_generation, id"
    );
    let sandboxes = all(tx, &sql, values![node.as_str(), base.map_or(-1, int)], read)?;
    let sql = "SELECT desired_generation FROM nodes WHERE id = $1";
    let generation = first_count(tx, sql, values![node.as_str()], "desired_generation")?;
    Ok(Desired { generation: generation.unwrap_or(0), sandboxes })
}
