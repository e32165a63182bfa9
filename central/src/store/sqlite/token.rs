//! Tenants, API tokens, join tokens, and what expires.

use roost_proto::id::{ApiTokenId, JoinTokenId, TenantId};
use rusqlite::{Connection, Row, Transaction, params};

use super::row::{all, count, execute, exists, first, int, parsed};
use crate::secret::SecretHash;
use crate::store::{JoinToken, NewJoinToken, StoreError};

/// The only role for now: everything in its tenant.
const ADMIN: &str = "admin";

pub(super) fn ensure_tenant(tx: &Transaction<'_>, tenant: &TenantId, now_unix_ms: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO tenants (id, created_at_unix_ms) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    execute(tx, sql, params![tenant.as_str(), int(now_unix_ms)]).map(drop)
}

pub(super) fn find_api_token(conn: &Connection, secret: &SecretHash) -> Result<Option<TenantId>, StoreError> {
    let sql = "SELECT tenant_id FROM api_tokens WHERE secret_sha256 = $1";
    first(conn, sql, params![secret.as_str()], |row| parsed(row, "api_tokens", "tenant_id"))
}

pub(super) fn has_admin(conn: &Connection, tenant: &TenantId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM api_tokens WHERE tenant_id = $1 AND role = $2 LIMIT 1";
    exists(conn, sql, params![tenant.as_str(), ADMIN])
}

pub(super) fn replace_admin(
    tx: &Transaction<'_>,
    tenant: &TenantId,
    secret: &SecretHash,
    now_unix_ms: u64,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM api_tokens WHERE tenant_id = $1 AND role = $2";
    execute(tx, sql, params![tenant.as_str(), ADMIN])?;
    let sql = "INSERT INTO api_tokens (id, tenant_id, role, secret_sha256, created_at_unix_ms) \
               VALUES ($1, $2, $3, $4, $5)";
    let id = ApiTokenId::random();
    execute(tx, sql, params![id.as_str(), tenant.as_str(), ADMIN, secret.as_str(), int(now_unix_ms)]).map(drop)
}

pub(super) fn create_join_token(tx: &Transaction<'_>, tenant: &TenantId, new: &NewJoinToken) -> Result<(), StoreError> {
    let sql = "INSERT INTO join_tokens (id, tenant_id, secret_sha256, created_at_unix_ms, expires_at_unix_ms) \
               VALUES ($1, $2, $3, $4, $5)";
    let (created, expires) = (int(new.created_at_unix_ms), int(new.expires_at_unix_ms));
    execute(tx, sql, params![new.id.as_str(), tenant.as_str(), new.secret.as_str(), created, expires]).map(drop)
}

fn read(row: &Row<'_>) -> Result<JoinToken, StoreError> {
    Ok(JoinToken {
        id: parsed(row, "join_tokens", "id")?,
        created_at_unix_ms: count(row, "created_at_unix_ms")?,
        expires_at_unix_ms: count(row, "expires_at_unix_ms")?,
    })
}

pub(super) fn join_tokens(
    conn: &Connection,
    tenant: &TenantId,
    now_unix_ms: u64,
) -> Result<Vec<JoinToken>, StoreError> {
    let sql = "SELECT id, created_at_unix_ms, expires_at_unix_ms FROM join_tokens WHERE tenant_id = $1 \
               AND used_at_unix_ms IS NULL AND expires_at_unix_ms > $2 ORDER BY created_at_unix_ms, id";
    all(conn, sql, params![tenant.as_str(), int(now_unix_ms)], read)
}

pub(super) fn delete_join_token(tx: &Transaction<'_>, tenant: &TenantId, id: &JoinTokenId) -> Result<bool, StoreError> {
    let sql = "DELETE FROM join_tokens WHERE tenant_id = $1 AND id = $2 AND used_at_unix_ms IS NULL";
    Ok(execute(tx, sql, params![tenant.as_str(), id.as_str()])? == 1)
}

pub(super) fn expire(tx: &Transaction<'_>, before_unix_ms: u64) -> Result<u64, StoreError> {
    let before = int(before_unix_ms);
    let keys = execute(tx, "DELETE FROM idempotency_keys WHERE created_at_unix_ms < $1", params![before])?;
    let tokens = execute(tx, "DELETE FROM join_tokens WHERE expires_at_unix_ms < $1", params![before])?;
    Ok(u64::try_from(keys + tokens).unwrap_or(u64::MAX))
}
