//! Tenants, API tokens, join tokens, and what expires.

use roost_proto::id::{ApiTokenId, JoinTokenId, TenantId};

use super::row::{all, count, exists, first, int, parsed};
use super::{Row, Transaction, timing, values};
use crate::secret::SecretHash;
use crate::store::{JoinToken, NewJoinToken, StoreError};

/// The only role for now: everything in its tenant.
const ADMIN: &str = "admin";

pub(super) fn ensure_tenant(tx: &dyn Transaction, tenant: &TenantId, now_unix_ms: u64) -> Result<(), StoreError> {
    let sql = "INSERT INTO tenants (id, created_at_unix_ms) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    tx.execute(sql, values![tenant.as_str(), int(now_unix_ms)]).map(drop)
}

pub(super) fn find_api_token(
    tx: &dyn Transaction,
    secret: &SecretHash,
    now_unix_ms: u64,
) -> Result<Option<TenantId>, StoreError> {
    let sql = "SELECT tenant_id FROM api_tokens WHERE secret_sha256 = $1 \
               AND (expires_at_unix_ms IS NULL OR expires_at_unix_ms > $2)";
    first(tx, sql, values![secret.as_str(), int(now_unix_ms)], |row| parsed(row, "api_tokens", "tenant_id"))
}

pub(super) fn has_admin(tx: &dyn Transaction, tenant: &TenantId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM api_tokens WHERE tenant_id = $1 AND role = $2 LIMIT 1";
    exists(tx, sql, values![tenant.as_str(), ADMIN])
}

pub(super) fn replace_admin(
    tx: &dyn Transaction,
    tenant: &TenantId,
    secret: &SecretHash,
    now_unix_ms: u64,
    old_until_unix_ms: u64,
) -> Result<(), StoreError> {
    if old_until_unix_ms <= now_unix_ms {
        let sql = "DELETE FROM api_tokens WHERE tenant_id = $1 AND role = $2";
        tx.execute(sql, values![tenant.as_str(), ADMIN])?;
    } else {
        // One that ends sooner already still does.
        let sql = "UPDATE api_tokens SET expires_at_unix_ms = $1 WHERE tenant_id = $2 AND role = $3 \
                   AND (expires_at_unix_ms IS NULL OR expires_at_unix_ms > $1)";
        tx.execute(sql, values![int(old_until_unix_ms), tenant.as_str(), ADMIN])?;
    }
    let sql = "INSERT INTO api_tokens (id, tenant_id, role, secret_sha256, created_at_unix_ms) \
               VALUES ($1, $2, $3, $4, $5)";
    let id = ApiTokenId::random();
    tx.execute(sql, values![id.as_str(), tenant.as_str(), ADMIN, secret.as_str(), int(now_unix_ms)]).map(drop)
}

/// Keeps an admin token where the tenant has none; whether it was kept.
pub(super) fn add_first_admin(
    tx: &dyn Transaction,
    tenant: &TenantId,
    secret: &SecretHash,
    now_unix_ms: u64,
) -> Result<bool, StoreError> {
    // Changes nothing but makes replicas that start together take turns.
    let sql = "UPDATE tenants SET created_at_unix_ms = created_at_unix_ms WHERE id = $1";
    tx.execute(sql, values![tenant.as_str()])?;
    if has_admin(tx, tenant)? {
        return Ok(false);
    }
    replace_admin(tx, tenant, secret, now_unix_ms, 0).map(|()| true)
}

pub(super) fn create_join_token(tx: &dyn Transaction, tenant: &TenantId, new: &NewJoinToken) -> Result<(), StoreError> {
    let sql = "INSERT INTO join_tokens (id, tenant_id, secret_sha256, created_at_unix_ms, expires_at_unix_ms) \
               VALUES ($1, $2, $3, $4, $5)";
    let (created, expires) = (int(new.created_at_unix_ms), int(new.expires_at_unix_ms));
    tx.execute(sql, values![new.id.as_str(), tenant.as_str(), new.secret.as_str(), created, expires]).map(drop)
}

fn read(row: &dyn Row) -> Result<JoinToken, StoreError> {
    Ok(JoinToken {
        id: parsed(row, "join_tokens", "id")?,
        created_at_unix_ms: count(row, "created_at_unix_ms")?,
        expires_at_unix_ms: count(row, "expires_at_unix_ms")?,
    })
}

pub(super) fn join_tokens(
    tx: &dyn Transaction,
    tenant: &TenantId,
    now_unix_ms: u64,
) -> Result<Vec<JoinToken>, StoreError> {
    let sql = "SELECT id, created_at_unix_ms, expires_at_unix_ms FROM join_tokens WHERE tenant_id = $1 \
               AND used_at_unix_ms IS NULL AND expires_at_unix_ms > $2 ORDER BY created_at_unix_ms, id";
    all(tx, sql, values![tenant.as_str(), int(now_unix_ms)], read)
}

pub(super) fn delete_join_token(tx: &dyn Transaction, tenant: &TenantId, id: &JoinTokenId) -> Result<bool, StoreError> {
    let sql = "DELETE FROM join_tokens WHERE tenant_id = $1 AND id = $2 AND used_at_unix_ms IS NULL";
    Ok(tx.execute(sql, values![tenant.as_str(), id.as_str()])? == 1)
}

pub(super) fn expire(tx: &dyn Transaction, before_unix_ms: u64) -> Result<u64, StoreError> {
    let before = int(before_unix_ms);
    let keys = tx.execute("DELETE FROM idempotency_keys WHERE created_at_unix_ms < $1", values![before])?;
    let tokens = tx.execute("DELETE FROM join_tokens WHERE expires_at_unix_ms < $1", values![before])?;
    let replaced = tx.execute("DELETE FROM api_tokens WHERE expires_at_unix_ms < $1", values![before])?;
    // Those that got nothing are for the duty that asks their nodes.
    let claims = tx.execute("DELETE FROM claims WHERE state = 'kept' AND created_at_unix_ms < $1", values![before])?;
    Ok(keys + tokens + replaced + claims + timing::expire(tx, before_unix_ms)?)
}
