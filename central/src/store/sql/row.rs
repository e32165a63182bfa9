//! Between rows and types.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Row, Transaction, Value};
use crate::store::StoreError;

/// A count as the database keeps it; beyond its range the largest.
pub(in crate::store) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count as the database kept it; negative ones, which nobody writes, are 0.
pub(in crate::store) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A column that must not be NULL is.
#[derive(Debug, thiserror::Error)]
#[error("column {0} is NULL")]
struct NullColumn(String);

fn null(column: &str) -> StoreError {
    StoreError::Statement(Box::new(NullColumn(column.into())))
}

/// Reads a text column.
pub(in crate::store) fn text(row: &dyn Row, column: &str) -> Result<String, StoreError> {
    row.text(column)?.map(String::from).ok_or_else(|| null(column))
}

/// Reads an integer column.
pub(super) fn integer(row: &dyn Row, column: &str) -> Result<i64, StoreError> {
    row.integer(column)?.ok_or_else(|| null(column))
}

/// Reads a count column.
pub(super) fn count(row: &dyn Row, column: &str) -> Result<u64, StoreError> {
    integer(row, column).map(uint)
}

/// Reads a count column that fits 32 bits.
pub(super) fn count32(row: &dyn Row, column: &str) -> Result<u32, StoreError> {
    Ok(u32::try_from(count(row, column)?).unwrap_or(u32::MAX))
}

/// Reads a count column that may be empty.
pub(super) fn maybe_count(row: &dyn Row, column: &str) -> Result<Option<u64>, StoreError> {
    Ok(row.integer(column)?.map(uint))
}

/// Reads a text column as an id or name.
pub(super) fn parsed<T>(row: &dyn Row, table: &'static str, column: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    maybe_parsed(row, table, column)?.ok_or_else(|| null(column))
}

/// Reads a text column that may be empty as an id or name.
pub(super) fn maybe_parsed<T>(row: &dyn Row, table: &'static str, column: &str) -> Result<Option<T>, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let parse = |text: &str| text.parse().map_err(|source| StoreError::Corrupt { table, source: Box::new(source) });
    row.text(column)?.map(parse).transpose()
}

/// Reads a text column as a JSON document.
pub(super) fn document<T: DeserializeOwned>(row: &dyn Row, table: &'static str, column: &str) -> Result<T, StoreError> {
    from_json(table, row.text(column)?.ok_or_else(|| null(column))?)
}

/// Reads a JSON document of `table`.
pub(super) fn from_json<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt { table, source: Box::new(source) })
}

/// Writes a JSON document of `table`.
pub(super) fn to_json<T: Serialize>(table: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Corrupt { table, source: Box::new(source) })
}

/// All rows of a query, each through `read`.
pub(in crate::store) fn all<T>(
    tx: &dyn Transaction,
    sql: &str,
    values: &[Value<'_>],
    read: impl Fn(&dyn Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    tx.query(sql, values, &mut |row| {
        found.push(read(row)?);
        Ok(true)
    })?;
    Ok(found)
}

/// The first row of a query, through `read`.
pub(in crate::store) fn first<T>(
    tx: &dyn Transaction,
    sql: &str,
    values: &[Value<'_>],
    read: impl Fn(&dyn Row) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut found = None;
    tx.query(sql, values, &mut |row| {
        found = Some(read(row)?);
        Ok(false)
    })?;
    Ok(found)
}

/// A count column of the first row of a query.
pub(super) fn first_count(
    tx: &dyn Transaction,
    sql: &str,
    values: &[Value<'_>],
    column: &str,
) -> Result<Option<u64>, StoreError> {
    first(tx, sql, values, |row| count(row, column))
}

/// Whether any row answers.
pub(super) fn exists(tx: &dyn Transaction, sql: &str, values: &[Value<'_>]) -> Result<bool, StoreError> {
    first(tx, sql, values, |_| Ok(())).map(|found| found.is_some())
}
