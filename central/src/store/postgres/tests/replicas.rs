//! Several replicas on one database.

use roost_proto::model::Phase;

use super::super::super::conformance::{place, status};
use super::super::super::*;
use super::*;
use crate::metrics::RetryReason;

/// Three replicas of one database; the first one's bench knows a node.
async fn replicas(sandboxes: u32) -> (Bench, Vec<(SqlStore, Arc<Recorder>, StoreMetrics)>) {
    let url = Server::shared().database();
    let changes = Arc::new(Recorder::default());
    let first = open_at(&url, changes.clone()).await;
    let bench = Bench::new(Arc::new(first), changes, None).await;
    bench.report(&status(sandboxes)).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let (changes, metrics) = (Arc::new(Recorder::default()), StoreMetrics::default());
        let store = open(&config(&url), changes.clone(), metrics.clone()).await.unwrap();
        others.push((store, changes, metrics));
    }
    (bench, others)
}

#[tokio::test]
async fn placement_by_several_replicas_never_overcommits_a_node() {
    let (bench, others) = replicas(20).await;
    let tenants: Vec<_> = others.iter().map(|(store, ..)| store.tenant(&bench.tenant)).collect();
    let create = |n: usize| {
        let (tenant, new) = (&tenants[n % 2], bench.new_sandbox(None));
        async move { tenant.create_sandbox(new, place()).await }
    };
    let results = futures::future::join_all((0..80).map(create)).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 20);
    let refused = results.iter().filter_map(|r| r.as_ref().err());
    assert!(refused.into_iter().all(|e| matches!(e, CreateSandboxError::Place(_))), "{results:?}");
    assert_eq!(bench.room_used().await, (10_000, 20 * 1024, 20));
    let generations: Vec<_> = bench.store.system().desired(bench.node.clone(), None).await.unwrap().sandboxes;
    assert_eq!(generations.len(), 20);
}

#[tokio::test]
async fn one_key_at_several_replicas_at_once_makes_one_sandbox() {
    let (bench, others) = replicas(50).await;
    for round in 0..5 {
        let keyed = |n: usize| {
            let key = Some((format!("key-{round}"), "body".into()));
            let new = NewSandbox { idempotency: key, ..bench.new_sandbox(None) };
            let tenant = others[n % 2].0.tenant(&bench.tenant);
            async move { tenant.create_sandbox(new, place()).await }
        };
        let created = futures::future::join_all((0..8).map(keyed)).await;
        let created: Vec<_> = created.into_iter().map(Result::unwrap).collect();
        assert_eq!(created.iter().filter(|c| !c.replayed).count(), 1);
        assert!(created.iter().all(|c| c.sandbox == created[0].sandbox));
    }
    assert_eq!(bench.room_used().await.2, 5);
}

#[tokio::test]
async fn a_name_at_several_replicas_at_once_is_taken_once() {
    let (bench, others) = replicas(50).await;
    let named = |n: usize| {
        let (tenant, new) = (others[n % 2].0.tenant(&bench.tenant), bench.new_sandbox(Some("box")));
        async move { tenant.create_sandbox(new, place()).await }
    };
    let results = futures::future::join_all((0..8).map(named)).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    let refused = results.into_iter().filter_map(Result::err);
    refused.for_each(|error| assert!(matches!(error, CreateSandboxError::NameTaken(_)), "{error:?}"));
}

#[tokio::test]
async fn wishes_for_one_sandbox_at_several_replicas_are_each_a_generation() {
    let (bench, others) = replicas(4).await;
    let made = bench.create(None).await.unwrap();
    let wish = |n: usize| {
        let tenant = others[n % 2].0.tenant(&bench.tenant);
        let key = SandboxKey::Id(made.id.clone());
        async move { tenant.set_run_state(key, Intent::Restart.into()).await.unwrap().sandbox.generation }
    };
    let mut generations = futures::future::join_all((0..6).map(wish)).await;
    generations.sort_unstable();
    assert_eq!(generations, [2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.find(&made.id).await.unwrap().restart_count, 6);
    let retried: u64 = others.iter().map(|(_, _, metrics)| metrics.retries(RetryReason::Conflict)).sum();
    assert!(retried > 0, "six wishes at once never met");
}

#[tokio::test]
async fn a_change_at_one_replica_reaches_the_others_newest_last() {
    let (bench, others) = replicas(4).await;
    let made = bench.create(None).await.unwrap();
    bench.observe(&made.id, Phase::Ready, 1).await;
    let own = others[0].0.tenant(&bench.tenant);
    own.set_run_state(SandboxKey::Id(made.id.clone()), Intent::Delete.into()).await.unwrap();
    bench.observe(&made.id, Phase::Gone, 2).await;
    for (_, changes, _) in &others {
        let told = changes.wait_for(|told| told.last().is_some_and(|last| last == "gone")).await;
        let deleting = told.iter().position(|t| t == "Deleting");
        assert!(told.iter().skip(deleting.unwrap_or(told.len())).all(|t| t == "Deleting" || t == "gone"), "{told:?}");
        assert_eq!(changes.generations().last(), Some(&2));
    }
}
