//! Time: pauses, lifetimes, and what is gone because its time was over.

use roost_proto::model::{LifetimeChange, UpdateSandbox};

use super::*;

fn new_ttl(ttl_ms: u64) -> NewResources {
    let lifetime = LifetimeChange { ttl_ms: Some(ttl_ms), ..LifetimeChange::default() };
    let change = UpdateSandbox { resources: None, lifetime: Some(lifetime) };
    NewResources { change, if_generation: None, idempotency: None, now_unix_ms: 20 }
}

async fn say(bench: &Bench, id: &SandboxId, phase: Phase, reason: Option<&str>, revision: u64) {
    let reason = reason.map(ToOwned::to_owned);
    let message = reason.as_ref().map(|_| "its time was over".into());
    let observed = Observed { phase, reason, message, revision, ..Observed::pending() };
    let batch = HeartbeatBatch { observed: vec![(id.clone(), observed)], ..bench.batch() };
    bench.store.system().apply_heartbeat(batch).await.unwrap();
}

async fn wish(bench: &Bench, id: &SandboxId, intent: Intent) -> Result<Sandbox, SetRunStateError> {
    bench.own().set_run_state(SandboxKey::Id(id.clone()), intent.into()).await.map(|set| set.sandbox)
}

pub(super) async fn a_pause_reaches_the_node_and_every_other_wish_ends_it(bench: Bench) {
    bench.report(&status(9)).await;
    let made = bench.create(None).await.unwrap();
    bench.observe(&made.id, Phase::Ready, 1).await;
    let before = bench.store.system().desired(bench.node.clone(), None).await.unwrap().generation;
    let paused = wish(&bench, &made.id, Intent::Pause).await.unwrap();
    assert_eq!((paused.generation, paused.paused, paused.run_state), (2, true, RunState::Running));
    let delta = bench.store.system().desired(bench.node.clone(), Some(before)).await.unwrap();
    assert_eq!(delta.sandboxes, [bench.find(&made.id).await.unwrap()]);
    assert_eq!(wish(&bench, &made.id, Intent::Pause).await.unwrap().generation, 2, "it is wanted already");
    for intent in [Intent::Resume, Intent::Start, Intent::Restart, Intent::Stop, Intent::Delete] {
        let one = bench.create(None).await.unwrap();
        bench.observe(&one.id, Phase::Ready, 1).await;
        assert!(wish(&bench, &one.id, Intent::Pause).await.unwrap().paused);
        let after = wish(&bench, &one.id, intent).await.unwrap();
        assert_eq!((after.paused, after.generation), (false, 3), "{intent:?}");
    }
}

pub(super) async fn what_does_not_run_cannot_be_paused(bench: Bench) {
    let (failed, stopped) = (bench.create(None).await.unwrap(), bench.create(None).await.unwrap());
    bench.observe(&failed.id, Phase::Failed, 1).await;
    wish(&bench, &stopped.id, Intent::Stop).await.unwrap();
    for id in [&failed.id, &stopped.id] {
        assert!(matches!(wish(&bench, id, Intent::Pause).await, Err(SetRunStateError::NotRunning)));
        assert!(!bench.find(id).await.unwrap().paused);
    }
    let generation = bench.find(&stopped.id).await.unwrap().generation;
    assert_eq!(wish(&bench, &stopped.id, Intent::Resume).await.unwrap().generation, generation);
}

pub(super) async fn what_an_idle_timeout_ended_is_begun_again_by_a_newer_generation(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    for (phase, intent, revision) in [(Phase::Stopped, Intent::Start, 1), (Phase::Paused, Intent::Resume, 2)] {
        say(&bench, &made.id, phase, Some("expired-idle"), revision).await;
        let before = bench.find(&made.id).await.unwrap();
        assert_eq!((before.run_state, before.observed.phase), (RunState::Running, phase));
        let after = wish(&bench, &made.id, intent).await.unwrap();
        assert_eq!((after.generation, after.restart_count), (before.generation + 1, 0), "{intent:?}");
    }
}

pub(super) async fn each_new_time_to_live_is_counted_also_if_it_is_the_same(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    assert_eq!((made.lifetime().ttl_ms, made.ttl_count), (0, 0));
    let first = bench.set(&made.id, new_ttl(60_000)).await.unwrap().sandbox;
    let second = bench.set(&made.id, new_ttl(60_000)).await.unwrap().sandbox;
    assert_eq!((first.ttl_count, second.ttl_count), (1, 2));
    assert_eq!((second.lifetime().ttl_ms, second.generation), (60_000, 3));
    assert_eq!(second.resources, None, "limits stay as they were");
    assert_eq!(bench.find(&made.id).await, Some(second));
    let Err(UpdateSandboxError::Invalid(errors)) = bench.set(&made.id, new_ttl(1)).await else { panic!("accepted") };
    assert_eq!(errors[0].field, "lifetime.ttl_ms");
    let nothing = NewResources { change: UpdateSandbox { resources: None, lifetime: None }, ..new_ttl(0) };
    let Err(UpdateSandboxError::Invalid(errors)) = bench.set(&made.id, nothing).await else { panic!("accepted") };
    assert_eq!(errors[0].field, "resources");
}

pub(super) async fn a_sandbox_whose_time_is_over_goes_and_is_remembered_with_the_reason(bench: Bench) {
    let made = bench.create(Some("mine")).await.unwrap();
    let before = bench.store.system().desired(bench.node.clone(), None).await.unwrap().generation;
    say(&bench, &made.id, Phase::Deleting, Some("expired-ttl"), 1).await;
    let over = bench.find(&made.id).await.unwrap();
    assert_eq!((over.run_state, over.generation), (RunState::Deleted, 2));
    let delta = bench.store.system().desired(bench.node.clone(), Some(before)).await.unwrap();
    assert_eq!(delta.sandboxes.len(), 1, "the node is told that it may forget it");
    say(&bench, &made.id, Phase::Deleting, Some("expired-ttl"), 2).await;
    assert_eq!(bench.find(&made.id).await.unwrap().generation, 2, "once");
    say(&bench, &made.id, Phase::Gone, Some("expired-ttl"), 3).await;
    assert_eq!(bench.find(&made.id).await, None);
    assert_eq!(bench.room_used().await, (0, 0, 0));
    let keys = [SandboxKey::Id(made.id.clone()), SandboxKey::Name("mine".parse().unwrap())];
    for key in keys.clone() {
        let ending = bench.own().ending(key).await.unwrap().unwrap();
        assert_eq!((ending.reason.as_str(), ending.message.as_str()), ("expired-ttl", "its time was over"));
    }
    let other = bench.store.tenant(&"other".parse().unwrap());
    assert_eq!(other.ending(keys[0].clone()).await.unwrap(), None, "another tenant sees nothing");
    bench.store.system().expire(u64::MAX / 4).await.unwrap();
    assert_eq!(bench.own().ending(keys[0].clone()).await.unwrap(), None, "after a day");
}

pub(super) async fn a_deletion_that_was_asked_for_leaves_no_ending(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    // Its processes ended by an idle timeout; then somebody deleted it.
    say(&bench, &made.id, Phase::Stopped, Some("expired-idle"), 1).await;
    assert_eq!(bench.find(&made.id).await.unwrap().run_state, RunState::Running);
    wish(&bench, &made.id, Intent::Delete).await.unwrap();
    say(&bench, &made.id, Phase::Gone, None, 2).await;
    assert_eq!(bench.own().ending(SandboxKey::Id(made.id)).await.unwrap(), None);
}
