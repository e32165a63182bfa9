//! What only SQLite has: a file, other processes, golden databases.

use roost_proto::id::TenantId;

use super::super::conformance::{Bench, Recorder};
use super::super::*;
use super::*;

/// A fresh store for the conformance suite.
pub(in crate::store) async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let changes = Arc::new(Recorder::default());
    let store = open(dir.path(), changes.clone());
    Bench::new(Arc::new(store), changes, Some(dir)).await
}

fn config(dir: &Path) -> SqliteConfig {
    SqliteConfig { path: dir.join("central.db"), busy_timeout: Duration::from_millis(200) }
}

fn open(dir: &Path, changes: Arc<Recorder>) -> SqlStore {
    super::open(&config(dir), changes, StoreMetrics::default()).unwrap()
}

#[tokio::test]
async fn two_processes_share_a_file_and_only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (open(dir.path(), Arc::default()), open(dir.path(), Arc::default()));
    let tenant: TenantId = "default".parse().unwrap();
    first.system().ensure_tenant(tenant.clone(), 1).await.unwrap();
    let secret = crate::secret::Secret::random("rat");
    second.tenant(&tenant).replace_admin_token(secret.hash(), 1, 0).await.unwrap();
    assert_eq!(first.system().find_api_token(secret.hash(), 1).await.unwrap(), Some(tenant));
    let mode = std::fs::metadata(dir.path().join("central.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn another_process_that_writes_for_long_makes_a_call_busy_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Arc::default());
    let tenant: TenantId = "default".parse().unwrap();
    let mut other = connect(&config(dir.path())).unwrap();
    let lock = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    assert!(matches!(store.system().ensure_tenant(tenant.clone(), 1).await, Err(StoreError::Busy)));
    assert_eq!(store.system().count_phases().await.unwrap(), []);
    drop(lock);
    store.system().ensure_tenant(tenant, 1).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let path = Path::new("/nonexistent");
    let error = super::open(&config(path), Arc::new(Recorder::default()), StoreMetrics::default()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/central.db"), "{error}");
}

/// A database of version 1 as the first release wrote it.
const GOLDEN_V1: &str = include_str!("../golden/v1.sql");

fn in_memory(script: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(script).unwrap();
    conn
}

/// Every table, column and index as SQLite describes them.
fn schema(conn: &Connection) -> Vec<(String, String, String, i64)> {
    let sql = "SELECT m.name, c.name, c.type, c.pk * 2 + c.\"notnull\" FROM sqlite_schema m \
               JOIN pragma_table_xinfo(m.name) c ORDER BY m.name, c.name";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn an_old_database_is_brought_up_to_date_with_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path()).path;
    Connection::open(&path).unwrap().execute_batch(GOLDEN_V1).unwrap();
    let store = open(dir.path(), Arc::default());
    let own = store.tenant(&"default".parse().unwrap());
    let sandboxes = own.sandboxes(SandboxFilter::default(), 10).await.unwrap();
    assert_eq!(sandboxes[0].name.as_ref().map(|n| n.as_str()), Some("first"));
    assert_eq!(own.templates().await.unwrap().len(), 1);
    assert_eq!(own.nodes().await.unwrap()[0].sandboxes, 1);
}

#[test]
fn a_migrated_schema_is_the_same_as_a_new_one() {
    let (old, new) = (in_memory(GOLDEN_V1), in_memory(""));
    for conn in [&old, &new] {
        migrate::run(&SqliteTransaction(conn)).unwrap();
        // A second time changes nothing.
        migrate::run(&SqliteTransaction(conn)).unwrap();
        assert_eq!(migrate::version(&SqliteTransaction(conn)).unwrap(), migrate::newest());
    }
    assert_eq!(schema(&old), schema(&new));
}

#[test]
fn the_golden_schema_is_what_migration_one_makes() {
    let (golden, made) = (in_memory(GOLDEN_V1), in_memory(""));
    migrate::run_to(&SqliteTransaction(&made), 1).unwrap();
    assert_eq!(schema(&golden), schema(&made));
}

#[test]
fn a_database_from_the_future_is_refused() {
    let conn = in_memory("");
    migrate::run(&SqliteTransaction(&conn)).unwrap();
    conn.execute("INSERT INTO schema_version VALUES (99, 0)", []).unwrap();
    let error = migrate::run(&SqliteTransaction(&conn)).unwrap_err();
    assert!(error.to_string().contains("schema 99"), "{error}");
}
