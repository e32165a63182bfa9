//! A transaction of SQLite.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, params_from_iter};

use crate::store::StoreError;
use crate::store::sql::row::{all, text};
use crate::store::sql::{Column, Row, Transaction, Value, Visit};

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Statement(Box::new(source)),
        }
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The connection that a transaction is open on.
pub(super) struct SqliteTransaction<'a>(pub(super) &'a Connection);

impl Transaction for SqliteTransaction<'_> {
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let changed = self.0.prepare_cached(sql)?.execute(params_from_iter(values))?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    fn query(&self, sql: &str, values: &[Value<'_>], each: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            if !each(row)? {
                break;
            }
        }
        Ok(())
    }

    fn script(&self, sql: &str) -> Result<(), StoreError> {
        Ok(self.0.execute_batch(sql)?)
    }

    fn tables(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
        all(self, sql, &[], |row| text(row, "name"))
    }

    fn columns(&self, table: &str) -> Result<Vec<Column>, StoreError> {
        let sql = "SELECT name, type FROM pragma_table_info($1)";
        all(self, sql, &[table.into()], |row| {
            Ok(Column { name: text(row, "name")?, is_text: text(row, "type")? == "TEXT" })
        })
    }

    fn lock_out(&self) -> Result<bool, StoreError> {
        // `sqlite::lock_out` has done it.
        Ok(true)
    }

    fn damage(&self) -> Result<Vec<String>, StoreError> {
        let found = all(self, "PRAGMA integrity_check", &[], |row| text(row, "integrity_check"))?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }
}

impl Row for rusqlite::Row<'_> {
    fn text(&self, column: &str) -> Result<Option<&str>, StoreError> {
        let value = self.get_ref(column)?;
        value.as_str_or_null().map_err(|source| StoreError::Statement(Box::new(source)))
    }

    fn integer(&self, column: &str) -> Result<Option<i64>, StoreError> {
        Ok(self.get(column)?)
    }
}
