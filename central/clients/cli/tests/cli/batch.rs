//! Many sandboxes by one command.

use roost_proto::model::{Phase, Sandbox};

use crate::central::Central;
use crate::fakes;
use crate::run::Roost;

#[test]
fn many_are_made_by_one_call_and_a_refused_one_holds_up_no_other() {
    let central = Central::start();
    let args = ["sandbox", "create", "desktop", "--count", "3", "--name", "desk", "--wait", "-o", "json"];
    let ended = Roost::of(&central).run(&args);
    let made: Vec<Sandbox> = serde_json::from_str(&ended.stdout).unwrap();
    let names: Vec<_> = made.iter().map(|sandbox| sandbox.name.as_ref().unwrap().to_string()).collect();
    assert_eq!(names, ["desk-1", "desk-3"]);
    assert!(made.iter().all(|sandbox| sandbox.observed.phase == Phase::Ready), "as they are at the end");
    let calls = central.requests("POST", "/sandboxes:batch");
    assert_eq!(calls.len(), 1);
    assert!(calls[0].header("idempotency-key").is_some());
    assert!(ended.failed(4).contains("a sandbox of this name exists"));
}

#[test]
fn many_without_a_name_are_shown_as_a_list() {
    let central = Central::start();
    let list = Roost::of(&central).run(&["sandbox", "create", "desktop", "--count", "2"]).ok();
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines[0].starts_with("NAME") && lines[1].starts_with("sbx-"), "{list}");
}

#[test]
fn rm_takes_what_a_selector_means_in_one_call() {
    let central = Central::start();
    for (name, phase) in [("a", Phase::Stopped), ("b", Phase::Ready), ("c", Phase::Failed), ("d", Phase::Ready)] {
        let mut sandbox = fakes::ready(fakes::named(name));
        sandbox.observed.phase = phase;
        central.state().put(sandbox);
    }
    let roost = Roost::of(&central);
    let left = || {
        let list = roost.run(&["sandbox", "ls", "-o", "name"]).ok();
        list.lines().map(String::from).collect::<Vec<_>>()
    };
    roost.run(&["sandbox", "rm", "--all-stopped", "--wait"]).ok();
    assert_eq!(left().len(), 2);
    assert_eq!(central.requests("POST", "/sandboxes:batch-delete").len(), 1);
    roost.run(&["sandbox", "rm", "-l", "phase=Ready,template=desktop", "--wait"]).ok();
    assert!(left().is_empty());
    assert!(roost.run(&["sandbox", "rm", "-l", "colour=red"]).failed(2).contains("phase=PHASE"));
    assert!(roost.run(&["sandbox", "rm", "--all", "--all-stopped"]).failed(2).contains("cannot be used"));
    roost.run(&["sandbox", "rm"]).failed(2);
}

#[test]
fn pause_and_resume_are_verbs_like_the_others() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["sandbox", "pause", "demo"]).ok(), "demo pausing\n");
    assert_eq!(roost.run(&["sandbox", "resume", "demo"]).ok(), "demo resuming\n");
    assert_eq!(central.requests("POST", "/sandboxes/demo/pause").len(), 1);
}

#[test]
fn times_are_typed_as_spans_and_shown() {
    let central = Central::start();
    let roost = Roost::of(&central);
    let args = ["sandbox", "create", "desktop", "--ttl", "8h", "--idle", "30m", "--idle-action", "pause"];
    roost.run(&args).ok();
    let body: serde_json::Value = serde_json::from_slice(&central.requests("POST", "/sandboxes")[0].body).unwrap();
    let lifetime = serde_json::json!({"ttl_ms": 28_800_000, "idle_timeout_ms": 1_800_000, "idle_action": "pause"});
    assert_eq!(body["lifetime"], lifetime);
    let mut demo = fakes::ready(fakes::named("demo"));
    demo.spec.lifetime.ttl_ms = 3_600_000;
    central.state().put(demo);
    let card = roost.run(&["sandbox", "get", "demo"]).ok();
    assert!(card.contains("Lifetime") && card.contains("time to live"), "{card}");
    assert!(roost.run(&["sandbox", "set", "demo"]).failed(2).contains("nothing to change"));
    assert!(roost.run(&["sandbox", "set", "demo", "--idle-action", "sleep"]).failed(2).contains("pause"));
}
