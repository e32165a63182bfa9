//! Between rows and types.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::StoreError;
use crate::store::error::{
    CreateSandboxError, DeleteNodeError, DeleteProfileError, EnrolError, PutTemplateError, SetRunStateError,
};

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Statement(Box::new(source))
    }
}

/// Lets `?` turn an engine error into each of these.
macro_rules! from_engine {
    ($($error:ty),*) => {$(
        impl From<rusqlite::Error> for $error {
            fn from(source: rusqlite::Error) -> Self {
                StoreError::from(source).into()
            }
        }
    )*};
}
from_engine!(CreateSandboxError, SetRunStateError, PutTemplateError, DeleteProfileError, DeleteNodeError, EnrolError);

/// A count as the database keeps it; beyond its range the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count as the database kept it; negative ones, which nobody writes, are 0.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Reads a count column.
pub(super) fn count(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    Ok(uint(row.get(column)?))
}

/// Reads a count column that fits 32 bits.
pub(super) fn count32(row: &Row<'_>, column: &str) -> Result<u32, StoreError> {
    Ok(u32::try_from(count(row, column)?).unwrap_or(u32::MAX))
}

/// Reads a count column that may be empty.
pub(super) fn maybe_count(row: &Row<'_>, column: &str) -> Result<Option<u64>, StoreError> {
    Ok(row.get::<_, Option<i64>>(column)?.map(uint))
}

/// Reads a text column as an id or name.
pub(super) fn parsed<T>(row: &Row<'_>, table: &'static str, column: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|source: T::Err| StoreError::Corrupt { table, source: Box::new(source) })
}

/// Reads a text column as a JSON document.
pub(super) fn document<T: DeserializeOwned>(row: &Row<'_>, table: &'static str, column: &str) -> Result<T, StoreError> {
    let text: String = row.get(column)?;
    from_json(table, &text)
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
pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The first row of a query, through `read`.
pub(super) fn first<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

/// One value of the first row of a query.
pub(super) fn value<T: FromSql>(conn: &Connection, sql: &str, params: impl Params) -> Result<Option<T>, StoreError> {
    first(conn, sql, params, |row| Ok(row.get(0)?))
}

/// Runs a statement that returns no row; how many rows it changed.
pub(super) fn execute(conn: &Connection, sql: &str, params: impl Params) -> Result<usize, StoreError> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

/// Whether any row answers.
pub(super) fn exists(conn: &Connection, sql: &str, params: impl Params) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached(sql)?.exists(params)?)
}
