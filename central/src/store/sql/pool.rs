//! Pools, and where central has put them.

use std::collections::HashMap;

use roost_proto::id::{NodeId, PoolName, TenantId};
use roost_proto::model::{FleetPool, FleetPoolStatus, PoolOnNode};

use super::row::{all, document, exists, first, from_json, int, maybe_count, parsed, text, to_json};
use super::{Row, Transaction, template, values};
use crate::pools::name_on_node;
use crate::store::{NodePool, PoolBoard, PoolNode, PoolWish, PutPoolError, StoreError};

const TABLE: &str = "pools";
const ON_NODES: &str = "node_pools";

/// Whether the row holds a pool: for checks.
pub(super) fn read_pool(row: &dyn Row) -> Result<(), StoreError> {
    read(row).map(drop)
}

fn read(row: &dyn Row) -> Result<FleetPool, StoreError> {
    document(row, TABLE, "document")
}

fn all_of(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<FleetPool>, StoreError> {
    all(tx, "SELECT document FROM pools WHERE tenant_id = $1 ORDER BY name", values![tenant.as_str()], read)
}

fn find(tx: &dyn Transaction, tenant: &TenantId, name: &PoolName) -> Result<Option<FleetPool>, StoreError> {
    let sql = "SELECT document FROM pools WHERE tenant_id = $1 AND name = $2";
    first(tx, sql, values![tenant.as_str(), name.as_str()], read)
}

fn on_nodes(tx: &dyn Transaction, tenant: &TenantId, pool: &PoolName) -> Result<Vec<PoolOnNode>, StoreError> {
    let sql = "SELECT p.node_id, n.name AS node, p.name, p.standing, p.seen_at_unix_ms FROM node_pools p \
               JOIN nodes n ON n.id = p.node_id WHERE p.tenant_id = $1 AND p.pool = $2 ORDER BY n.name";
    all(tx, sql, values![tenant.as_str(), pool.as_str()], |row| {
        Ok(PoolOnNode {
            node_id: parsed(row, ON_NODES, "node_id")?,
            node: text(row, "node")?,
            name: parsed(row, ON_NODES, "name")?,
            standing: document(row, ON_NODES, "standing")?,
            seen_at_unix_ms: maybe_count(row, "seen_at_unix_ms")?,
        })
    })
}

/// Every pool of a tenant with its standing.
pub(super) fn list(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<FleetPoolStatus>, StoreError> {
    let with_nodes = |pool: FleetPool| Ok(FleetPoolStatus { nodes: on_nodes(tx, tenant, &pool.name)?, pool });
    all_of(tx, tenant)?.into_iter().map(with_nodes).collect()
}

/// One pool with its standing.
pub(super) fn status(
    tx: &dyn Transaction,
    tenant: &TenantId,
    name: &PoolName,
) -> Result<Option<FleetPoolStatus>, StoreError> {
    let Some(pool) = find(tx, tenant, name)? else { return Ok(None) };
    Ok(Some(FleetPoolStatus { nodes: on_nodes(tx, tenant, name)?, pool }))
}

pub(super) fn put(tx: &dyn Transaction, tenant: &TenantId, new: &FleetPool) -> Result<bool, PutPoolError> {
    if template::template(tx, tenant, &new.template)?.is_none() {
        return Err(PutPoolError::NoTemplate(new.template.clone()));
    }
    if let Some(profile) = &new.profile
        && template::profile(tx, tenant, profile)?.is_none()
    {
        return Err(PutPoolError::NoProfile(profile.clone()));
    }
    let created = find(tx, tenant, &new.name)?.is_none();
    let sql = "INSERT INTO pools (tenant_id, name, document) VALUES ($1, $2, $3) \
               ON CONFLICT (tenant_id, name) DO UPDATE SET document = excluded.document";
    tx.execute(sql, values![tenant.as_str(), new.name.as_str(), to_json(TABLE, new)?])?;
    Ok(created)
}

pub(super) fn delete(tx: &dyn Transaction, tenant: &TenantId, name: &PoolName) -> Result<bool, StoreError> {
    let sql = "DELETE FROM pools WHERE tenant_id = $1 AND name = $2";
    Ok(tx.execute(sql, values![tenant.as_str(), name.as_str()])? == 1)
}

/// What all nodes are to keep, and what they keep.
pub(super) fn board(tx: &dyn Transaction) -> Result<PoolBoard, StoreError> {
    let wishes = wishes(tx)?;
    if wishes.is_empty() && !exists(tx, "SELECT node_id FROM node_pools LIMIT 1", &[])? {
        return Ok(PoolBoard::default());
    }
    let mut kept: HashMap<NodeId, Vec<NodePool>> = HashMap::new();
    for (node, pool) in held(tx)? {
        kept.entry(node).or_default().push(pool);
    }
    let mut nodes = all(tx, "SELECT id, tenant_id, name FROM nodes ORDER BY id", &[], |row| {
        let (id, tenant) = (parsed(row, "nodes", "id")?, parsed(row, "nodes", "tenant_id")?);
        Ok(PoolNode { id, tenant, name: text(row, "name")?, held: Vec::new() })
    })?;
    nodes.iter_mut().for_each(|node| node.held = kept.remove(&node.id).unwrap_or_default());
    Ok(PoolBoard { wishes, nodes })
}

fn held(tx: &dyn Transaction) -> Result<Vec<(NodeId, NodePool)>, StoreError> {
    let sql = "SELECT node_id, name, tenant_id, pool, standing, seen_at_unix_ms FROM node_pools ORDER BY node_id, name";
    all(tx, sql, &[], |row| {
        let is_seen = maybe_count(row, "seen_at_unix_ms")?.is_some();
        let standing = if is_seen { Some(document(row, ON_NODES, "standing")?) } else { None };
        let pool = NodePool {
            name: parsed(row, ON_NODES, "name")?,
            tenant: parsed(row, ON_NODES, "tenant_id")?,
            pool: parsed(row, ON_NODES, "pool")?,
            standing,
        };
        Ok((parsed(row, ON_NODES, "node_id")?, pool))
    })
}

fn wishes(tx: &dyn Transaction) -> Result<Vec<PoolWish>, StoreError> {
    let sql = "SELECT tenant_id, document FROM pools ORDER BY tenant_id, name";
    let pools: Vec<(TenantId, FleetPool)> =
        all(tx, sql, &[], |row| Ok((parsed(row, TABLE, "tenant_id")?, from_json(TABLE, &text(row, "document")?)?)))?;
    pools.into_iter().map(|(tenant, pool)| wish(tx, tenant, pool)).collect()
}

fn wish(tx: &dyn Transaction, tenant: TenantId, pool: FleetPool) -> Result<PoolWish, StoreError> {
    let lacks = |what: String| format!("{what} does not exist any more: make it again, or change the pool");
    let Some(template) = template::template(tx, &tenant, &pool.template)? else {
        let spec = Err(lacks(format!("its template {}", pool.template)));
        return Ok(PoolWish { tenant, pool, spec });
    };
    let profile = pool.profile.as_ref().unwrap_or(&template.profile);
    let spec = match template::profile(tx, &tenant, profile)? {
        Some(profile) => Ok(pool.on_node(name_on_node(&tenant, &pool.name), &template, &profile)),
        None => Err(lacks(format!("its profile {profile}"))),
    };
    Ok(PoolWish { tenant, pool, spec })
}

/// Replaces what is known of a node; one that was removed meanwhile keeps
/// nothing.
pub(super) fn keep(
    tx: &dyn Transaction,
    node: &NodeId,
    pools: &[NodePool],
    now_unix_ms: u64,
) -> Result<(), StoreError> {
    tx.execute("DELETE FROM node_pools WHERE node_id = $1", values![node.as_str()])?;
    if !exists(tx, "SELECT id FROM nodes WHERE id = $1", values![node.as_str()])? {
        return Ok(());
    }
    let sql = "INSERT INTO node_pools (node_id, name, tenant_id, pool, standing, seen_at_unix_ms) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    for pool in pools {
        let seen = pool.standing.as_ref().map(|_| int(now_unix_ms));
        let standing = to_json(ON_NODES, &pool.standing.clone().unwrap_or_default())?;
        let values =
            values![node.as_str(), pool.name.as_str(), pool.tenant.as_str(), pool.pool.as_str(), standing, seen];
        tx.execute(sql, values)?;
    }
    Ok(())
}
