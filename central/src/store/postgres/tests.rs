//! What only PostgreSQL has, on a private server.

#[path = "../../../tests/support/postgres.rs"]
#[allow(dead_code, reason = "shared with the tests of the whole central")]
pub(crate) mod server;

mod faults;
mod proxy;
mod replicas;
mod schema;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use super::super::conformance::{Bench, Recorder};
use super::*;
use server::Server;

/// A configuration for a database of the shared server.
pub(in crate::store) fn config(url: &str) -> PostgresConfig {
    PostgresConfig {
        url: url.into(),
        password_file: None,
        sslmode: SslMode::Disable,
        ca_file: None,
        pool_size: 4,
        connect_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_secs(20),
    }
}

async fn open_at(url: &str, sink: Arc<dyn ChangeSink>) -> SqlStore {
    open(&config(url), sink, StoreMetrics::default()).await.unwrap()
}

/// A fresh store for the conformance suite.
pub(in crate::store) async fn bench() -> Bench {
    let changes = Arc::new(Recorder::default());
    let store = open_at(&Server::shared().database(), changes.clone()).await;
    Bench::new(Arc::new(store), changes, None).await
}
