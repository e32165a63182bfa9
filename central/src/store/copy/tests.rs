//! Copies between the engines, and files that are not what they should be.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use roost_proto::model::Phase;

use super::super::conformance::{Bench, Recorder, status};
use super::super::postgres::tests::{config as postgres, server::Server};
use super::super::sqlite::SqliteConfig;
use super::super::*;
use super::*;
use crate::metrics::StoreMetrics;

fn sqlite(dir: &Path, name: &str) -> Database {
    Database::Sqlite(SqliteConfig { path: dir.join(name), busy_timeout: Duration::from_secs(5) })
}

fn new_postgres() -> Database {
    Database::Postgres(postgres(&Server::shared().database()))
}

fn silent() -> OnProgress {
    Arc::new(|_, _, _| {})
}

/// Fills a database with something of every kind.
async fn fill(database: &Database, sandboxes: u32) -> usize {
    let changes = Arc::new(Recorder::default());
    let store = database.open(changes.clone(), StoreMetrics::default()).await.unwrap();
    let bench = Bench::new(store, changes, None).await;
    bench.report(&status(sandboxes)).await;
    for n in 0..sandboxes {
        let key = Some((format!("key-{n}"), "body".into()));
        let new = NewSandbox { idempotency: key, ..bench.new_sandbox(Some(&format!("box-{n}"))) };
        bench.own().create_sandbox(new, conformance::place()).await.unwrap();
    }
    let one = bench.own().sandbox(SandboxKey::Name("box-0".parse().unwrap())).await.unwrap().unwrap();
    bench.observe(&one.id, Phase::Ready, 7).await;
    bench.own().replace_admin_token(crate::secret::SecretHash::of("x"), 1, 0).await.unwrap();
    let pool = r#"{"name":"desks","template":"t","min_ready":1,"max":2}"#;
    bench.own().put_pool(serde_json::from_str(pool).unwrap()).await.unwrap();
    bench.own().begin_claim(claim()).await.unwrap();
    bench.own().sandboxes(SandboxFilter::default(), 10_000).await.unwrap().len()
}

/// A claim that got nothing yet.
fn claim() -> NewClaim {
    NewClaim {
        id: roost_proto::id::ClaimId::random(),
        key: Some("claim-key".into()),
        body_sha256: "body".into(),
        pool: "desks".parse().unwrap(),
        name: None,
        node_id: None,
        now_unix_ms: 3,
    }
}

/// What a copy must keep, as it is shown to people.
async fn shown(database: &Database) -> String {
    let store = database.open(Arc::new(Recorder::default()), StoreMetrics::default()).await.unwrap();
    let own = store.tenant(&"default".parse().unwrap());
    let sandboxes = own.sandboxes(SandboxFilter::default(), 10_000).await.unwrap();
    let (mut nodes, templates) = (own.nodes().await.unwrap(), own.templates().await.unwrap());
    // An import sets it, so that nothing is deleted that happened since.
    nodes.iter_mut().for_each(|node| node.unsettled_at_unix_ms = None);
    let admin = store.system().find_api_token(crate::secret::SecretHash::of("x"), 1).await.unwrap();
    let (pools, claims) = (own.pools().await.unwrap(), store.system().stale_claims(9, 9).await.unwrap());
    format!("{sandboxes:?}{nodes:?}{templates:?}{:?}{admin:?}{pools:?}{claims:?}", own.profiles().await.unwrap())
}

#[tokio::test]
async fn a_database_travels_between_the_engines_and_back_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, third) = (sqlite(dir.path(), "a.db"), new_postgres(), sqlite(dir.path(), "c.db"));
    assert_eq!(fill(&first, 300).await, 300);
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let copied = first.export(&one, silent()).await.unwrap();
    assert!(copied.rows > 600, "{copied:?}");
    assert_eq!(second.import(&one, false, silent()).await.unwrap(), copied);
    assert_eq!(second.export(&two, silent()).await.unwrap(), copied);
    assert_eq!(third.import(&two, false, silent()).await.unwrap(), copied);
    let before = shown(&first).await;
    assert!(before.contains("box-299"));
    assert_eq!(shown(&second).await, before);
    assert_eq!(shown(&third).await, before);
    for database in [&first, &second, &third] {
        let report = database.check().await.unwrap();
        assert!(report.is_good() && report.rules.len() > 6, "{report:?}");
    }
    for imported in [&second, &third] {
        let store = imported.open(Arc::new(Recorder::default()), StoreMetrics::default()).await.unwrap();
        assert_eq!(store.system().unsettled().await.unwrap(), 1, "its node is compared before it is told anything");
    }
    // One more can be made where the first was copied to.
    assert_eq!(
        second
            .open(Arc::new(Recorder::default()), StoreMetrics::default())
            .await
            .unwrap()
            .system()
            .count_phases()
            .await
            .unwrap()
            .iter()
            .map(|(_, n)| n)
            .sum::<u64>(),
        300
    );
}

#[tokio::test]
async fn an_export_of_an_older_schema_is_imported_and_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.db");
    rusqlite::Connection::open(&old).unwrap().execute_batch(include_str!("../golden/v1.sql")).unwrap();
    let (old, file, new) = (sqlite(dir.path(), "old.db"), dir.path().join("file"), new_postgres());
    assert_eq!(old.export(&file, silent()).await.unwrap().schema, 1);
    new.import(&file, false, silent()).await.unwrap();
    assert_eq!(new.check().await.unwrap().schema, crate::store::sql::migrate::newest());
    assert!(shown(&new).await.contains("first"));
}

#[tokio::test]
async fn a_target_that_holds_something_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (source, file) = (sqlite(dir.path(), "a.db"), dir.path().join("file"));
    fill(&source, 3).await;
    source.export(&file, silent()).await.unwrap();
    for full in [sqlite(dir.path(), "full.db"), new_postgres()] {
        fill(&full, 1).await;
        let before = shown(&full).await;
        let refused = full.import(&file, true, silent()).await.unwrap_err();
        assert!(matches!(refused, CopyError::NotEmpty(_)) && refused.to_string().contains("nodes"), "{refused}");
        assert_eq!(shown(&full).await, before);
    }
    for started in [sqlite(dir.path(), "started.db"), new_postgres()] {
        let store = started.open(Arc::new(Recorder::default()), StoreMetrics::default()).await.unwrap();
        store.system().ensure_tenant("default".parse().unwrap(), 1).await.unwrap();
        let refused = until_in_use(&started, &file).await;
        assert!(refused.to_string().contains("stop every replica"), "{refused}");
        drop(store);
        let refused = started.import(&file, false, silent()).await.unwrap_err();
        assert!(refused.to_string().contains("--force"), "{refused}");
        started.import(&file, true, silent()).await.unwrap();
        assert_eq!(shown(&started).await, shown(&source).await);
    }
    let again = source.export(&file, silent()).await.unwrap_err();
    assert!(matches!(again, CopyError::File { operation: "create", .. }), "{again}");
}

/// What an import is told while a central serves; the lock of that is taken in
/// the background.
async fn until_in_use(database: &Database, file: &Path) -> CopyError {
    for _ in 0..100 {
        match database.import(file, false, silent()).await.unwrap_err() {
            CopyError::NotEmpty(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => return other,
        }
    }
    panic!("an import goes on beside a central that serves")
}

/// The lines of a file, changed and packed again.
fn changed(file: &Path, change: impl Fn(String) -> String) {
    let mut text = String::new();
    zstd::Decoder::new(std::fs::File::open(file).unwrap()).unwrap().read_to_string(&mut text).unwrap();
    let mut out = zstd::Encoder::new(std::fs::File::create(file).unwrap(), 1).unwrap();
    out.write_all(change(text).as_bytes()).unwrap();
    out.finish().unwrap();
}

#[tokio::test]
async fn a_cut_or_changed_file_is_refused_and_nothing_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let (source, file, target) = (sqlite(dir.path(), "a.db"), dir.path().join("file"), sqlite(dir.path(), "t.db"));
    fill(&source, 3).await;
    source.export(&file, silent()).await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    let refused = async |what: &str, damage: &dyn Fn()| {
        std::fs::write(&file, &whole).unwrap();
        damage();
        let error = target.import(&file, false, silent()).await.unwrap_err();
        assert!(crate::log::chain(&error).contains(what), "{what}: {}", crate::log::chain(&error));
        assert_eq!(target.check().await.unwrap().schema, 0, "{what}");
    };
    refused("damaged", &|| std::fs::write(&file, &whole[..whole.len() / 2]).unwrap()).await;
    refused("another SHA-256", &|| changed(&file, |text| text.replace("box-1", "box-9"))).await;
    refused("ends before its last line", &|| {
        changed(&file, |text| text.lines().take(5).map(|l| format!("{l}\n")).collect())
    })
    .await;
    refused("other columns", &|| {
        changed(&file, |text| text.replace("created_at_unix_ms\",\"id", "id; DROP TABLE x\",\"id"))
    })
    .await;
    refused("does not belong there", &|| {
        changed(&file, |text| text.replace("{\"table\":\"api_tokens\"", "{\"table\":\"sqlite_schema\""))
    })
    .await;
    refused("newer central", &|| changed(&file, |text| text.replacen("\"schema\":", "\"schema\":9", 1))).await;
    refused("format 2", &|| changed(&file, |text| text.replacen("\"roost_store\":1", "\"roost_store\":2", 1))).await;
    refused("cannot read", &|| std::fs::remove_file(&file).unwrap()).await;
}

#[tokio::test]
async fn a_check_names_what_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let database = sqlite(dir.path(), "a.db");
    fill(&database, 3).await;
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    conn.execute_batch(
        "UPDATE nodes SET sandboxes = 9; UPDATE sandboxes SET spec = '{' WHERE name = 'box-1'; \
                        PRAGMA foreign_keys = 0; UPDATE templates SET profile = 'none';",
    )
    .unwrap();
    let report = database.check().await.unwrap();
    assert!(!report.is_good());
    let broken: Vec<_> = report.rules.iter().filter(|rule| !rule.faults.is_empty()).map(|rule| rule.rule).collect();
    assert_eq!(broken.len(), 3, "{report:?}");
    assert!(
        report.rules.iter().any(|rule| rule.faults.iter().any(|fault| fault.contains("profile none of template t")))
    );
}

#[tokio::test]
async fn every_table_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    for database in [sqlite(dir.path(), "a.db"), new_postgres()] {
        fill(&database, 1).await;
        let queues = database.open_as_it_is(false).unwrap();
        let mut tables = queues.read("tables", |tx| tx.tables()).await.unwrap();
        tables.retain(|table| table != "schema_version");
        let mut copied: Vec<_> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
        copied.sort();
        assert_eq!(tables, copied);
    }
}
