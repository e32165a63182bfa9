//! Nodes: enrolment, heartbeats, room, images.

use super::*;

pub(super) async fn deltas_hold_what_changed_since_their_base(bench: Bench) {
    let (first, second) = (bench.create(None).await.unwrap(), bench.create(None).await.unwrap());
    let desired = async |base| {
        let desired = bench.store.system().desired(bench.node.clone(), base).await.unwrap();
        (desired.generation, desired.sandboxes.into_iter().map(|s| s.id).collect::<Vec<_>>())
    };
    assert_eq!(desired(None).await, (2, vec![first.id.clone(), second.id.clone()]));
    assert_eq!(desired(Some(1)).await, (2, vec![second.id.clone()]));
    bench.own().set_run_state(SandboxKey::Id(first.id.clone()), Intent::Stop.into()).await.unwrap();
    assert_eq!(desired(Some(2)).await, (3, vec![first.id]));
    assert_eq!(desired(Some(3)).await, (3, vec![]));
}

pub(super) async fn observations_only_move_forward(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    bench.observe(&made.id, Phase::Ready, 5).await;
    bench.observe(&made.id, Phase::Starting, 4).await;
    bench.observe(&made.id, Phase::Starting, 5).await;
    let now = bench.find(&made.id).await.unwrap();
    assert_eq!((now.observed.phase, now.observed_at_unix_ms), (Phase::Ready, Some(5)));
}

pub(super) async fn a_session_that_was_fenced_changes_nothing(bench: Bench) {
    let (kept, deleted) = (bench.create(None).await.unwrap(), bench.create(None).await.unwrap());
    bench.own().set_run_state(SandboxKey::Id(deleted.id.clone()), Intent::Delete.into()).await.unwrap();
    bench.observe(&kept.id, Phase::Ready, 5).await;
    // The last word of an older daemon: all of it is wrong by now.
    let stale = |fence| HeartbeatBatch {
        fence,
        instance_id: "i0".into(),
        reset_revisions: true,
        listed: Some(HashSet::from([kept.id.clone()])),
        acked_generation: 99,
        observed: vec![(kept.id.clone(), Observed { phase: Phase::Failed, revision: 900, ..Observed::pending() })],
        ..bench.batch()
    };
    let system = bench.store.system();
    let ended = Fence::default();
    ended.closed.cancel();
    system.hold_node(bench.node.clone(), "here".into(), 5).await.unwrap();
    let elsewhere = Fence { replica: Some("there".into()), ..Fence::default() };
    for fence in [ended, elsewhere] {
        assert!(!system.apply_heartbeat(stale(fence)).await.unwrap());
        assert_eq!(bench.find(&kept.id).await.unwrap().observed.phase, Phase::Ready);
        assert!(bench.find(&deleted.id).await.is_some(), "it was never seen to go");
        assert_ne!(system.link_node(bench.node.clone()).await.unwrap().unwrap().instance_id, "i0");
    }
    let here = Fence { replica: Some("here".into()), ..Fence::default() };
    assert!(system.apply_heartbeat(stale(here)).await.unwrap());
    assert_eq!(bench.find(&kept.id).await.unwrap().observed.phase, Phase::Failed);
}

pub(super) async fn a_new_daemon_process_begins_its_revisions_anew(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    bench.observe(&made.id, Phase::Ready, 5).await;
    let observed = Observed { phase: Phase::Failed, revision: 1, ..Observed::pending() };
    let batch = HeartbeatBatch {
        instance_id: "i2".into(),
        reset_revisions: true,
        listed: Some(HashSet::from([made.id.clone()])),
        observed: vec![(made.id.clone(), observed)],
        ..bench.batch()
    };
    bench.store.system().apply_heartbeat(batch).await.unwrap();
    assert_eq!(bench.find(&made.id).await.unwrap().observed.phase, Phase::Failed);
    assert_eq!(bench.store.system().link_node(bench.node.clone()).await.unwrap().unwrap().instance_id, "i2");
}

pub(super) async fn a_deleted_sandbox_frees_its_room_when_its_node_says_gone(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    bench.own().set_run_state(SandboxKey::Id(made.id.clone()), Intent::Delete.into()).await.unwrap();
    bench.observe(&made.id, Phase::Ready, 1).await;
    assert_eq!(bench.find(&made.id).await.unwrap().observed.phase, Phase::Deleting);
    assert_eq!(bench.room_used().await, (500, 1024, 1));
    bench.observe(&made.id, Phase::Gone, 2).await;
    assert_eq!(bench.find(&made.id).await, None);
    assert_eq!(bench.room_used().await, (0, 0, 0));
}

pub(super) async fn a_full_list_ends_what_the_node_was_told_to_delete(bench: Bench) {
    let (kept, deleted) = (bench.create(None).await.unwrap(), bench.create(None).await.unwrap());
    bench.own().set_run_state(SandboxKey::Id(deleted.id.clone()), Intent::Delete.into()).await.unwrap();
    // The node has not heard of the deletion (generation 3) yet.
    bench.list_exactly(&[], 2).await;
    assert!(bench.find(&deleted.id).await.is_some());
    bench.list_exactly(&[&deleted.id], 3).await;
    assert!(bench.find(&deleted.id).await.is_some());
    bench.list_exactly(&[], 3).await;
    assert_eq!(bench.find(&deleted.id).await, None);
    assert!(bench.find(&kept.id).await.is_some());
}

pub(super) async fn a_join_token_is_good_once(bench: Bench) {
    let secret = bench.token().await;
    let tries = (0..8).map(|_| bench.enrol(&secret, "n2", 2));
    let results = futures::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(EnrolError::UsedToken))));
    assert_eq!(bench.own().nodes().await.unwrap().len(), 2);
}

pub(super) async fn an_expired_or_unknown_token_is_refused(bench: Bench) {
    let secret = bench.token().await;
    assert_eq!(bench.own().join_tokens(999).await.unwrap().len(), 1);
    assert_eq!(bench.own().join_tokens(1_000).await.unwrap().len(), 0);
    assert!(matches!(bench.enrol(&secret, "n2", 1_000).await, Err(EnrolError::ExpiredToken)));
    assert!(matches!(bench.enrol(&Secret::random("rjt"), "n2", 2).await, Err(EnrolError::UnknownToken)));
    let id = bench.own().join_tokens(2).await.unwrap()[0].id.clone();
    assert!(!bench.other().delete_join_token(id.clone()).await.unwrap());
    assert!(bench.own().delete_join_token(id).await.unwrap());
    assert!(matches!(bench.enrol(&secret, "n2", 2).await, Err(EnrolError::UnknownToken)));
}

pub(super) async fn a_taken_node_name_is_made_unique(bench: Bench) {
    let second = bench.join("n1").await;
    let names: Vec<_> = bench.own().nodes().await.unwrap().into_iter().map(|n| n.name).collect();
    assert_eq!(names, ["n1".to_owned(), format!("n1-{}", &second.as_str()[second.as_str().len() - 6..])]);
}

pub(super) async fn a_node_that_holds_sandboxes_stays(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    let delete = async || bench.own().delete_node(bench.node.clone(), false).await;
    assert!(matches!(delete().await, Err(DeleteNodeError::NotEmpty(1))));
    bench.own().set_run_state(SandboxKey::Id(made.id.clone()), Intent::Delete.into()).await.unwrap();
    bench.observe(&made.id, Phase::Gone, 1).await;
    delete().await.unwrap();
    assert!(bench.store.system().link_node(bench.node.clone()).await.unwrap().is_none());
    assert!(bench.own().images().await.unwrap().is_empty());
}

pub(super) async fn a_lost_node_takes_its_sandboxes_with_it(bench: Bench) {
    let made = bench.create(Some("box")).await.unwrap();
    assert!(matches!(bench.other().delete_node(bench.node.clone(), true).await, Err(DeleteNodeError::NotFound)));
    assert_eq!(bench.own().delete_node(bench.node.clone(), true).await.unwrap(), 1);
    assert_eq!(bench.find(&made.id).await, None);
    assert!(bench.own().nodes().await.unwrap().is_empty());
    bench.changes.wait_for(|told| told.last().is_some_and(|last| last == "gone")).await;
    let changes = crate::changes::lock(&bench.changes.0);
    let [.., Change::Gone { id, .. }, Change::Removed(node)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((id, node), (&made.id, &bench.node));
    // A feed that reads rows after the commit finds none: then only "gone" is told.
    let last = changes.iter().filter_map(|change| match change {
        Change::Sandbox(sandbox) if sandbox.observed.phase == Phase::Gone => Some(sandbox),
        _ => None,
    });
    assert!(last.into_iter().all(|sandbox| sandbox.observed.reason.as_deref() == Some("node-lost")));
}

pub(super) async fn a_pressure_keeps_sandboxes_away_while_it_is_true(bench: Bench) {
    let pressure = |is_true| NodeCondition {
        kind: "DiskPressure".into(),
        is_true,
        reason: "BelowThreshold".into(),
        message: "7 bytes are free".into(),
    };
    bench.report(&NodeStatus { conditions: vec![pressure(true)], ..status(4) }).await;
    let Err(CreateSandboxError::Place(error)) = bench.create(None).await else { panic!("placed under pressure") };
    assert!(error.to_string().contains("DiskPressure: 7 bytes"), "{error}");
    bench.report(&NodeStatus { conditions: vec![pressure(false)], ..status(4) }).await;
    assert!(bench.create(None).await.is_ok());
}

pub(super) async fn a_failing_condition_and_a_lost_image_keep_sandboxes_away(bench: Bench) {
    let sick = NodeCondition {
        kind: "ContainerdReady".into(),
        is_true: false,
        reason: "timeout".into(),
        message: "no answer".into(),
    };
    bench.report(&NodeStatus { conditions: vec![sick], ..status(4) }).await;
    let Err(CreateSandboxError::Place(error)) = bench.create(None).await else { panic!("placed on a sick node") };
    assert!(error.to_string().contains("ContainerdReady: no answer"), "{error}");
    bench.report(&NodeStatus { images: Vec::new(), ..status(4) }).await;
    let lost = bench.create(None).await;
    assert!(matches!(lost, Err(CreateSandboxError::Place(PlaceError::ImageNowhere(_)))));
    bench.store.system().add_image(bench.node.clone(), image()).await.unwrap();
    assert!(bench.create(None).await.is_ok());
    bench.store.system().remove_image(bench.node.clone(), image().reference).await.unwrap();
    assert!(bench.create(None).await.is_err());
}

pub(super) async fn images_are_grouped_by_reference_and_digest(bench: Bench) {
    let (second, third) = (bench.join("n2").await, bench.join("n3").await);
    let system = bench.store.system();
    system.add_image(second.clone(), image()).await.unwrap();
    system.add_image(third, ImageInfo { digest: "sha256:1".into(), ..image() }).await.unwrap();
    let images = bench.own().images().await.unwrap();
    let mut expected = vec![bench.node.clone(), second];
    expected.sort();
    assert_eq!(images.iter().map(|i| i.nodes.len()).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(images[0].nodes, expected);
}

pub(super) async fn heartbeat_times_and_old_rows(bench: Bench) {
    let system = bench.store.system();
    assert_eq!(system.heartbeat_times().await.unwrap(), [(bench.node.clone(), None)]);
    system.save_heartbeat_times(vec![(bench.node.clone(), 77)]).await.unwrap();
    // An older time of another replica.
    system.save_heartbeat_times(vec![(bench.node.clone(), 76)]).await.unwrap();
    assert_eq!(system.heartbeat_times().await.unwrap(), [(bench.node.clone(), Some(77))]);
    let keyed = NewSandbox { idempotency: Some(("key".into(), "a".into())), ..bench.new_sandbox(None) };
    bench.own().create_sandbox(keyed.clone(), place()).await.unwrap();
    assert_eq!(system.expire(10).await.unwrap(), 0);
    // The key of the creation at 10 and the node's join token, good until 1000.
    assert_eq!(system.expire(1_001).await.unwrap(), 2);
    let again = NewSandbox { id: SandboxId::random(), ..keyed };
    assert!(!bench.own().create_sandbox(again, place()).await.unwrap().replayed);
}

pub(super) async fn the_replica_of_the_last_session_is_known(bench: Bench) {
    let system = bench.store.system();
    let holder = async || system.link_node(bench.node.clone()).await.unwrap().unwrap().held_by;
    assert_eq!(holder().await, None);
    system.hold_node(bench.node.clone(), "central-0".into(), 80).await.unwrap();
    system.hold_node(bench.node.clone(), "central-1".into(), 90).await.unwrap();
    assert_eq!(holder().await.as_deref(), Some("central-1"));
    assert_eq!(system.heartbeat_times().await.unwrap(), [(bench.node.clone(), Some(90))]);
}

pub(super) async fn a_generation_is_raised_above_the_nodes_own(bench: Bench) {
    let system = bench.store.system();
    let generation = async || system.link_node(bench.node.clone()).await.unwrap().unwrap().desired_generation;
    system.raise_generation(bench.node.clone(), 40).await.unwrap();
    assert_eq!(generation().await, 41);
    system.raise_generation(bench.node.clone(), 7).await.unwrap();
    assert_eq!(generation().await, 41);
}

pub(super) async fn the_certificate_of_a_node_is_kept(bench: Bench) {
    let node = async || bench.own().node(bench.node.clone()).await.unwrap().unwrap();
    assert_eq!(node().await.certificate, None);
    let certificate = NodeCertificate { ca_key_id: "aa".into(), not_after_unix_ms: 7 };
    bench.store.system().save_certificate(bench.node.clone(), certificate.clone()).await.unwrap();
    assert_eq!(node().await.certificate, Some(certificate.clone()));
    let linked = bench.store.system().link_node(bench.node.clone()).await.unwrap().unwrap();
    assert_eq!(linked.certificate, Some(certificate));
}
