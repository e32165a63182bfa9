//! A database as a file, and back: between SQLite and PostgreSQL, and for
//! backups.
//!
//! The file is zstd over JSON lines: a header with the version of the schema,
//! each table with its columns and then its rows, and an end with the number of
//! rows and the SHA-256 of all lines before it. An export is one consistent
//! state beside a running central; an import is one transaction that reads back
//! what it wrote before it commits.

mod export;
mod format;
mod import;
mod rows;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::sql::{Mode, Transaction, migrate, orphan};
use super::{Change, Database, StoreError, sqlite};

/// Every table and the order of its rows, parents before children; newer ones
/// come last, as an export of an older schema has none of them.
pub(super) const TABLES: [(&str, &str); 13] = [
    ("tenants", "id"),
    ("api_tokens", "id"),
    ("join_tokens", "id"),
    ("profiles", "tenant_id, name"),
    ("templates", "tenant_id, name"),
    ("nodes", "id"),
    ("node_images", "node_id, reference"),
    ("sandboxes", "id"),
    ("idempotency_keys", "tenant_id, idempotency_key"),
    ("pools", "tenant_id, name"),
    ("node_pools", "node_id, name"),
    ("claims", "id"),
    ("endings", "id"),
];

/// Versions of the schema that brought tables, and how many there were before
/// each: pools, endings.
const TABLES_BEFORE: [(i64, usize); 2] = [(6, 9), (7, 12)];

/// The tables that a version of the schema has, parents before children.
pub(super) fn tables_of(schema: i64) -> &'static [(&'static str, &'static str)] {
    let before = TABLES_BEFORE.iter().find(|(version, _)| schema < *version);
    TABLES.split_at(before.map_or(TABLES.len(), |(_, tables)| *tables)).0
}

/// How often, and how long apart, the lock of those that serve is tried: a
/// server takes a moment to see that a connection has ended.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// Why a database is not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file cannot be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// "create", "read" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A line of the file is not what it must be.
    #[error("line {number} of the file {problem}: is it an export of roost-central store export?")]
    Line {
        /// Counted from 1.
        number: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The file was cut or changed.
    #[error("the file is damaged: it {0}")]
    Damaged(&'static str),
    /// There is something in the target.
    #[error("{0}")]
    NotEmpty(String),
    /// There is no schema in the source.
    #[error("the database is empty: there is nothing to export")]
    Empty,
    /// A replica of central serves on the target, or another import goes on.
    #[error("a running central or another import uses the database: stop every replica first")]
    InUse,
    /// The CA that belongs to the database cannot be put in its place.
    #[error("the CA of the backup cannot be put in its place: nothing was restored")]
    Ca(#[from] crate::ca::CaError),
    /// What was read back is not what was written.
    #[error("the database does not give back what was written to it: nothing was imported")]
    Differs,
    /// The database failed.
    #[error("the database cannot be copied")]
    Store(#[from] StoreError),
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Version of the schema in the file.
    pub schema: i64,
    /// Rows of all tables.
    pub rows: u64,
}

/// What a copy does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Rows are read and written.
    Copy,
    /// Rows are read back.
    Verify,
    /// Bytes of an export go into a backup.
    Pack,
    /// Bytes of an export come out of a backup.
    Unpack,
}

/// Hears of the progress: the stage, rows or bytes done, and in all.
pub type OnProgress = Arc<dyn Fn(Stage, u64, u64) + Send + Sync>;

impl Database {
    /// Writes the whole database to a new file, mode 0600: it holds the hashes
    /// of tokens and the environment of sandboxes.
    ///
    /// # Errors
    /// See [`CopyError`]; then there is no file.
    pub async fn export(&self, out: &Path, on_progress: OnProgress) -> Result<Copied, CopyError> {
        let (queues, out) = (self.open_as_it_is(false)?, out.to_owned());
        let work = move |tx: &dyn Transaction, _: &mut Vec<Change>| export::run(tx, &out, &on_progress);
        queues.call("export", Mode::ReadLong, work).await
    }

    /// Fills an empty database from a file and brings its schema up to date.
    /// With `force` the target may hold what a first start makes, which is
    /// replaced; never nodes or sandboxes. Every node is compared with it
    /// before it is told anything: see [`crate::store::SystemStore::settle`].
    ///
    /// # Errors
    /// See [`CopyError`]; then the database is as it was.
    pub async fn import(&self, file: &Path, force: bool, on_progress: OnProgress) -> Result<Copied, CopyError> {
        self.import_with(file, force, on_progress, || Ok(())).await
    }

    /// The same; `beside` does what must stand or fall with the import. It may
    /// be called again, and the database is as it was when it fails.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub async fn import_with(
        &self,
        file: &Path,
        force: bool,
        on_progress: OnProgress,
        mut beside: impl FnMut() -> Result<(), CopyError> + Send + 'static,
    ) -> Result<Copied, CopyError> {
        let _alone = match self {
            Self::Sqlite(config) => Some(sqlite::lock_out(config)?.ok_or(CopyError::InUse)?),
            Self::Postgres(_) => None,
        };
        let (queues, file) = (self.open_as_it_is(true)?, file.to_owned());
        let work = move |tx: &dyn Transaction, _: &mut Vec<Change>| {
            lock_out(tx)?;
            let copied = import::run(tx, &file, force, &on_progress)?;
            beside()?;
            Ok(copied)
        };
        queues.call("import", Mode::Alone, work).await
    }

    /// Notes that other tools have brought the database back to an earlier
    /// moment; how many nodes will be compared with it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn mark_restored(&self) -> Result<u64, StoreError> {
        let work = |tx: &dyn Transaction, _: &mut Vec<Change>| {
            migrate::run(tx)?;
            orphan::mark(tx, crate::clock::now_unix_ms())
        };
        self.open_as_it_is(false)?.call("mark_restored", Mode::Alone, work).await
    }
}

/// Makes sure that no central serves; waits a moment for one that has just
/// ended.
fn lock_out(tx: &dyn Transaction) -> Result<(), CopyError> {
    for _ in 0..LOCK_TRIES {
        if tx.lock_out()? {
            return Ok(());
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(CopyError::InUse)
}

/// Whether a table holds any row.
fn has_rows(tx: &dyn Transaction, table: &str) -> Result<bool, StoreError> {
    let mut found = false;
    tx.query(&format!("SELECT 1 FROM {table} LIMIT 1"), &[], &mut |_| {
        found = true;
        Ok(false)
    })?;
    Ok(found)
}
