//! Versions of the schema.

use super::super::super::*;
use super::server::{Server, name_of};
use super::*;

/// A database of version 1 as `pg_dump --inserts` wrote it.
const GOLDEN_V1: &str = include_str!("../../golden/v1.postgres.sql");

/// Every column, index and constraint, as PostgreSQL describes them.
fn schema(url: &str) -> String {
    let columns = "SELECT table_name, column_name, data_type, is_nullable, collation_name \
                   FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2;";
    let indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1;";
    let constraints = "SELECT conrelid::regclass::text COLLATE \"C\", pg_get_constraintdef(oid) FROM pg_constraint \
                       WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2;";
    Server::shared().run(name_of(url), &format!("{columns}{indexes}{constraints}"))
}

fn golden() -> String {
    let url = Server::shared().database();
    Server::shared().run(name_of(&url), GOLDEN_V1);
    url
}

#[tokio::test]
async fn an_old_database_is_brought_up_to_date_with_its_rows() {
    let url = golden();
    let store = open_at(&url, Arc::new(Recorder::default())).await;
    let own = store.tenant(&"default".parse().unwrap());
    let sandboxes = own.sandboxes(SandboxFilter::default(), 10).await.unwrap();
    assert_eq!(sandboxes[0].name.as_ref().map(|n| n.as_str()), Some("first"));
    assert_eq!(own.templates().await.unwrap().len(), 1);
    assert_eq!(own.nodes().await.unwrap()[0].sandboxes, 1);
}

#[tokio::test]
async fn a_migrated_schema_is_the_same_as_a_new_one() {
    let (old, new) = (golden(), Server::shared().database());
    for url in [&old, &new] {
        open_at(url, Arc::new(Recorder::default())).await;
    }
    assert!(schema(&new).contains("sandboxes_by_node"), "{}", schema(&new));
    assert_eq!(schema(&old), schema(&new));
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    let url = Server::shared().database();
    let opening = (0..4).map(|_| open_at(&url, Arc::new(Recorder::default())));
    let stores = futures::future::join_all(opening).await;
    assert_eq!(stores.len(), 4);
    let versions = Server::shared().run(name_of(&url), "SELECT COUNT(*), MAX(version) FROM schema_version");
    let newest = crate::store::sql::migrate::newest();
    assert_eq!(versions, format!("{newest}|{newest}"));
}

#[tokio::test]
async fn a_database_from_the_future_is_refused_with_the_next_step() {
    let url = Server::shared().database();
    open_at(&url, Arc::new(Recorder::default())).await;
    Server::shared().run(name_of(&url), "INSERT INTO schema_version VALUES (99, 0)");
    let refused = open(&config(&url), Arc::new(Recorder::default()), StoreMetrics::default()).await.unwrap_err();
    assert!(refused.to_string().contains("schema 99") && refused.to_string().contains("newer central"), "{refused}");
}

#[tokio::test]
async fn a_name_is_sorted_by_its_bytes_whatever_the_language_of_the_server() {
    let bench = bench().await;
    for name in ["b", "a-b", "aa", "a0"] {
        let profile =
            roost_proto::model::Profile { name: name.parse().unwrap(), ..crate::store::conformance::profile() };
        bench.own().put_profile(profile).await.unwrap();
    }
    let names: Vec<_> = bench.own().profiles().await.unwrap().into_iter().map(|p| p.name.to_string()).collect();
    assert_eq!(names, ["a-b", "a0", "aa", "b", "p"]);
}
