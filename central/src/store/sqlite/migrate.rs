//! Forward migrations: each file once, in order, each in its transaction.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::clock;
use crate::store::StoreError;

/// Every migration, append only: number n brings version n-1 to n.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/0001_begin.sql")];

/// Brings the schema up to date; does nothing where it is.
pub(super) fn run(conn: &mut Connection) -> Result<(), StoreError> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, applied_at_unix_ms BIGINT NOT NULL)",
    )?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    for (target, sql) in (1..).zip(MIGRATIONS) {
        // Immediate, and the version is read inside: two processes that start
        // together apply each migration once.
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = tx
            .query_row("SELECT version FROM schema_version ORDER BY version DESC LIMIT 1", [], |row| row.get(0))
            .optional()?
            .unwrap_or(0);
        if found > known {
            return Err(StoreError::Newer { found, known });
        }
        if found < target {
            tx.execute_batch(sql)?;
            let now = super::row::int(clock::now_unix_ms());
            tx.execute("INSERT INTO schema_version VALUES ($1, $2)", params![target, now])?;
            tx.commit()?;
            tracing::info!(version = target, "database schema migrated");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of version 1 as the first release wrote it.
    const GOLDEN_V1: &str = include_str!("../golden/v1.sql");

    #[test]
    fn an_old_database_is_brought_up_to_date_with_its_rows() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(GOLDEN_V1).unwrap();
        run(&mut conn).unwrap();
        let version: i64 = conn.query_row("SELECT MAX(version) FROM schema_version", [], |r| r.get(0)).unwrap();
        assert_eq!(version, i64::try_from(MIGRATIONS.len()).unwrap());
        let tenant = "default".parse().unwrap();
        let sandboxes = super::super::sandbox::list(&conn, &tenant, &Default::default(), 10).unwrap();
        assert_eq!(sandboxes[0].name.as_ref().map(|n| n.as_str()), Some("first"));
        assert_eq!(super::super::template::templates(&conn, &tenant).unwrap().len(), 1);
        assert_eq!(super::super::node::list(&conn, &tenant).unwrap()[0].sandboxes, 1);
    }

    #[test]
    fn the_golden_schema_is_what_migration_one_makes() {
        let schema = |sql: &[&str]| -> Vec<String> {
            let conn = Connection::open_in_memory().unwrap();
            sql.iter().for_each(|sql| conn.execute_batch(sql).unwrap());
            let mut found = conn
                .prepare(
                    "SELECT name FROM sqlite_schema WHERE name <> 'schema_version' AND sql IS NOT NULL ORDER BY name",
                )
                .unwrap();
            found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(schema(&[GOLDEN_V1]), schema(&[MIGRATIONS[0]]));
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut conn = Connection::open_in_memory().unwrap();
        run(&mut conn).unwrap();
        run(&mut conn).unwrap();
        let count: i64 = conn.query_row("SELECT COUNT(*) FROM schema_version", [], |r| r.get(0)).unwrap();
        assert_eq!(count, i64::try_from(MIGRATIONS.len()).unwrap());
    }

    #[test]
    fn a_database_from_the_future_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        run(&mut conn).unwrap();
        conn.execute("INSERT INTO schema_version VALUES (99, 0)", []).unwrap();
        assert!(run(&mut conn).unwrap_err().to_string().contains("schema 99"));
    }
}
