//! A transaction of PostgreSQL.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use tokio_postgres::{Client, Statement};

use super::SERVING_LOCK;
use crate::store::StoreError;
use crate::store::sql::row::{all, first, text};
use crate::store::sql::{Column, Row, Transaction, Value, Visit};

/// No answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0} ms")]
struct NoAnswer(u128);

/// What a failed statement means for its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It gave way to another transaction: the next attempt sees what that did.
    Conflict,
    /// The connection is lost.
    Lost,
    /// The statement is refused.
    Refused,
}

/// Reads what an error of the engine means.
pub(super) fn fault_of(error: &tokio_postgres::Error) -> Fault {
    let Some(code) = error.code() else {
        let is_encoding = error.source().is_some_and(|source| source.is::<WrongType>());
        return if is_encoding { Fault::Refused } else { Fault::Lost };
    };
    // A unique key that another transaction inserted meanwhile: the next
    // attempt finds its row.
    let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION];
    // Class 08 is the connection, 57P0x the shutdown of the server; a primary
    // that became a standby is one to leave.
    let is_lost = code.code().starts_with("08")
        || code.code().starts_with("57P")
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
    if conflicts.contains(code) {
        Fault::Conflict
    } else if is_lost {
        Fault::Lost
    } else {
        Fault::Refused
    }
}

/// A connection and what it has prepared.
pub(super) struct Session {
    pub(super) client: Client,
    /// Every statement of the store is one of a few dozen texts.
    prepared: RefCell<HashMap<String, Statement>>,
}

impl Session {
    pub(super) fn new(client: Client) -> Self {
        Self { client, prepared: RefCell::default() }
    }

    async fn prepare(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        let held = self.prepared.borrow().get(sql).cloned();
        if let Some(statement) = held {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.borrow_mut().insert(sql.into(), statement.clone());
        Ok(statement)
    }
}

/// A transaction that is open on a session; who opened it ends it.
pub(super) struct PostgresTransaction<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) session: &'a Session,
    pub(super) patience: Duration,
    /// The first failure: after it the transaction can only be rolled back.
    pub(super) fault: Cell<Option<Fault>>,
}

impl PostgresTransaction<'_> {
    /// Waits for the engine, and notes what a failure means.
    pub(super) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        let timed = async { tokio::time::timeout(self.patience, work).await };
        match self.runtime.block_on(timed) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let fault = fault_of(&error);
                self.note(fault);
                Err(match fault {
                    Fault::Lost => StoreError::Unavailable(Box::new(error)),
                    Fault::Conflict => StoreError::Busy,
                    Fault::Refused if error.code() == Some(&SqlState::QUERY_CANCELED) => StoreError::Busy,
                    Fault::Refused => StoreError::Statement(Box::new(error)),
                })
            }
            Err(_) => {
                self.note(Fault::Lost);
                Err(StoreError::Unavailable(Box::new(NoAnswer(self.patience.as_millis()))))
            }
        }
    }

    fn note(&self, fault: Fault) {
        self.fault.set(self.fault.get().or(Some(fault)));
    }
}

/// A list of values as the engine takes it.
fn params<'a>(values: &'a [Value<'_>]) -> impl ExactSizeIterator<Item = &'a dyn ToSql> {
    values.iter().map(|value| value as &dyn ToSql)
}

impl Transaction for PostgresTransaction<'_> {
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        self.wait(async {
            let statement = self.session.prepare(sql).await?;
            self.session.client.execute_raw(&statement, params(values)).await
        })
    }

    fn query(&self, sql: &str, values: &[Value<'_>], each: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut rows = pin!(self.wait(async {
            let statement = self.session.prepare(sql).await?;
            self.session.client.query_raw(&statement, params(values)).await
        })?);
        // Row by row: a long list is never in memory as a whole.
        while let Some(row) = self.wait(rows.try_next())? {
            if !each(&row)? {
                break;
            }
        }
        Ok(())
    }

    fn script(&self, sql: &str) -> Result<(), StoreError> {
        self.wait(self.session.client.batch_execute(&bytewise(sql)))
    }

    fn tables(&self) -> Result<Vec<String>, StoreError> {
        let sql =
            "SELECT CAST(tablename AS TEXT) AS name FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1";
        all(self, sql, &[], |row| text(row, "name"))
    }

    fn columns(&self, table: &str) -> Result<Vec<Column>, StoreError> {
        let sql = "SELECT CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS type \
                   FROM information_schema.columns \
                   WHERE table_schema = current_schema() AND CAST(table_name AS TEXT) = $1";
        all(self, sql, &[table.into()], |row| {
            Ok(Column { name: text(row, "name")?, is_text: text(row, "type")? == "text" })
        })
    }

    fn lock_out(&self) -> Result<bool, StoreError> {
        let sql = "SELECT CASE WHEN pg_try_advisory_xact_lock($1) THEN 1 ELSE 0 END AS is_ours";
        Ok(first(self, sql, &[SERVING_LOCK.into()], |row| row.integer("is_ours"))?.flatten() == Some(1))
    }

    fn damage(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT CAST(conname AS TEXT) AS name FROM pg_constraint \
                   WHERE connamespace = CAST(current_schema() AS regnamespace) AND NOT convalidated";
        all(self, sql, &[], |row| Ok(format!("the constraint {} was never validated", text(row, "name")?)))
    }
}

/// Text is compared byte by byte, as SQLite does: an order that follows a
/// language differs from host to host.
fn bytewise(schema: &str) -> String {
    schema.replace(" TEXT", " TEXT COLLATE \"C\"")
}

impl Row for tokio_postgres::Row {
    fn text(&self, column: &str) -> Result<Option<&str>, StoreError> {
        self.try_get(column).map_err(|error| StoreError::Statement(Box::new(error)))
    }

    fn integer(&self, column: &str) -> Result<Option<i64>, StoreError> {
        let is_short = self.columns().iter().any(|c| c.name() == column && *c.type_() == Type::INT4);
        let value = if is_short {
            self.try_get::<_, Option<i32>>(column).map(|value| value.map(i64::from))
        } else {
            self.try_get(column)
        };
        value.map_err(|error| StoreError::Statement(Box::new(error)))
    }
}

/// A value that does not fit what the statement takes.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} does not fit a placeholder of type {1}")]
struct WrongType(&'static str, Type);

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(value) if *kind == Type::INT8 => value.to_sql(kind, out),
            Self::Integer(value) if *kind == Type::INT4 => i32::try_from(*value)?.to_sql(kind, out),
            Self::Text(text) if *kind == Type::TEXT => text.as_ref().to_sql(kind, out),
            Self::Integer(_) => Err(Box::new(WrongType("an integer", kind.clone()))),
            Self::Text(_) => Err(Box::new(WrongType("a text", kind.clone()))),
        }
    }

    fn accepts(_: &Type) -> bool {
        // What fits depends on the value: `to_sql` looks.
        true
    }

    to_sql_checked!();
}
