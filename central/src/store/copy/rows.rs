//! Rows of any table, out and in.

use std::collections::BTreeMap;

use super::format::{Cell, Line, Table};
use super::{CopyError, tables_of};
use crate::store::StoreError;
use crate::store::sql::{Column, Row, Transaction, Value};

/// Most rows of one statement, and most values: SQLite takes 32 766.
const ROWS_MAX: usize = 128;
const VALUES_MAX: usize = 8_192;

/// The columns of a table, by name: their order differs between engines.
pub(super) fn columns(tx: &dyn Transaction, table: &str) -> Result<Vec<Column>, StoreError> {
    let mut columns = tx.columns(table)?;
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(columns)
}

fn cell(row: &dyn Row, column: &Column) -> Result<Cell, StoreError> {
    Ok(if column.is_text {
        row.text(&column.name)?.map_or(Cell::Null, |text| Cell::Text(text.into()))
    } else {
        row.integer(&column.name)?.map_or(Cell::Null, Cell::Integer)
    })
}

/// Shows every table and row, in an order that is the same in every engine;
/// how many rows each table has.
pub(super) fn read_all(
    tx: &dyn Transaction,
    schema: i64,
    each: &mut dyn FnMut(&Line) -> Result<(), CopyError>,
) -> Result<BTreeMap<String, u64>, CopyError> {
    let mut rows = BTreeMap::new();
    for &(table, order) in tables_of(schema) {
        let columns = columns(tx, table)?;
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let sql = format!("SELECT {} FROM {table} ORDER BY {order}", names.join(", "));
        each(&Line::Table(Table { table: table.into(), columns: names }))?;
        let (mut count, mut failed) = (0, None);
        tx.query(&sql, &[], &mut |row| {
            let cells = columns.iter().map(|column| cell(row, column)).collect::<Result<_, _>>()?;
            count += 1;
            failed = each(&Line::Row(cells)).err();
            Ok(failed.is_none())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        rows.insert(table.to_owned(), count);
    }
    Ok(rows)
}

/// Rows on their way into one table.
pub(super) struct Inserter<'a> {
    tx: &'a dyn Transaction,
    table: Table,
    waiting: Vec<Cell>,
    rows_max: usize,
}

impl<'a> Inserter<'a> {
    /// For a table whose columns are known to exist.
    pub(super) fn new(tx: &'a dyn Transaction, table: Table) -> Self {
        let rows_max = (VALUES_MAX / table.columns.len().max(1)).clamp(1, ROWS_MAX);
        Self { tx, table, waiting: Vec::new(), rows_max }
    }

    /// Name of the table, and how many values a row has.
    pub(super) fn table(&self) -> (&str, usize) {
        (&self.table.table, self.table.columns.len())
    }

    /// Adds a row of as many values as there are columns.
    pub(super) fn add(&mut self, row: Vec<Cell>) -> Result<(), StoreError> {
        self.waiting.extend(row);
        if self.waiting.len() >= self.rows_max * self.table.columns.len() { self.flush() } else { Ok(()) }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        let width = self.table.columns.len();
        if self.waiting.is_empty() {
            return Ok(());
        }
        let row = |first: usize| {
            format!("({})", (first..first + width).map(|n| format!("${n}")).collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<String> = (0..self.waiting.len() / width).map(|n| row(n * width + 1)).collect();
        let Table { table, columns } = &self.table;
        let sql = format!("INSERT INTO {table} ({}) VALUES {}", columns.join(", "), rows.join(", "));
        let values: Vec<Value<'_>> = self.waiting.iter().map(value).collect();
        self.tx.execute(&sql, &values)?;
        self.waiting.clear();
        Ok(())
    }
}

fn value(cell: &Cell) -> Value<'_> {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(value) => Value::Integer(*value),
        Cell::Text(text) => Value::from(text),
    }
}
