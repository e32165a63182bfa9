//! A file becomes a database.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::format::{Line, Reader, Table, bytes_of, hex};
use super::rows::{self, Inserter};
use super::{Copied, CopyError, OnProgress, Stage, TABLES, has_rows};
use crate::clock;
use crate::store::StoreError;
use crate::store::sql::{Transaction, migrate, orphan};

/// Rows between two words of progress.
const GRAIN: u64 = 512;

pub(super) fn run(
    tx: &dyn Transaction,
    file: &Path,
    force: bool,
    on_progress: &OnProgress,
) -> Result<Copied, CopyError> {
    let (mut reader, header) = Reader::open(file)?;
    if header.schema > migrate::newest() {
        return Err(StoreError::Newer { found: header.schema, known: migrate::newest() }.into());
    }
    make_room(tx, force)?;
    // The schema of the file first: its rows go through the same migrations as
    // those of a database of that time.
    migrate::run_to(tx, header.schema)?;
    fill(tx, &mut reader, |done| on_progress(Stage::Copy, done, header.rows))?;
    let mut digest = Sha256::new();
    let mut done = 0;
    rows::read_all(tx, header.schema, &mut |line| {
        digest.update(bytes_of(line)?);
        done += u64::from(matches!(line, Line::Row(_)));
        if done % GRAIN == 0 {
            on_progress(Stage::Verify, done, header.rows);
        }
        Ok(())
    })?;
    if hex(digest) != reader.content() {
        return Err(CopyError::Differs);
    }
    migrate::run(tx)?;
    // Whatever happened since the export is not in it.
    orphan::mark(tx, clock::now_unix_ms())?;
    on_progress(Stage::Verify, header.rows, header.rows);
    Ok(Copied { schema: header.schema, rows: header.rows })
}

/// Removes an empty schema, or with `force` what a first start has made.
fn make_room(tx: &dyn Transaction, force: bool) -> Result<(), CopyError> {
    let present = tx.tables()?;
    let is_present = |table: &str| present.iter().any(|name| name == table);
    let mut filled = Vec::new();
    for (table, _) in TABLES.into_iter().filter(|(table, _)| is_present(table)) {
        if has_rows(tx, table)? {
            filled.push(table);
        }
    }
    if let Some(table) = filled.iter().find(|table| ["nodes", "sandboxes"].contains(table)) {
        return Err(CopyError::NotEmpty(format!("the database holds {table}: import into an empty one")));
    }
    if !filled.is_empty() && !force {
        let detail = "the database is in use, without nodes and sandboxes: --force replaces what a first start made \
                      (tokens, templates, profiles), or import into an empty one";
        return Err(CopyError::NotEmpty(detail.into()));
    }
    let ours = TABLES.iter().rev().map(|(table, _)| *table).chain(["schema_version"]);
    let drops: String = ours.filter(|table| is_present(table)).map(|table| format!("DROP TABLE {table};")).collect();
    if drops.is_empty() { Ok(()) } else { Ok(tx.script(&drops)?) }
}

fn fill(tx: &dyn Transaction, reader: &mut Reader, on_row: impl Fn(u64)) -> Result<(), CopyError> {
    let mut counts = BTreeMap::new();
    let mut inserter: Option<Inserter<'_>> = None;
    let mut done = 0;
    while let Some(line) = reader.next(&counts)? {
        match (line, &mut inserter) {
            (Line::Table(table), _) => {
                if let Some(last) = &mut inserter {
                    last.flush()?;
                }
                check(tx, reader, &table, counts.len())?;
                counts.insert(table.table.clone(), 0);
                inserter = Some(Inserter::new(tx, table));
            }
            (Line::Row(row), Some(inserter)) => {
                let (table, width) = inserter.table();
                if row.len() != width {
                    return Err(reader.fault(format!("has {} values for {width} columns", row.len())));
                }
                *counts.entry(table.to_owned()).or_default() += 1;
                inserter.add(row)?;
                done += 1;
                if done % GRAIN == 0 {
                    on_row(done);
                }
            }
            _ => return Err(reader.fault("is a row without a table")),
        }
    }
    inserter.map_or(Ok(()), |mut last| Ok(last.flush()?))
}

/// Names in the file become SQL: only those that the schema has.
fn check(tx: &dyn Transaction, reader: &Reader, table: &Table, place: usize) -> Result<(), CopyError> {
    if TABLES.get(place).is_none_or(|(name, _)| *name != table.table) {
        return Err(reader.fault(format!("begins the table {}, which does not belong there", table.table)));
    }
    let known: Vec<String> = rows::columns(tx, &table.table)?.into_iter().map(|column| column.name).collect();
    if known != table.columns {
        return Err(reader.fault(format!("names other columns of {} than its schema has", table.table)));
    }
    Ok(())
}
