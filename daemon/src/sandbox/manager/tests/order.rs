//! Any order of requests, ends, claims and killed daemons comes to rest where
//! the last wish is, and holds nothing else.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use roost_proto::id::ClaimId;
use roost_proto::model::{Binding, LifetimeChange, Phase, RunState};

use super::*;
use crate::sandbox::claim::Parcel;
use crate::sandbox::manager::claim::{Claim, From};

#[derive(Debug, Clone)]
enum Event {
    Create,
    Want(Index, u8),
    Restart(Index),
    Claim(Index),
    End(Index, i32),
    Limits(Index, u32),
    Time(u64),
    Kill,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Create),
        6 => (any::<Index>(), 0..4_u8).prop_map(|(index, want)| Event::Want(index, want)),
        2 => any::<Index>().prop_map(Event::Restart),
        2 => any::<Index>().prop_map(Event::Claim),
        4 => (any::<Index>(), 0..3).prop_map(|(index, code)| Event::End(index, code)),
        1 => (any::<Index>(), 64..2000_u32).prop_map(|(index, pids)| Event::Limits(index, pids)),
        5 => (0..3_000_u64).prop_map(Event::Time),
        2 => Just(Event::Kill),
    ]
}

/// A sandbox whose workload comes back by itself.
fn enduring() -> SandboxSpec {
    let mut spec = spec();
    spec.restart.application = RestartPolicy::Always;
    spec
}

fn claim(id: &SandboxId) -> Claim {
    let claim_id = ClaimId::random();
    let parcel = Parcel::new(claim_id.clone(), [].into(), Vec::new());
    let binding = Binding::new(claim_id);
    let lifetime = LifetimeChange::default();
    Claim { from: From::Sandbox(id.clone()), binding, name: None, tenant: None, resources: None, lifetime, parcel }
}

async fn play(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut node = Played::new();
    let mut ids: Vec<SandboxId> = Vec::new();
    for event in events {
        let manager = &node.manager;
        // A refusal is an answer, too: what counts is where all this ends.
        match event {
            Event::Create if ids.len() < 6 => {
                ids.push(SandboxId::random());
                let made = manager.create(ids[ids.len() - 1].clone(), None, enduring()).await;
                prop_assert!(made.is_ok(), "{made:?}");
            }
            Event::Want(index, want) if !ids.is_empty() => {
                let state =
                    [RunState::Running, RunState::Running, RunState::Stopped, RunState::Deleted][usize::from(want)];
                drop(manager.set_run_state(index.get(&ids), state).await);
            }
            Event::Restart(index) if !ids.is_empty() => drop(manager.restart(index.get(&ids)).await),
            Event::Claim(index) if !ids.is_empty() => {
                let answer = manager.claim(claim(index.get(&ids)));
                // It may wait for a restart, and then for the daemon's end.
                drop(tokio::time::timeout(Duration::from_millis(50), answer).await);
            }
            Event::End(index, code) if !ids.is_empty() => {
                let id = index.get(&ids);
                node.host.end(id, code);
                manager.hint([id]);
            }
            Event::Limits(index, pids_limit) if !ids.is_empty() => {
                drop(manager.update(index.get(&ids), pids(pids_limit)).await);
            }
            Event::Time(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Event::Kill => node = node.next_daemon(),
            _ => {}
        }
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut runs = 0;
    for id in &ids {
        let Some(record) = node.manager.record(id) else { continue };
        let expected = match record.desired.run_state {
            RunState::Running => Phase::Ready,
            RunState::Stopped => Phase::Stopped,
            RunState::Deleted => return Err(TestCaseError::fail(format!("{id} does not go"))),
        };
        runs += usize::from(expected == Phase::Ready);
        let view = node.manager.get(id).map(|view| (view.observed.phase, view.observed.observed_generation));
        prop_assert_eq!(view, Some((expected, record.desired.generation)));
    }
    prop_assert_eq!(node.host.existing().containers.len(), 2 * runs, "something runs that nobody wants");
    let held = node.store.clone().load().unwrap().records;
    prop_assert_eq!(held.len(), node.manager.id_ranges_used(), "ids of what is gone are held");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_order_of_events_comes_to_rest_at_the_last_wish(events in prop::collection::vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(events))?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_id_is_removed_before_it_is_made_again() {
    let (node, id) = (Played::new(), SandboxId::random());
    node.manager.begin_reap([id.clone()]);
    let refused = node.manager.create(id.clone(), None, spec()).await.unwrap_err();
    assert!(matches!(refused, RequestError::Deleting(_)), "{refused}");
    node.manager.end_reap(&id);
    node.make(&id, spec()).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_what_does_not_run_is_told_so_at_once_and_stands() {
    let (node, id) = (Played::new(), SandboxId::random());
    node.make(&id, spec()).await;
    node.end(&id, 3);
    node.until(&id, Phase::Failed).await;
    let answer = tokio::time::timeout(Duration::from_secs(1), node.manager.claim(claim(&id))).await;
    let refused = answer.expect("nobody answers").unwrap_err();
    assert!(matches!(refused, RequestError::NotBound { reason: "claim-not-running", .. }), "{refused}");
    node.manager.set_run_state(&id, RunState::Running).await.unwrap();
    let mut changes = node.manager.subscribe();
    while !node.manager.get(&id).unwrap().observed.binding.is_some_and(|binding| binding.bound) {
        changes.changed().await.unwrap();
    }
}
