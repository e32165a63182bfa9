//! Sandboxes: creation, wishes, lists.

use super::*;

pub(super) async fn a_sandbox_reads_back_as_it_was_created(bench: Bench) {
    let made = bench.create(Some("box")).await.unwrap();
    assert_eq!(bench.find(&made.id).await, Some(made.clone()));
    let by_name = bench.own().sandbox(SandboxKey::Name("box".parse().unwrap())).await.unwrap();
    assert_eq!(by_name, Some(made.clone()));
    assert_eq!(made.node_id, bench.node);
    assert_eq!(bench.room_used().await, (500, 1024, 1));
}

pub(super) async fn another_tenant_sees_and_changes_nothing(bench: Bench) {
    let made = bench.create(Some("box")).await.unwrap();
    let (other, key) = (bench.other(), SandboxKey::Id(made.id.clone()));
    assert_eq!(other.sandbox(key.clone()).await.unwrap(), None);
    assert_eq!(other.sandboxes(SandboxFilter::default(), 9).await.unwrap(), []);
    assert!(matches!(other.set_run_state(key, Intent::Delete.into()).await, Err(SetRunStateError::NotFound)));
    assert!(other.templates().await.unwrap().is_empty() && other.profiles().await.unwrap().is_empty());
    assert!(other.nodes().await.unwrap().is_empty() && other.images().await.unwrap().is_empty());
    assert!(matches!(other.delete_node(bench.node.clone(), false).await, Err(DeleteNodeError::NotFound)));
    let refused = other.create_sandbox(bench.new_sandbox(None), place()).await;
    assert!(matches!(refused, Err(CreateSandboxError::Place(PlaceError::NoNodes))));
}

pub(super) async fn a_name_is_unique_while_its_sandbox_lives(bench: Bench) {
    let made = bench.create(Some("box")).await.unwrap();
    assert!(matches!(bench.create(Some("box")).await, Err(CreateSandboxError::NameTaken(_))));
    bench.own().set_run_state(SandboxKey::Id(made.id.clone()), Intent::Delete.into()).await.unwrap();
    bench.observe(&made.id, Phase::Gone, 1).await;
    assert!(bench.create(Some("box")).await.is_ok());
    assert!(bench.create(None).await.is_ok() && bench.create(None).await.is_ok());
}

pub(super) async fn the_same_key_gets_the_first_answer_and_another_body_a_conflict(bench: Bench) {
    let keyed = |body: &str| NewSandbox { idempotency: Some(("key".into(), body.into())), ..bench.new_sandbox(None) };
    let first = bench.own().create_sandbox(keyed("a"), place()).await.unwrap();
    bench.observe(&first.sandbox.id, Phase::Ready, 1).await;
    let again = bench.own().create_sandbox(keyed("a"), place()).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(again.sandbox, first.sandbox);
    assert!(matches!(bench.own().create_sandbox(keyed("b"), place()).await, Err(CreateSandboxError::KeyReused)));
    assert_eq!(bench.room_used().await.2, 1);
}

pub(super) async fn concurrent_creations_never_oversubscribe_a_node(bench: Bench) {
    bench.report(&status(20)).await;
    let creations = (0..60).map(|_| bench.create(None));
    let results = futures::future::join_all(creations).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 20);
    assert_eq!(bench.room_used().await, (10_000, 20 * 1024, 20));
}

pub(super) async fn pages_list_each_sandbox_once_in_order(bench: Bench) {
    bench.report(&status(7)).await;
    for _ in 0..7 {
        bench.create(None).await.unwrap();
    }
    let (mut seen, mut filter) = (Vec::new(), SandboxFilter::default());
    loop {
        let page = bench.own().sandboxes(filter.clone(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some((last.created_at_unix_ms, last.id.clone()));
        seen.extend(page.into_iter().map(|s| s.id));
    }
    let whole: Vec<_> =
        bench.own().sandboxes(SandboxFilter::default(), 100).await.unwrap().into_iter().map(|s| s.id).collect();
    assert_eq!(seen, whole);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 7);
}

pub(super) async fn filters_narrow_a_list(bench: Bench) {
    let ready = bench.create(None).await.unwrap();
    bench.create(None).await.unwrap();
    bench.observe(&ready.id, Phase::Ready, 1).await;
    let list = async |filter| bench.own().sandboxes(filter, 9).await.unwrap().len();
    assert_eq!(list(SandboxFilter { phase: Some(Phase::Ready), ..Default::default() }).await, 1);
    assert_eq!(list(SandboxFilter { template: Some("t".parse().unwrap()), ..Default::default() }).await, 2);
    assert_eq!(list(SandboxFilter { template: Some("x".parse().unwrap()), ..Default::default() }).await, 0);
    assert_eq!(list(SandboxFilter { node: Some(bench.node.clone()), ..Default::default() }).await, 2);
    assert_eq!(list(SandboxFilter { node: Some(NodeId::random()), ..Default::default() }).await, 0);
    let counts = bench.store.system().count_phases().await.unwrap();
    assert!(counts.contains(&("Ready".into(), 1)) && counts.contains(&("Pending".into(), 1)), "{counts:?}");
}

pub(super) async fn a_wish_raises_the_generations_and_a_repeated_one_does_not(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    let wish = async |intent: Intent| {
        bench.own().set_run_state(SandboxKey::Id(made.id.clone()), intent.into()).await.map(|set| set.sandbox)
    };
    let stopped = wish(Intent::Stop).await.unwrap();
    assert_eq!((stopped.generation, stopped.run_state), (2, RunState::Stopped));
    assert_eq!(wish(Intent::Stop).await.unwrap().generation, 2);
    assert_eq!(wish(Intent::Start).await.unwrap().generation, 3);
    assert_eq!(wish(Intent::Start).await.unwrap().generation, 3);
    let restarted = wish(Intent::Restart).await.unwrap();
    assert_eq!((restarted.generation, restarted.restart_count), (4, 1));
    let deleted = wish(Intent::Delete).await.unwrap();
    assert_eq!((deleted.generation, deleted.observed.phase), (5, Phase::Deleting));
    assert_eq!(wish(Intent::Delete).await.unwrap().generation, 5);
    assert!(matches!(wish(Intent::Start).await, Err(SetRunStateError::Deleting)));
    assert_eq!(bench.store.system().link_node(bench.node.clone()).await.unwrap().unwrap().desired_generation, 5);
}

pub(super) async fn a_failed_sandbox_is_started_again(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    bench.observe(&made.id, Phase::Failed, 1).await;
    let started = bench.own().set_run_state(SandboxKey::Id(made.id), Intent::Start.into()).await.unwrap().sandbox;
    assert_eq!((started.generation, started.restart_count), (2, 1));
}

pub(super) async fn changes_come_in_the_order_of_the_commits(bench: Bench) {
    let told = async |count: usize| bench.changes.wait_for(|told| told.len() >= count).await;
    let made = bench.create(None).await.unwrap();
    told(1).await;
    bench.observe(&made.id, Phase::Ready, 1).await;
    told(2).await;
    bench.own().set_run_state(SandboxKey::Id(made.id.clone()), Intent::Delete.into()).await.unwrap();
    told(3).await;
    bench.observe(&made.id, Phase::Gone, 2).await;
    assert_eq!(told(4).await, ["Pending", "Ready", "Deleting", "gone"]);
    assert_eq!(Vec::from_iter(bench.changes.generations()), [1, 2]);
}
