//! Nodes: enrolment, room, images.

use std::collections::BTreeMap;

use roost_proto::id::{NodeId, TenantId};
use roost_proto::model::{ImageInfo, ImageRef, NodeCapacity, NodeCertificate, NodeStatus, Resources};

use super::row::{all, count, count32, document, exists, first, first_count, int, maybe_count, parsed, text, to_json};
use super::{Row, Transaction, sandbox, values};
use crate::place::{self, Room};
use crate::store::{
    Change, DeleteNodeError, EnrolError, Enrolment, ImageOnNodes, LinkNode, NodeRecord, ReadmitError, StoreError,
};

const TABLE: &str = "nodes";
/// What [`read`] reads.
pub(super) const COLUMNS: &str = "id, name, status, cpu_requested_millis, memory_requested_bytes, sandboxes, \
                                  enrolled_at_unix_ms, certificate_ca_key_id, certificate_not_after_unix_ms, \
                                  unsettled_at_unix_ms, orphans";

pub(super) fn read(row: &dyn Row) -> Result<NodeRecord, StoreError> {
    Ok(NodeRecord {
        id: parsed(row, TABLE, "id")?,
        name: text(row, "name")?,
        status: document(row, TABLE, "status")?,
        cpu_requested_millis: count(row, "cpu_requested_millis")?,
        memory_requested_bytes: count(row, "memory_requested_bytes")?,
        sandboxes: count(row, "sandboxes")?,
        enrolled_at_unix_ms: count(row, "enrolled_at_unix_ms")?,
        certificate: read_certificate(row)?,
        unsettled_at_unix_ms: maybe_count(row, "unsettled_at_unix_ms")?,
        orphans: count(row, "orphans")?,
    })
}

fn read_certificate(row: &dyn Row) -> Result<Option<NodeCertificate>, StoreError> {
    let ca_key_id = row.text("certificate_ca_key_id")?.map(String::from);
    let not_after_unix_ms = maybe_count(row, "certificate_not_after_unix_ms")?.unwrap_or_default();
    Ok(ca_key_id.map(|ca_key_id| NodeCertificate { ca_key_id, not_after_unix_ms }))
}

fn read_image(row: &dyn Row) -> Result<(NodeId, ImageInfo), StoreError> {
    let table = "node_images";
    let (size_bytes, imported_at) = (count(row, "size_bytes")?, count(row, "imported_at_unix_ms")?);
    let image = ImageInfo::new(parsed(row, table, "reference")?, text(row, "digest")?, size_bytes, imported_at);
    Ok((parsed(row, table, "node_id")?, image))
}

fn node_images(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<(NodeId, ImageInfo)>, StoreError> {
    let sql = "SELECT node_id, reference, digest, size_bytes, imported_at_unix_ms FROM node_images \
               WHERE tenant_id = $1 ORDER BY reference, digest, node_id";
    all(tx, sql, values![tenant.as_str()], read_image)
}

pub(super) fn list(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<NodeRecord>, StoreError> {
    let mut images: BTreeMap<NodeId, Vec<ImageInfo>> = BTreeMap::new();
    for (node, image) in node_images(tx, tenant)? {
        images.entry(node).or_default().push(image);
    }
    let sql = format!("SELECT {COLUMNS} FROM nodes WHERE tenant_id = $1 ORDER BY name");
    let mut nodes = all(tx, &sql, values![tenant.as_str()], read)?;
    for node in &mut nodes {
        node.status.images = images.remove(&node.id).unwrap_or_default();
    }
    Ok(nodes)
}

pub(super) fn find(tx: &dyn Transaction, tenant: &TenantId, id: &NodeId) -> Result<Option<NodeRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM nodes WHERE tenant_id = $1 AND id = $2");
    let Some(mut node) = first(tx, &sql, values![tenant.as_str(), id.as_str()], read)? else { return Ok(None) };
    let sql = "SELECT node_id, reference, digest, size_bytes, imported_at_unix_ms FROM node_images \
               WHERE node_id = $1 ORDER BY reference";
    let images = all(tx, sql, values![id.as_str()], read_image)?;
    node.status.images = images.into_iter().map(|(_, image)| image).collect();
    Ok(Some(node))
}

pub(super) fn delete(
    tx: &dyn Transaction,
    tenant: &TenantId,
    id: &NodeId,
    force: bool,
    changes: &mut Vec<Change>,
) -> Result<u64, DeleteNodeError> {
    let node = find(tx, tenant, id)?.ok_or(DeleteNodeError::NotFound)?;
    if node.sandboxes > 0 && !force {
        return Err(DeleteNodeError::NotEmpty(node.sandboxes));
    }
    for lost in sandbox::desired(tx, id, None)?.sandboxes {
        sandbox::lose(tx, lost, &node.name, changes)?;
    }
    tx.execute("DELETE FROM node_images WHERE node_id = $1", values![id.as_str()])?;
    tx.execute("DELETE FROM node_pools WHERE node_id = $1", values![id.as_str()])?;
    tx.execute("DELETE FROM nodes WHERE id = $1", values![id.as_str()])?;
    changes.push(Change::Removed(id.clone()));
    Ok(node.sandboxes)
}

pub(super) fn images(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<ImageOnNodes>, StoreError> {
    let mut found: Vec<ImageOnNodes> = Vec::new();
    for (node, image) in node_images(tx, tenant)? {
        match found.last_mut().filter(|f| f.image.reference == image.reference && f.image.digest == image.digest) {
            Some(same) => same.nodes.push(node),
            None => found.push(ImageOnNodes { image, nodes: vec![node] }),
        }
    }
    Ok(found)
}

pub(super) fn enrol(tx: &dyn Transaction, new: &Enrolment) -> Result<(), EnrolError> {
    let sql = "SELECT tenant_id, expires_at_unix_ms, used_at_unix_ms FROM join_tokens WHERE secret_sha256 = $1";
    let token = first(tx, sql, values![new.token.as_str()], |row| {
        let tenant: TenantId = parsed(row, "join_tokens", "tenant_id")?;
        Ok((tenant, count(row, "expires_at_unix_ms")?, maybe_count(row, "used_at_unix_ms")?))
    })?;
    let (tenant, expires, used) = token.ok_or(EnrolError::UnknownToken)?;
    if used.is_some() {
        return Err(EnrolError::UsedToken);
    }
    if expires <= new.now_unix_ms {
        return Err(EnrolError::ExpiredToken);
    }
    // The condition makes it single use under every isolation level.
    let sql = "UPDATE join_tokens SET used_at_unix_ms = $1, used_by_node_id = $2 \
               WHERE secret_sha256 = $3 AND used_at_unix_ms IS NULL";
    let values = values![int(new.now_unix_ms), new.node_id.as_str(), new.token.as_str()];
    if tx.execute(sql, values)? != 1 {
        return Err(EnrolError::UsedToken);
    }
    insert(tx, &tenant, &new.node_id, &new.name, new.now_unix_ms).map_err(Into::into)
}

/// Takes a node back that is not known: nothing of what it holds is.
pub(super) fn readmit(
    tx: &dyn Transaction,
    tenant: &TenantId,
    id: &NodeId,
    name: &str,
    now_unix_ms: u64,
) -> Result<(), ReadmitError> {
    if exists(tx, "SELECT 1 FROM nodes WHERE id = $1", values![id.as_str()])? {
        return Err(ReadmitError::Known);
    }
    insert(tx, tenant, id, name, now_unix_ms)?;
    let sql = "UPDATE nodes SET unsettled_at_unix_ms = $1 WHERE id = $2";
    tx.execute(sql, values![int(now_unix_ms), id.as_str()])?;
    Ok(())
}

fn insert(
    tx: &dyn Transaction,
    tenant: &TenantId,
    id: &NodeId,
    name: &str,
    now_unix_ms: u64,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM nodes WHERE tenant_id = $1 AND name = $2";
    let taken = exists(tx, sql, values![tenant.as_str(), name])?;
    let id = id.as_str();
    let name = if taken { format!("{name}-{}", &id[id.len().saturating_sub(6)..]) } else { name.to_owned() };
    let sql = "INSERT INTO nodes (id, tenant_id, name, enrolled_at_unix_ms, instance_id, desired_generation, status, \
               failing, cpu_allocatable_millis, memory_allocatable_bytes, sandboxes_max, cpu_requested_millis, \
               memory_requested_bytes, sandboxes) VALUES ($1, $2, $3, $4, '', 0, $5, '', 0, 0, 0, 0, 0, 0)";
    let status = to_json(TABLE, &NodeStatus::default())?;
    tx.execute(sql, values![id, tenant.as_str(), name, int(now_unix_ms), status]).map(drop)
}

pub(super) fn link_node(tx: &dyn Transaction, id: &NodeId) -> Result<Option<LinkNode>, StoreError> {
    let sql = "SELECT name, instance_id, desired_generation, held_by, certificate_ca_key_id, \
               certificate_not_after_unix_ms, unsettled_at_unix_ms FROM nodes WHERE id = $1";
    first(tx, sql, values![id.as_str()], |row| {
        Ok(LinkNode {
            name: text(row, "name")?,
            instance_id: text(row, "instance_id")?,
            desired_generation: count(row, "desired_generation")?,
            held_by: row.text("held_by")?.map(String::from),
            certificate: read_certificate(row)?,
            is_unsettled: maybe_count(row, "unsettled_at_unix_ms")?.is_some(),
        })
    })
}

/// Notes which replica has the session of a node, and that the node was heard.
pub(super) fn hold(tx: &dyn Transaction, id: &NodeId, replica: &str, now_unix_ms: u64) -> Result<(), StoreError> {
    let sql = "UPDATE nodes SET held_by = $1, last_heartbeat_unix_ms = $2 WHERE id = $3";
    tx.execute(sql, values![replica, int(now_unix_ms), id.as_str()]).map(drop)
}

pub(super) fn save_certificate(
    tx: &dyn Transaction,
    id: &NodeId,
    certificate: &NodeCertificate,
) -> Result<(), StoreError> {
    let sql = "UPDATE nodes SET certificate_ca_key_id = $1, certificate_not_after_unix_ms = $2 WHERE id = $3";
    let values = values![&certificate.ca_key_id, int(certificate.not_after_unix_ms), id.as_str()];
    tx.execute(sql, values).map(drop)
}

/// The room of every node of the tenant.
pub(super) fn rooms(tx: &dyn Transaction, tenant: &TenantId, image: &ImageRef) -> Result<Vec<Room>, StoreError> {
    let sql = "SELECT n.id, n.name, n.failing, n.cpu_allocatable_millis, n.memory_allocatable_bytes, \
               n.sandboxes_max, n.cpu_requested_millis, n.memory_requested_bytes, n.sandboxes, \
               CASE WHEN EXISTS (SELECT 1 FROM node_images i WHERE i.node_id = n.id AND i.reference = $1) \
               THEN 1 ELSE 0 END AS has_image FROM nodes n WHERE n.tenant_id = $2";
    all(tx, sql, values![image.as_str(), tenant.as_str()], |row| {
        Ok(Room {
            node_id: parsed(row, TABLE, "id")?,
            name: text(row, "name")?,
            capacity: NodeCapacity {
                cpu_allocatable_millis: count32(row, "cpu_allocatable_millis")?,
                memory_allocatable_bytes: count(row, "memory_allocatable_bytes")?,
                sandboxes_max: count32(row, "sandboxes_max")?,
            },
            cpu_requested_millis: count(row, "cpu_requested_millis")?,
            memory_requested_bytes: count(row, "memory_requested_bytes")?,
            sandboxes: count(row, "sandboxes")?,
            failing: text(row, "failing")?,
            has_image: count(row, "has_image")? == 1,
        })
    })
}

/// The desired generation of every node.
pub(super) fn generations(tx: &dyn Transaction) -> Result<Vec<(NodeId, u64)>, StoreError> {
    let sql = "SELECT id, desired_generation FROM nodes";
    all(tx, sql, &[], |row| Ok((parsed(row, TABLE, "id")?, count(row, "desired_generation")?)))
}

/// Takes room on a node and raises its desired generation, which it returns.
///
/// The condition repeats what placement saw: where transactions run side by
/// side, the room may be gone since, and the answer is none.
pub(super) fn reserve(tx: &dyn Transaction, id: &NodeId, asked: &Resources) -> Result<Option<u64>, StoreError> {
    let sql = "UPDATE nodes SET cpu_requested_millis = cpu_requested_millis + $1, \
               memory_requested_bytes = memory_requested_bytes + $2, sandboxes = sandboxes + 1, \
               desired_generation = desired_generation + 1 WHERE id = $3 \
               AND cpu_requested_millis + $1 <= cpu_allocatable_millis \
               AND memory_requested_bytes + $2 <= memory_allocatable_bytes \
               AND sandboxes < sandboxes_max RETURNING desired_generation";
    let values = values![asked.cpu_request_millis, int(asked.memory_request_bytes), id.as_str()];
    first_count(tx, sql, values, "desired_generation")
}

/// Takes room for what is there already, whether there is enough or not, and
/// raises the desired generation of the node, which it returns.
pub(super) fn take(tx: &dyn Transaction, id: &NodeId, asked: &Resources) -> Result<u64, StoreError> {
    let sql = "UPDATE nodes SET cpu_requested_millis = cpu_requested_millis + $1, \
               memory_requested_bytes = memory_requested_bytes + $2, sandboxes = sandboxes + 1, \
               desired_generation = desired_generation + 1 WHERE id = $3 RETURNING desired_generation";
    let values = values![asked.cpu_request_millis, int(asked.memory_request_bytes), id.as_str()];
    Ok(first_count(tx, sql, values, "desired_generation")?.unwrap_or(0))
}

/// Gives room back.
pub(super) fn release(tx: &dyn Transaction, id: &NodeId, asked: &Resources) -> Result<(), StoreError> {
    let sql = "UPDATE nodes SET cpu_requested_millis = cpu_requested_millis - $1, \
               memory_requested_bytes = memory_requested_bytes - $2, sandboxes = sandboxes - 1 WHERE id = $3";
    tx.execute(sql, values![asked.cpu_request_millis, int(asked.memory_request_bytes), id.as_str()]).map(drop)
}

/// Raises the desired generation of a node and returns it.
pub(super) fn bump(tx: &dyn Transaction, id: &NodeId) -> Result<u64, StoreError> {
    let sql = "UPDATE nodes SET desired_generation = desired_generation + 1 WHERE id = $1 RETURNING desired_generation";
    Ok(first_count(tx, sql, values![id.as_str()], "desired_generation")?.unwrap_or(0))
}

/// Raises the desired generation of a node above `held`.
pub(super) fn raise_generation(tx: &dyn Transaction, id: &NodeId, held: u64) -> Result<(), StoreError> {
    let sql = "UPDATE nodes SET desired_generation = CAST($1 AS BIGINT) + 1 \
               WHERE id = $2 AND desired_generation <= $1";
    tx.execute(sql, values![int(held), id.as_str()]).map(drop)
}

/// Keeps what a node said of itself; its images replace the earlier ones.
pub(super) fn set_status(tx: &dyn Transaction, id: &NodeId, status: &NodeStatus) -> Result<(), StoreError> {
    let failing = place::failing(status);
    // Images have a table of their own, load is too restless for a disk.
    let kept = NodeStatus { images: Vec::new(), load: Default::default(), ..status.clone() };
    let sql = "UPDATE nodes SET status = $1, failing = $2, cpu_allocatable_millis = $3, \
               memory_allocatable_bytes = $4, sandboxes_max = $5 WHERE id = $6";
    let capacity = &status.capacity;
    let values = values![
        to_json(TABLE, &kept)?,
        failing,
        capacity.cpu_allocatable_millis,
        int(capacity.memory_allocatable_bytes),
        capacity.sandboxes_max,
        id.as_str(),
    ];
    tx.execute(sql, values)?;
    tx.execute("DELETE FROM node_images WHERE node_id = $1", values![id.as_str()])?;
    status.images.iter().try_for_each(|image| add_image(tx, id, image))
}

pub(super) fn add_image(tx: &dyn Transaction, id: &NodeId, image: &ImageInfo) -> Result<(), StoreError> {
    let sql = "INSERT INTO node_images (node_id, tenant_id, reference, digest, size_bytes, imported_at_unix_ms) \
               SELECT id, tenant_id, $1, $2, $3, $4 FROM nodes WHERE id = $5 \
               ON CONFLICT (node_id, reference) DO UPDATE SET digest = excluded.digest, \
               size_bytes = excluded.size_bytes, imported_at_unix_ms = excluded.imported_at_unix_ms";
    let (size, imported) = (int(image.size_bytes), int(image.imported_at_unix_ms));
    tx.execute(sql, values![image.reference.as_str(), &image.digest, size, imported, id.as_str()]).map(drop)
}

pub(super) fn remove_image(tx: &dyn Transaction, id: &NodeId, reference: &ImageRef) -> Result<(), StoreError> {
    let sql = "DELETE FROM node_images WHERE node_id = $1 AND reference = $2";
    tx.execute(sql, values![id.as_str(), reference.as_str()]).map(drop)
}

pub(super) fn heartbeat_times(tx: &dyn Transaction) -> Result<Vec<(NodeId, Option<u64>)>, StoreError> {
    let sql = "SELECT id, last_heartbeat_unix_ms FROM nodes";
    all(tx, sql, &[], |row| Ok((parsed(row, TABLE, "id")?, maybe_count(row, "last_heartbeat_unix_ms")?)))
}

pub(super) fn save_heartbeat_times(tx: &dyn Transaction, times: &[(NodeId, u64)]) -> Result<(), StoreError> {
    // Another replica may have heard the node later.
    let sql = "UPDATE nodes SET last_heartbeat_unix_ms = $1 \
               WHERE id = $2 AND (last_heartbeat_unix_ms IS NULL OR last_heartbeat_unix_ms < $1)";
    times.iter().try_for_each(|(id, at)| tx.execute(sql, values![int(*at), id.as_str()]).map(drop))
}
