//! Idempotency keys of requests that nothing else keeps an answer of.

use roost_proto::id::TenantId;

use super::row::{first, int, text};
use super::{Transaction, values};
use crate::store::{KeyedAnswer, StoreError};

/// What a key stands for.
pub(super) fn recall(
    tx: &dyn Transaction,
    tenant: &TenantId,
    key: &str,
    request: &str,
) -> Result<KeyedAnswer, StoreError> {
    let sql = "SELECT body_sha256, answer FROM idempotency_keys WHERE tenant_id = $1 AND idempotency_key = $2";
    let found =
        first(tx, sql, values![tenant.as_str(), key], |row| Ok((text(row, "body_sha256")?, text(row, "answer")?)))?;
    Ok(match found {
        None => KeyedAnswer::New,
        Some((earlier, _)) if earlier != request => KeyedAnswer::Reused,
        Some((_, answer)) => KeyedAnswer::Answer(answer),
    })
}

/// Takes a key for a request; false if it is taken.
pub(super) fn take(
    tx: &dyn Transaction,
    tenant: &TenantId,
    (key, request): &(String, String),
    answer: &str,
    now_unix_ms: u64,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO idempotency_keys VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT (tenant_id, idempotency_key) DO NOTHING";
    Ok(tx.execute(sql, values![tenant.as_str(), key, request, answer, int(now_unix_ms)])? == 1)
}

/// Keeps the answer to the request that has taken the key.
pub(super) fn keep(
    tx: &dyn Transaction,
    tenant: &TenantId,
    (key, request): &(String, String),
    answer: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE idempotency_keys SET answer = $1 \
               WHERE tenant_id = $2 AND idempotency_key = $3 AND body_sha256 = $4";
    tx.execute(sql, values![answer, tenant.as_str(), key, request]).map(drop)
}
