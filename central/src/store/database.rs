//! Which engine, and where.

use std::sync::Arc;

use super::postgres::{self, PostgresConfig};
use super::sql::Queues;
use super::sqlite::{self, SqliteConfig};
use super::{Change, ChangeSink, Store, StoreError};
use crate::metrics::StoreMetrics;

/// A database that central can keep its state in.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file.
    Sqlite(SqliteConfig),
    /// A server.
    Postgres(PostgresConfig),
}

impl Database {
    /// Opens it and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Unavailable`], [`StoreError::Busy`]
    /// and [`StoreError::Newer`].
    pub async fn open(&self, sink: Arc<dyn ChangeSink>, metrics: StoreMetrics) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::Sqlite(config) => Arc::new(sqlite::open(config, sink, metrics)?),
            Self::Postgres(config) => Arc::new(postgres::open(config, sink, metrics).await?),
        })
    }
}

/// Nobody follows the changes of a copy.
#[derive(Debug)]
struct Nobody;

impl ChangeSink for Nobody {
    fn committed(&self, _: Vec<Change>) {}

    fn gap(&self) {}
}

impl Database {
    /// Opens it without a look at its schema.
    pub(super) fn open_as_it_is(&self, may_create: bool) -> Result<Queues, StoreError> {
        let (sink, metrics): (Arc<dyn ChangeSink>, _) = (Arc::new(Nobody), StoreMetrics::default());
        match self {
            Self::Sqlite(config) => sqlite::start(config, sink, metrics, may_create),
            Self::Postgres(config) => {
                postgres::start(&PostgresConfig { pool_size: 1, ..config.clone() }, &sink, metrics)
            }
        }
    }
}

impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(config) => write!(f, "sqlite:{}", config.path.display()),
            Self::Postgres(config) => f.write_str(&config.url),
        }
    }
}
