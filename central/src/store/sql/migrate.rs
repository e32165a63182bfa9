//! Forward migrations: each file once, in order, all in one transaction, which
//! the driver makes sure is the only one of its kind.

use super::row::{first, int, integer};
use super::{Transaction, values};
use crate::clock;
use crate::store::StoreError;

/// Every migration, append only: number n brings version n-1 to n.
const MIGRATIONS: [&str; 7] = [
    include_str!("../migrations/0001_begin.sql"),
    include_str!("../migrations/0002_replicas.sql"),
    include_str!("../migrations/0003_trust.sql"),
    include_str!("../migrations/0004_resources.sql"),
    include_str!("../migrations/0005_restore.sql"),
    include_str!("../migrations/0006_pools.sql"),
    include_str!("../migrations/0007_time.sql"),
];

/// The newest version of the schema.
pub(in crate::store) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the schema up to date; does nothing where it is.
pub(in crate::store) fn run(tx: &dyn Transaction) -> Result<(), StoreError> {
    run_to(tx, newest())
}

/// The same up to a version.
pub(in crate::store) fn run_to(tx: &dyn Transaction, target: i64) -> Result<(), StoreError> {
    tx.script(
        "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, applied_at_unix_ms BIGINT NOT NULL)",
    )?;
    let found = version(tx)?;
    if found > newest() {
        return Err(StoreError::Newer { found, known: newest() });
    }
    for (version, sql) in (1..=target).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        tx.script(sql)?;
        let now = int(clock::now_unix_ms());
        tx.execute("INSERT INTO schema_version VALUES ($1, $2)", values![version, now])?;
        tracing::info!(version, "database schema migrated");
    }
    Ok(())
}

/// The version of the schema; 0 = there is none yet.
pub(in crate::store) fn version(tx: &dyn Transaction) -> Result<i64, StoreError> {
    let sql = "SELECT version FROM schema_version ORDER BY version DESC LIMIT 1";
    Ok(first(tx, sql, &[], |row| integer(row, "version"))?.unwrap_or(0))
}
