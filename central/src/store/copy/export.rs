//! A database becomes a file.

use std::path::Path;

use super::format::{Header, Line, Writer};
use super::{Copied, CopyError, OnProgress, Stage, rows, tables_of};
use crate::store::StoreError;
use crate::store::sql::{Transaction, migrate};

/// Rows between two words of progress.
const GRAIN: u64 = 512;

pub(super) fn run(tx: &dyn Transaction, out: &Path, on_progress: &OnProgress) -> Result<Copied, CopyError> {
    if !tx.tables()?.iter().any(|table| table == "schema_version") {
        return Err(CopyError::Empty);
    }
    let schema = migrate::version(tx)?;
    if schema > migrate::newest() {
        return Err(StoreError::Newer { found: schema, known: migrate::newest() }.into());
    }
    let mut total = 0;
    for (table, _) in tables_of(schema) {
        total += count(tx, table)?;
    }
    // Another attempt writes the file anew.
    let mut writer = Writer::create(out)?;
    writer.line(&Header::new(schema, total))?;
    let mut done = 0;
    let rows = rows::read_all(tx, schema, &mut |line| {
        done += u64::from(matches!(line, Line::Row(_)));
        if done % GRAIN == 0 {
            on_progress(Stage::Copy, done, total);
        }
        writer.line(line)
    })?;
    writer.finish(rows)?;
    on_progress(Stage::Copy, total, total);
    Ok(Copied { schema, rows: total })
}

fn count(tx: &dyn Transaction, table: &str) -> Result<u64, StoreError> {
    let mut found = 0;
    tx.query(&format!("SELECT COUNT(*) AS rows FROM {table}"), &[], &mut |row| {
        found = row.integer("rows")?.unwrap_or(0);
        Ok(false)
    })?;
    Ok(u64::try_from(found).unwrap_or(0))
}
