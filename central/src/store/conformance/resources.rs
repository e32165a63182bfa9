//! Requests and limits that change while a sandbox lives.

use roost_proto::model::{ResourcesChange, UpdateSandbox};

use super::*;

fn change(cpu_request_millis: u32) -> NewResources {
    let change = ResourcesChange { cpu_request_millis: Some(cpu_request_millis), ..ResourcesChange::default() };
    let change = UpdateSandbox { resources: Some(change), lifetime: None };
    NewResources { change, if_generation: None, idempotency: None, now_unix_ms: 20 }
}

pub(super) async fn new_limits_reach_the_node_and_count_in_its_room(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    let before = bench.store.system().desired(bench.node.clone(), None).await.unwrap().generation;
    let set = bench.set(&made.id, change(700)).await.unwrap().sandbox;
    assert_eq!((set.generation, set.resources().cpu_request_millis), (made.generation + 1, 700));
    assert_eq!(set.spec, made.spec, "the spec stays as it was made");
    assert_eq!(bench.find(&made.id).await, Some(set.clone()));
    assert_eq!(bench.room_used().await, (700, 1024, 1));
    let delta = bench.store.system().desired(bench.node.clone(), Some(before)).await.unwrap();
    assert_eq!(delta.sandboxes, [set]);
    bench.set(&made.id, change(700)).await.unwrap();
    let same = bench.store.system().desired(bench.node.clone(), Some(delta.generation)).await.unwrap();
    assert_eq!(same.sandboxes, [], "the same again is no change");
    bench.own().set_run_state(SandboxKey::Id(made.id.clone()), Intent::Delete.into()).await.unwrap();
    assert!(matches!(bench.set(&made.id, change(100)).await, Err(UpdateSandboxError::Deleting)));
    bench.observe(&made.id, Phase::Gone, 1).await;
    assert_eq!(bench.room_used().await, (0, 0, 0), "what was set last is given back");
    assert!(matches!(bench.set(&made.id, change(100)).await, Err(UpdateSandboxError::NotFound)));
}

pub(super) async fn a_node_without_room_refuses_larger_requests_with_the_numbers(bench: Bench) {
    bench.report(&status(2)).await;
    let (made, _other) = (bench.create(None).await.unwrap(), bench.create(None).await.unwrap());
    let Err(UpdateSandboxError::Place(error)) = bench.set(&made.id, change(501)).await else { panic!("no room") };
    assert!(error.to_string().contains("n1: has 0 thousandths of a core free, 1 more"), "{error}");
    assert_eq!(bench.find(&made.id).await, Some(made.clone()));
    bench.report(&status(1)).await;
    bench.set(&made.id, change(100)).await.unwrap();
    assert_eq!(bench.room_used().await.0, 600, "a node that is too full takes smaller requests");
    let mut bad = change(100);
    bad.change.resources = Some(ResourcesChange { pids_limit: Some(1), ..ResourcesChange::default() });
    let Err(UpdateSandboxError::Invalid(errors)) = bench.set(&made.id, bad).await else { panic!("accepted") };
    assert_eq!(errors[0].field, "resources.pids_limit");
}

pub(super) async fn a_change_needs_the_generation_that_its_caller_saw(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    let with = |if_generation| NewResources { if_generation: Some(if_generation), ..change(700) };
    let stale = bench.set(&made.id, with(made.generation + 1)).await;
    assert!(matches!(stale, Err(UpdateSandboxError::Generation { held }) if held == made.generation));
    bench.set(&made.id, with(made.generation)).await.unwrap();
    assert!(matches!(bench.set(&made.id, with(made.generation)).await, Err(UpdateSandboxError::Generation { .. })));
}

pub(super) async fn the_same_key_changes_once(bench: Bench) {
    let made = bench.create(None).await.unwrap();
    let keyed = |cpu, body: &str| NewResources { idempotency: Some(("key".into(), body.into())), ..change(cpu) };
    let first = bench.set(&made.id, keyed(700, "a")).await.unwrap();
    bench.set(&made.id, change(300)).await.unwrap();
    let again = bench.set(&made.id, keyed(700, "a")).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(again.sandbox, first.sandbox);
    assert_eq!(bench.room_used().await.0, 300, "a late repetition does not undo what came after");
    assert!(matches!(bench.set(&made.id, keyed(800, "b")).await, Err(UpdateSandboxError::KeyReused)));
}
