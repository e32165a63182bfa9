//! The store in SQL: every statement once, for every engine.
//!
//! The files of the nouns speak to a [`Transaction`] and know no engine; a
//! driver (`store/sqlite.rs`, `store/postgres.rs`) runs [`Job`]s from a bounded
//! queue in transactions of its engine.
//!
//! What both engines take alike: `$n` placeholders (in SQLite these are named,
//! so their first occurrences must rise), TEXT and BIGINT, times as Unix
//! milliseconds, documents as JSON text, RETURNING and ON CONFLICT. A
//! placeholder in arithmetic needs a CAST, else PostgreSQL takes it for a
//! 32-bit number.

mod call;
pub(in crate::store) mod check;
mod claim;
mod heartbeat;
mod internal;
mod keyed;
pub(in crate::store) mod migrate;
mod node;
pub(in crate::store) mod orphan;
mod pool;
mod resources;
pub(in crate::store) mod row;
mod sandbox;
mod store;
mod template;
mod timing;
mod token;
mod wish;

use std::borrow::Cow;

pub(in crate::store) use call::{Call, Job, Mode, QUEUE_DEPTH, Queues};
pub use store::SqlStore;

use super::StoreError;

/// An open transaction. Everything it does stands or falls with its commit,
/// which is the driver's alone.
pub(in crate::store) trait Transaction {
    /// Runs a statement that returns no row; how many rows it changed.
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError>;
    /// Runs a query and shows each row to `each`, until that says false.
    fn query(&self, sql: &str, values: &[Value<'_>], each: &mut Visit<'_>) -> Result<(), StoreError>;
    /// Runs statements without values, separated by semicolons: for schemas.
    fn script(&self, sql: &str) -> Result<(), StoreError>;
    /// Names of the tables that there are.
    fn tables(&self) -> Result<Vec<String>, StoreError>;
    /// Columns of a table; none where it does not exist.
    fn columns(&self, table: &str) -> Result<Vec<Column>, StoreError>;
    /// Keeps every central from serving until the end of the transaction; false
    /// where one serves already. Engines that have a file lock that instead.
    fn lock_out(&self) -> Result<bool, StoreError>;
    /// What the engine itself finds broken.
    fn damage(&self) -> Result<Vec<String>, StoreError>;
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Column {
    /// Its name.
    pub(in crate::store) name: String,
    /// True for TEXT, false for BIGINT.
    pub(in crate::store) is_text: bool,
}

/// Looks at one row; false = enough.
pub(in crate::store) type Visit<'a> = dyn FnMut(&dyn Row) -> Result<bool, StoreError> + 'a;

/// One row of an answer.
pub(in crate::store) trait Row {
    /// A text column; none = NULL.
    fn text(&self, column: &str) -> Result<Option<&str>, StoreError>;
    /// An integer column; none = NULL.
    fn integer(&self, column: &str) -> Result<Option<i64>, StoreError>;
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Value<'a> {
    /// No value.
    Null,
    /// For a BIGINT.
    Integer(i64),
    /// For a TEXT.
    Text(Cow<'a, str>),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value.into())
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Values for the placeholders of a statement, in their order.
macro_rules! values {
    ($($value:expr),+ $(,)?) => {
        &[$($crate::store::sql::Value::from($value)),+]
    };
}
use values;
