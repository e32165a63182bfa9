//! The connection is lost in the middle of anything; the server goes away.

use roost_proto::model::Phase;

use super::super::super::conformance::{place, status};
use super::super::super::sql::SqlStore;
use super::super::super::*;
use super::proxy::{Cut, Proxy};
use super::*;

/// Cuts that are tried in each direction, evenly over a whole transaction.
const CUTS: usize = 24;

/// A bench with a direct connection, and a store with one connection through
/// a proxy.
async fn through_proxy() -> (Bench, Proxy, SqlStore) {
    let url = Server::shared().database();
    let changes = Arc::new(Recorder::default());
    let bench = Bench::new(Arc::new(open_at(&url, changes.clone()).await), changes, None).await;
    bench.report(&status(1_000)).await;
    let proxy = Proxy::new(&url);
    let config = PostgresConfig { pool_size: 1, ..config(&proxy.url) };
    let sink: Arc<dyn ChangeSink> = Arc::new(Recorder::default());
    let queues = start(&config, &sink, StoreMetrics::default()).unwrap();
    (bench, proxy, SqlStore::new(queues))
}

fn keyed(bench: &Bench, key: &str) -> NewSandbox {
    NewSandbox { idempotency: Some((key.into(), "body".into())), ..bench.new_sandbox(None) }
}

/// Repeats a creation with its key until the database answers.
async fn repeated(bench: &Bench, store: &SqlStore, key: &str) -> Created {
    for _ in 0..100 {
        match store.tenant(&bench.tenant).create_sandbox(keyed(bench, key), place()).await {
            Ok(created) => return created,
            Err(CreateSandboxError::Store(StoreError::Unknown(_) | StoreError::Unavailable(_))) => {}
            Err(error) => panic!("{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the database never answered");
}

#[tokio::test]
async fn wherever_the_connection_breaks_a_repeated_creation_makes_one_sandbox() {
    let (bench, proxy, store) = through_proxy().await;
    repeated(&bench, &store, "warm-up").await;
    let before = proxy.passed();
    repeated(&bench, &store, "measured").await;
    let (up, down) = (proxy.passed().0 - before.0, proxy.passed().1 - before.1);
    assert!(up > 1_000 && down > 200, "{up} {down}");
    let up_cuts = (0..CUTS).map(|n| Cut::Up(n * up / CUTS));
    let down_cuts = (0..CUTS).map(|n| Cut::Down(n * down / CUTS));
    let (mut made, mut lost) = (2, 0);
    for cut in up_cuts.chain(down_cuts) {
        let key = format!("{cut:?}");
        proxy.cut(cut);
        let tried = store.tenant(&bench.tenant).create_sandbox(keyed(&bench, &key), place()).await;
        assert!(proxy.is_cut(), "{cut:?} cut nothing");
        lost += usize::from(tried.is_err());
        let created = repeated(&bench, &store, &key).await;
        if let Ok(tried) = tried {
            assert_eq!(tried.sandbox.id, created.sandbox.id);
        }
        made += 1;
        let listed = bench.own().sandboxes(SandboxFilter::default(), 1_000).await.unwrap();
        assert_eq!(listed.len(), made, "after {cut:?}");
        assert_eq!(bench.room_used().await.2, u64::try_from(made).unwrap(), "after {cut:?}");
    }
    // Most are repeated by the store itself; those in the commit are not.
    assert!(lost > 0 && lost < CUTS, "{lost} of {} were lost", 2 * CUTS);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_said_to_be_unknown() {
    let (bench, proxy, store) = through_proxy().await;
    repeated(&bench, &store, "warm-up").await;
    for (cut, is_made) in [(Cut::BeforeCommit, false), (Cut::AfterCommit, true)] {
        let key = format!("{cut:?}");
        proxy.cut(cut);
        let tried = store.tenant(&bench.tenant).create_sandbox(keyed(&bench, &key), place()).await;
        assert!(matches!(tried, Err(CreateSandboxError::Store(StoreError::Unknown(_)))), "{tried:?}");
        assert_eq!(repeated(&bench, &store, &key).await.replayed, is_made, "{cut:?}");
    }
    assert_eq!(bench.room_used().await.2, 3);
}

#[tokio::test]
async fn a_read_whose_connection_breaks_is_repeated_unnoticed() {
    let (bench, proxy, store) = through_proxy().await;
    let created = repeated(&bench, &store, "warm-up").await;
    for cut in [Cut::Up(3), Cut::Down(0), Cut::BeforeCommit, Cut::AfterCommit] {
        proxy.cut(cut);
        let key = SandboxKey::Id(created.sandbox.id.clone());
        let found = store.tenant(&bench.tenant).sandbox(key).await.unwrap();
        assert_eq!(found.map(|s| s.id), Some(created.sandbox.id.clone()));
        assert!(proxy.is_cut(), "{cut:?} cut nothing");
    }
}

#[tokio::test]
async fn a_killed_server_makes_calls_fail_at_once_and_comes_back_by_itself() {
    let server = Server::start();
    let url = server.database();
    let changes = Arc::new(Recorder::default());
    let bench = Bench::new(Arc::new(open_at(&url, changes.clone()).await), changes.clone(), None).await;
    let made = bench.create(None).await.unwrap();
    changes.wait_for(|told| told.len() == 1).await;
    let gaps = changes.gaps();
    server.tell("kill");
    for _ in 0..50 {
        let refused = bench.store.system().ping().await.unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    }
    server.tell("start");
    let mut tries = 0;
    while bench.store.system().ping().await.is_err() {
        tries += 1;
        assert!(tries < 400, "the store never came back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.find(&made.id).await.unwrap().id, made.id);
    tokio::time::timeout(Duration::from_secs(20), async {
        while changes.gaps() == gaps {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("followers were not told of the gap");
    bench.observe(&made.id, Phase::Ready, 1).await;
    changes.wait_for(|told| told.last().is_some_and(|last| last == "Ready")).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let config = config("postgres://roost@%2Fnonexistent/roost");
    let refused = open(&config, Arc::new(Recorder::default()), StoreMetrics::default()).await.unwrap_err();
    let text = crate::log::chain(&refused);
    assert!(matches!(refused, StoreError::Unavailable(_)) && text.contains("is it running"), "{text}");
}
