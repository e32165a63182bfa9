//! A database that went back in time: what nodes hold is kept.

use super::*;

/// A sandbox as the node of the bench holds it.
fn held(sandbox: &Sandbox, generation: u64) -> Held {
    Held {
        id: sandbox.id.clone(),
        name: sandbox.name.clone(),
        generation,
        run_state: sandbox.run_state,
        restart_count: sandbox.restart_count,
        spec: sandbox.spec.clone(),
        resources: sandbox.resources.clone(),
        paused: sandbox.paused,
        lifetime: sandbox.lifetime,
        ttl_count: sandbox.ttl_count,
        observed: Observed { phase: Phase::Ready, revision: 9, ..Observed::pending() },
        created_at_unix_ms: 7,
    }
}

/// One that the database does not know.
fn stranger(bench: &Bench, name: &str) -> Held {
    let new = bench.new_sandbox(Some(name));
    Held {
        id: new.id,
        name: new.name,
        generation: 4,
        run_state: RunState::Stopped,
        restart_count: 2,
        spec: new.spec,
        resources: None,
        paused: false,
        lifetime: None,
        ttl_count: 0,
        observed: Observed { phase: Phase::Stopped, revision: 9, ..Observed::pending() },
        created_at_unix_ms: 7,
    }
}

async fn settle(bench: &Bench, held: Vec<Held>, node_generation: u64) -> Settled {
    bench.store.system().settle(bench.node.clone(), held, node_generation, 20).await.unwrap()
}

pub(super) async fn a_restored_database_compares_every_node_once(bench: Bench) {
    let system = bench.store.system();
    let is_unsettled = async || system.link_node(bench.node.clone()).await.unwrap().unwrap().is_unsettled;
    assert!(!is_unsettled().await);
    assert_eq!(system.mark_restored(20).await.unwrap(), 1);
    assert!(is_unsettled().await);
    assert_eq!(system.unsettled().await.unwrap(), 1);
    assert_eq!(bench.own().nodes().await.unwrap()[0].unsettled_at_unix_ms, Some(20));
    assert_eq!(settle(&bench, vec![], 40).await, Settled::default());
    assert!(!is_unsettled().await);
    assert_eq!(system.unsettled().await.unwrap(), 0);
    let desired = system.desired(bench.node.clone(), None).await.unwrap();
    assert!(desired.generation > 40, "the node must take what it is sent: {}", desired.generation);
}

pub(super) async fn what_the_database_does_not_know_is_kept_as_it_is_until_somebody_decides(bench: Bench) {
    let known = bench.create(Some("known")).await.unwrap();
    let (first, second) = (stranger(&bench, "known"), stranger(&bench, "lost"));
    let all = vec![held(&known, 1), first.clone(), second.clone()];
    let settled = settle(&bench, all.clone(), 9).await;
    assert_eq!((settled.orphans, settled.changed), (2, 0));

    // The node is told to keep them exactly as they are, and their room is taken.
    let desired = bench.store.system().desired(bench.node.clone(), None).await.unwrap().sandboxes;
    let kept = desired.iter().find(|sandbox| sandbox.id == second.id).unwrap();
    assert_eq!((kept.generation, kept.run_state, kept.restart_count), (4, RunState::Stopped, 2));
    assert_eq!((&kept.spec, desired.len()), (&second.spec, 3));
    assert_eq!(bench.room_used().await, (1500, 3072, 3));
    assert_eq!(bench.own().nodes().await.unwrap()[0].orphans, 2);

    // They are nobody's sandboxes, and a heartbeat of them is no news of one.
    let listed = bench.own().sandboxes(SandboxFilter::default(), 10).await.unwrap();
    assert_eq!(listed.iter().map(|s| s.id.clone()).collect::<Vec<_>>(), [known.id]);
    assert_eq!(bench.find(&second.id).await, None);
    bench.observe(&second.id, Phase::Failed, 10).await;
    let orphans = bench.own().orphans().await.unwrap();
    let orphan = orphans.iter().find(|orphan| orphan.sandbox.id == second.id).unwrap();
    assert_eq!((orphan.sandbox.observed.phase, orphan.found_at_unix_ms), (Phase::Failed, 20));
    assert_eq!(orphan.sandbox.name.as_ref().unwrap().as_str(), "lost");
    assert!(bench.other().orphans().await.unwrap().is_empty());

    // Compared again they stay orphans, and nothing is counted twice.
    assert_eq!(settle(&bench, all, 30).await.orphans, 0);
    assert_eq!(bench.room_used().await, (1500, 3072, 3));
}

pub(super) async fn an_orphan_is_adopted_under_its_name_or_another(bench: Bench) {
    bench.create(Some("taken")).await.unwrap();
    let (first, second) = (stranger(&bench, "taken"), stranger(&bench, "lost"));
    settle(&bench, vec![first.clone(), second.clone()], 9).await;
    let own = bench.own();
    let name = |text: &str| Some(text.parse().unwrap());
    assert!(matches!(bench.other().adopt_orphan(first.id.clone(), None).await, Err(AdoptError::NotFound)));
    assert!(matches!(own.adopt_orphan(first.id.clone(), None).await, Err(AdoptError::NameTaken(_))));
    let adopted = own.adopt_orphan(first.id.clone(), name("taken-2")).await.unwrap();
    assert_eq!((adopted.name, adopted.generation), (name("taken-2"), 4), "the node has nothing to do");
    own.adopt_orphan(second.id.clone(), None).await.unwrap();
    assert!(matches!(own.adopt_orphan(second.id.clone(), None).await, Err(AdoptError::NotFound)));
    let lost = own.sandbox(SandboxKey::Name("lost".parse().unwrap())).await.unwrap().unwrap();
    assert_eq!((lost.id, lost.run_state), (second.id, RunState::Stopped));
    assert_eq!(bench.own().nodes().await.unwrap()[0].orphans, 0);
    assert_eq!(bench.room_used().await, (1500, 3072, 3));
    bench.changes.wait_for(|told| told.len() >= 3).await;
}

pub(super) async fn an_orphan_that_nobody_wants_is_deleted_by_its_node(bench: Bench) {
    let lost = stranger(&bench, "lost");
    settle(&bench, vec![lost.clone()], 9).await;
    let before = bench.store.system().desired(bench.node.clone(), None).await.unwrap().generation;
    let removed = bench.own().remove_orphan(lost.id.clone()).await.unwrap();
    assert_eq!((removed.run_state, removed.name, removed.generation), (RunState::Deleted, None, 5));
    let desired = bench.store.system().desired(bench.node.clone(), Some(before)).await.unwrap();
    assert_eq!((desired.sandboxes.len(), desired.sandboxes[0].run_state), (1, RunState::Deleted));
    assert_eq!(bench.room_used().await, (500, 1024, 1), "until it is gone");
    bench.observe(&lost.id, Phase::Gone, 11).await;
    assert_eq!(bench.room_used().await, (0, 0, 0));
    assert!(matches!(bench.own().remove_orphan(lost.id).await, Err(AdoptError::NotFound)));
}

/// The node took wishes of the time after the backup: a wish of this time must
/// not look like one of them.
pub(super) async fn a_wish_after_the_restore_is_never_taken_for_one_from_before(bench: Bench) {
    let made = bench.create(Some("box")).await.unwrap();
    let key = SandboxKey::Id(made.id.clone());
    let stopped = bench.own().set_run_state(key.clone(), Intent::Stop.into()).await.unwrap().sandbox;
    assert_eq!(stopped.generation, 2);
    // The node holds another generation 2, with restarts that are done.
    let on_node = Held { restart_count: 3, ..held(&made, 2) };
    assert_eq!(settle(&bench, vec![on_node], 9).await.changed, 1);
    let wish = bench.find(&made.id).await.unwrap();
    assert_eq!((wish.run_state, wish.generation, wish.restart_count), (RunState::Stopped, 3, 3));
    let again = bench.own().set_run_state(key, Intent::Restart.into()).await.unwrap().sandbox;
    assert_eq!(again.restart_count, 4, "a restart that the node has not done yet");
}

pub(super) async fn a_node_cannot_claim_the_sandbox_of_another(bench: Bench) {
    let made = bench.create(Some("box")).await.unwrap();
    let other = bench.join("n2").await;
    let settled = bench.store.system().settle(other, vec![held(&made, 9)], 0, 20).await.unwrap();
    assert_eq!((settled.orphans, settled.foreign), (0, vec![made.id.clone()]));
    let kept = bench.find(&made.id).await.unwrap();
    assert_eq!((kept.node_id, kept.generation), (bench.node.clone(), 1));
}

pub(super) async fn a_node_that_joined_after_the_backup_is_taken_back_by_its_id(bench: Bench) {
    let id = NodeId::random();
    bench.own().readmit_node(id.clone(), "n1".into(), 20).await.unwrap();
    assert!(matches!(bench.own().readmit_node(id.clone(), "n3".into(), 20).await, Err(ReadmitError::Known)));
    let node = bench.store.system().link_node(id.clone()).await.unwrap().unwrap();
    assert!(node.is_unsettled && node.name.starts_with("n1-"), "{node:?}");
    let lost = stranger(&bench, "lost");
    assert_eq!(bench.store.system().settle(id, vec![lost], 9, 21).await.unwrap().orphans, 1);
}
