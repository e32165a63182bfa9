//! Time over whole lives: nothing here waits for real.

use roost_proto::id::{ClaimId, PoolName, SandboxId, TenantId};
use roost_proto::model::{
    Binding, ExpiryAction, ExpiryReason, Lifetime, LifetimeChange, Phase, RunState, UpdateSandbox,
};
use tokio::time::{Duration, Instant, sleep};

use super::claim::{Claim, From};
use super::tests::{Played, spec};
use super::*;
use crate::sandbox::claim::Parcel;
use crate::sandbox::{Desired, Origin};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: u64 = 3_600_000;

fn living(lifetime: Lifetime) -> roost_proto::model::SandboxSpec {
    roost_proto::model::SandboxSpec { lifetime, ..spec() }
}

fn ttl(ttl_ms: u64) -> Lifetime {
    Lifetime { ttl_ms, ..Lifetime::default() }
}

fn idle(idle_timeout_ms: u64, idle_action: ExpiryAction) -> Lifetime {
    Lifetime { idle_timeout_ms, idle_action, ..Lifetime::default() }
}

fn new_ttl(ttl_ms: u64) -> UpdateSandbox {
    let lifetime = LifetimeChange { ttl_ms: Some(ttl_ms), ..LifetimeChange::default() };
    UpdateSandbox { resources: None, lifetime: Some(lifetime) }
}

async fn waited(node: &Played, id: &SandboxId, phase: Phase) -> (View, Duration) {
    let begun = Instant::now();
    (node.until(id, phase).await, begun.elapsed())
}

fn is_about(time: Duration, expected: Duration) -> bool {
    time >= expected.saturating_sub(MINUTE / 12) && time <= expected + MINUTE / 12
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_ends_a_sandbox_and_says_so() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, living(ttl(HOUR_MS))).await;
    sleep(MINUTE).await;
    let ends = node.manager.get(&id).unwrap().observed.ends.unwrap();
    assert_eq!((ends.reason, ends.action), (ExpiryReason::Ttl, ExpiryAction::Delete));
    let (gone, after) = waited(&node, &id, Phase::Gone).await;
    assert!(is_about(after, HOUR - MINUTE), "{after:?}");
    assert_eq!(gone.observed.reason.as_deref(), Some("expired-ttl"));
    assert!(gone.observed.message.unwrap().contains("3600 s"));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_restarted_neither_lengthens_nor_shortens_it() {
    let mut node = Played::new();
    let id = SandboxId::random();
    let begun = Instant::now();
    node.make(&id, living(ttl(HOUR_MS))).await;
    for _ in 0..5 {
        sleep(MINUTE * 11).await;
        node = node.next_daemon();
        node.until(&id, Phase::Ready).await;
    }
    node.until(&id, Phase::Gone).await;
    assert!(is_about(begun.elapsed(), HOUR), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stop_rests_the_time_to_live_and_not_the_longest_life() {
    let node = Played::new();
    let (resting, limited) = (SandboxId::random(), SandboxId::random());
    node.make(&resting, living(ttl(HOUR_MS))).await;
    node.make(&limited, living(Lifetime { max_ms: 2 * HOUR_MS, ..ttl(HOUR_MS) })).await;
    sleep(HOUR / 2).await;
    for id in [&resting, &limited] {
        node.manager.set_run_state(id, RunState::Stopped).await.unwrap();
        node.until(id, Phase::Stopped).await;
    }
    let (gone, after) = waited(&node, &limited, Phase::Gone).await;
    assert!(is_about(after, HOUR * 3 / 2), "{after:?}");
    assert_eq!(gone.observed.reason.as_deref(), Some("expired-lifetime"));
    sleep(HOUR * 100).await;
    let node = node.next_daemon();
    assert_eq!(node.until(&resting, Phase::Stopped).await.observed.ends, None, "its time stands still");
    node.manager.set_run_state(&resting, RunState::Running).await.unwrap();
    let (_, after) = waited(&node, &resting, Phase::Gone).await;
    assert!(is_about(after, HOUR / 2), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_time_to_live_counts_from_when_it_is_set_and_can_be_taken_away() {
    let node = Played::new();
    let (renewed, freed) = (SandboxId::random(), SandboxId::random());
    for id in [&renewed, &freed] {
        node.make(id, living(ttl(HOUR_MS))).await;
    }
    sleep(HOUR * 3 / 4).await;
    node.manager.update(&renewed, new_ttl(HOUR_MS)).await.unwrap();
    node.manager.update(&freed, new_ttl(0)).await.unwrap();
    let (_, after) = waited(&node, &renewed, Phase::Gone).await;
    assert!(is_about(after, HOUR), "{after:?}");
    sleep(HOUR * 1000).await;
    let view = node.manager.get(&freed).unwrap();
    assert_eq!((view.observed.phase, view.observed.ends, view.observed.starts), (Phase::Ready, None, 1));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_stopped_until_somebody_starts_it() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, living(idle(HOUR_MS, ExpiryAction::Stop))).await;
    let (stopped, after) = waited(&node, &id, Phase::Stopped).await;
    assert!(is_about(after, HOUR), "{after:?}");
    assert_eq!(stopped.observed.reason.as_deref(), Some("expired-idle"));
    assert_eq!(stopped.desired.run_state, RunState::Running, "the wish is the user's");
    let node = node.next_daemon();
    assert_eq!(node.until(&id, Phase::Stopped).await.observed.reason.as_deref(), Some("expired-idle"));
    sleep(HOUR * 5).await;
    let limits = roost_proto::model::ResourcesChange { pids_limit: Some(333), ..Default::default() };
    node.manager.update(&id, UpdateSandbox { resources: Some(limits), lifetime: None }).await.unwrap();
    sleep(HOUR).await;
    assert_eq!(node.manager.get(&id).unwrap().observed.phase, Phase::Stopped, "new limits start nothing");
    node.manager.set_run_state(&id, RunState::Running).await.unwrap();
    let ready = node.until(&id, Phase::Ready).await;
    assert_eq!(ready.observed.reason, None);
    let (_, after) = waited(&node, &id, Phase::Stopped).await;
    assert!(is_about(after, HOUR), "it is idle anew: {after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_use_from_outside_puts_the_idle_timeout_off() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, living(idle(HOUR_MS, ExpiryAction::Stop))).await;
    sleep(HOUR * 3 / 4).await;
    let program = node.manager.activity(&id).unwrap().begin();
    sleep(HOUR * 10).await;
    assert_eq!(node.manager.get(&id).unwrap().observed.phase, Phase::Ready);
    drop(program);
    let (_, after) = waited(&node, &id, Phase::Stopped).await;
    assert!(after >= HOUR && after <= HOUR + MINUTE * 2, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_pause_is_ended_by_a_resume() {
    let node = Played::new();
    let id = SandboxId::random();
    node.make(&id, living(idle(HOUR_MS, ExpiryAction::Pause))).await;
    let paused = node.until(&id, Phase::Paused).await;
    assert_eq!((paused.observed.reason.as_deref(), paused.observed.ends), (Some("expired-idle"), None));
    node.manager.set_paused(&id, false).await.unwrap();
    let ready = node.until(&id, Phase::Ready).await;
    assert_eq!((ready.observed.starts, ready.observed.reason), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_paused_sandbox_stays_so_for_the_next_daemon_and_yields_to_every_verb() {
    let node = Played::new();
    let (stopped, deleted, resumed) = (SandboxId::random(), SandboxId::random(), SandboxId::random());
    let ids = [&stopped, &deleted, &resumed];
    for id in ids {
        node.make(id, spec()).await;
        node.manager.set_paused(id, true).await.unwrap();
        node.until(id, Phase::Paused).await;
    }
    let node = node.next_daemon();
    for id in ids {
        assert_eq!(node.until(id, Phase::Paused).await.observed.starts, 1);
    }
    let claim = Claim {
        from: From::Sandbox(resumed.clone()),
        binding: Binding::new(ClaimId::random()),
        name: None,
        tenant: None,
        resources: None,
        lifetime: LifetimeChange::default(),
        parcel: Parcel::new(ClaimId::random(), Default::default(), Vec::new()),
    };
    assert!(matches!(node.manager.claim(claim).await, Err(RequestError::Paused(id)) if id == resumed));
    node.manager.set_run_state(&stopped, RunState::Stopped).await.unwrap();
    node.until(&stopped, Phase::Stopped).await;
    assert!(matches!(node.manager.set_paused(&stopped, true).await, Err(RequestError::NotRunning(_))));
    node.manager.set_run_state(&deleted, RunState::Deleted).await.unwrap();
    node.until(&deleted, Phase::Gone).await;
    node.manager.set_run_state(&resumed, RunState::Running).await.unwrap();
    assert_eq!(node.until(&resumed, Phase::Ready).await.observed.starts, 1, "a start lets it go on");
}

#[tokio::test(start_paused = true)]
async fn the_times_of_a_pools_desktop_count_from_its_claim() {
    let node = Played::new();
    let pool: PoolName = "desks".parse().unwrap();
    let spec = living(Lifetime { max_ms: 2 * HOUR_MS, ..ttl(HOUR_MS) });
    let id = node.manager.create_pooled(pool.clone(), spec).await.unwrap();
    node.until(&id, Phase::Ready).await;
    sleep(HOUR * 50).await;
    let claim_id = ClaimId::random();
    let claim = Claim {
        from: From::Pool(pool),
        binding: Binding::new(claim_id.clone()),
        name: None,
        tenant: None,
        resources: None,
        lifetime: LifetimeChange { ttl_ms: Some(3 * HOUR_MS), ..LifetimeChange::default() },
        parcel: Parcel::new(claim_id, Default::default(), Vec::new()),
    };
    let (claimed, _) = node.manager.claim(claim).await.unwrap();
    assert_eq!(claimed.desired.id, id);
    let (gone, after) = waited(&node, &id, Phase::Gone).await;
    assert!(is_about(after, HOUR * 2), "{after:?}");
    assert_eq!(gone.observed.reason.as_deref(), Some("expired-lifetime"), "the claim cannot lengthen it");
}

fn of_central(id: &SandboxId, generation: u64, run_state: RunState) -> Desired {
    let record: Record =
        crate::reconcile::ledger::decode(include_bytes!("../../reconcile/ledger/golden/record-v1.json")).unwrap();
    Desired {
        id: id.clone(),
        tenant: "default".parse::<TenantId>().unwrap(),
        origin: Origin::Central,
        generation,
        run_state,
        spec: living(ttl(HOUR_MS)),
        ..Desired::clone(&record.desired)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_over_of_central_is_not_made_again_before_central_knows() {
    let node = Played::new();
    let id = SandboxId::random();
    let list = |generation, run_state| vec![of_central(&id, generation, run_state)];
    node.manager.apply_central(1, true, 0, list(1, RunState::Running)).await.unwrap();
    node.until(&id, Phase::Ready).await;
    let over = node.until(&id, Phase::Deleting).await;
    assert_eq!(over.observed.reason.as_deref(), Some("expired-ttl"));
    sleep(HOUR).await;
    // A central that has not heard of it lists it again, also to the next daemon.
    node.manager.apply_central(2, true, 0, list(1, RunState::Running)).await.unwrap();
    let node = node.next_daemon();
    sleep(HOUR).await;
    let view = node.manager.get(&id).unwrap();
    assert_eq!((view.observed.phase, view.observed.starts), (Phase::Deleting, 1));
    assert_eq!(view.observed.reason.as_deref(), Some("expired-ttl"));
    assert!(node.manager.record(&id).is_some());
    node.manager.apply_central(3, false, 2, list(2, RunState::Deleted)).await.unwrap();
    let gone = node.until(&id, Phase::Gone).await;
    assert_eq!(gone.observed.reason.as_deref(), Some("expired-ttl"), "it is known why");
    sleep(MINUTE / 60).await;
    assert!(node.manager.record(&id).is_none());
}
