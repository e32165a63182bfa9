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

use super::sql::{Mode, Transaction};
use super::{Change, Database, StoreError};

/// Every table and the order of its rows, parents before children.
pub(super) const TABLES: [(&str, &str); 9] = [
    ("tenants", "id"),
    ("api_tokens", "id"),
    ("join_tokens", "id"),
    ("profiles", "tenant_id, name"),
    ("templates", "tenant_id, name"),
    ("nodes", "id"),
    ("node_images", "node_id, reference"),
    ("sandboxes", "id"),
    ("idempotency_keys", "tenant_id, idempotency_key"),
];

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
}

/// Hears of the progress: the stage, rows done, rows in all.
pub type OnProgress = Arc<dyn Fn(Stage, u64, u64) + Send + Sync>;

impl Database {
    /// Writes the whole database to a new file, mode 0600: it holds the hashes
    /// of tokens and the environment of sandboxes.
    ///
    /// # Errors
    /// See [`CopyError`]; then there is no file.
    pub async fn export(&self, out: &Path, on_progress: OnProgress) -> Result<Copied, CopyError> {
        let (queues, out, cleared) = (self.open_as_it_is(false)?, out.to_owned(), format::partial(out));
        if out.exists() {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(CopyError::File { operation: "create", path: out, source });
        }
        let work = move |tx: &dyn Transaction, _: &mut Vec<Change>| export::run(tx, &out, &on_progress);
        let copied = queues.call("export", Mode::ReadLong, work).await;
        if copied.is_err() {
            // Where it was never made there is nothing to remove.
            drop(std::fs::remove_file(cleared));
        }
        copied
    }

    /// Fills an empty database from a file and brings its schema up to date.
    /// With `force` the target may hold what a first start makes, which is
    /// replaced; never nodes or sandboxes.
    ///
    /// # Errors
    /// See [`CopyError`]; then the database is as it was.
    pub async fn import(&self, file: &Path, force: bool, on_progress: OnProgress) -> Result<Copied, CopyError> {
        let (queues, file) = (self.open_as_it_is(true)?, file.to_owned());
        let work = move |tx: &dyn Transaction, _: &mut Vec<Change>| import::run(tx, &file, force, &on_progress);
        queues.call("import", Mode::Alone, work).await
    }
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
