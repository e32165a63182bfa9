//! `roost sandbox`.

use roost_proto::model::Phase;

use crate::central::Central;
use crate::fakes;
use crate::run::Roost;

#[test]
fn create_prints_the_name_and_returns_at_once() {
    let central = Central::start();
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["sandbox", "create", "desktop", "--name", "demo"]).ok(), "demo created\n");
    let id = roost.run(&["sandbox", "create", "desktop", "-o", "name"]).ok();
    assert!(id.starts_with("sbx-"), "{id}");
}

#[test]
fn create_waits_until_ready_and_tells_the_stages() {
    let central = Central::start();
    let ended = Roost::of(&central).run(&["sb", "create", "desktop", "--name", "demo", "--wait"]);
    assert!(ended.stderr.contains("demo Starting: window_manager\n"), "{}", ended.stderr);
    assert!(!ended.stderr.contains(['\r', '\u{1b}']), "control characters in a pipe: {:?}", ended.stderr);
    let line = ended.ok();
    assert!(
        line.starts_with("demo Ready in 231 ms (ledger 2, namespaces 3, rootfs 40, display_container 61"),
        "{line}"
    );
}

#[test]
fn programs_that_wait_get_the_sandbox_itself() {
    let central = Central::start();
    let json = Roost::of(&central).run(&["sandbox", "create", "desktop", "--wait", "-o", "json"]).ok();
    let sandbox: roost_proto::model::Sandbox = serde_json::from_str(&json).unwrap();
    assert_eq!(sandbox.observed.phase, Phase::Ready);
}

#[test]
fn a_create_whose_answer_is_lost_makes_one_sandbox() {
    let central = Central::start();
    central.state().lost_creates = 1;
    Roost::of(&central).run(&["sandbox", "create", "desktop", "--name", "demo"]).ok();
    let keys: Vec<_> =
        central.requests("POST", "/sandboxes").iter().map(|r| r.header("idempotency-key").map(String::from)).collect();
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(central.state().sandboxes.len(), 1);
}

#[test]
fn the_environment_is_the_files_then_the_options() {
    let central = Central::start();
    let roost = Roost::of(&central);
    std::fs::write(roost.home().join("env"), "A=file\nB=file\n").unwrap();
    roost.run(&["sandbox", "create", "desktop", "--env-file", "env", "-e", "B=typed"]).ok();
    let request = central.requests("POST", "/sandboxes").remove(0);
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["env"], serde_json::json!({"A": "file", "B": "typed"}));
}

#[test]
fn a_refusal_is_one_line_with_its_fields_and_an_exit_code() {
    let central = Central::start();
    let roost = Roost::of(&central);
    let error = roost.run(&["sandbox", "create", "nope"]).failed(3);
    assert_eq!(error, "error: there is no template \"nope\": see roost template ls\n  template: does not exist\n");
    roost.run(&["sandbox", "create", "desktop", "--name", "demo"]).ok();
    let error = roost.run(&["sandbox", "create", "desktop", "--name", "demo"]).failed(4);
    assert!(error.starts_with("error: the name is taken"), "{error}");
    assert!(roost.run(&["sandbox", "create", "Desktop"]).failed(2).contains("use 1-63 of a-z"));
}

#[test]
fn a_failed_start_tells_why_and_what_to_do_next() {
    let central = Central::start();
    central.state().start_fails = Some(("workload-exited", "The program ended with exit code 1."));
    let error = Roost::of(&central).run(&["sandbox", "create", "desktop", "--name", "demo", "--wait"]).failed(1);
    assert!(
        error.ends_with(
            "error: demo failed in stage window_manager: workload-exited: The program ended with exit code 1.\n\
             hint: roost sandbox logs demo\n"
        ),
        "{error}"
    );
}

#[test]
fn a_wait_that_takes_too_long_ends_with_its_own_code() {
    let central = Central::start();
    central.state().start_hangs = true;
    let args = ["sandbox", "create", "desktop", "--name", "demo", "--wait", "--timeout", "300ms"];
    let error = Roost::of(&central).run(&args).failed(6);
    assert!(error.contains("demo is not Ready after 300ms: it is Starting: window_manager"), "{error}");
}

#[test]
fn a_wait_survives_broken_watches() {
    let central = Central::start();
    central.state().broken_watches = 2;
    let line = Roost::of(&central).run(&["sandbox", "create", "desktop", "--name", "demo", "--wait"]).ok();
    assert!(line.starts_with("demo Ready in"), "{line}");
    let watches = central.requests("GET", "/watch/sandboxes");
    assert!(watches.len() > 1 && watches[1].header("last-event-id").is_some(), "{watches:?}");
}

#[test]
fn the_list_is_a_table_without_borders() {
    let central = Central::start();
    central.state().nodes = vec![fakes::node(fakes::NODE, "gpu-a")];
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    let table = roost.run(&["sandbox", "ls"]).ok();
    let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["NAME", "STATUS", "TEMPLATE", "NODE", "MEMORY", "AGE"]);
    assert_eq!(lines[1][..5], ["demo", "Ready", "desktop", "gpu-a", "-"]);
    assert_eq!(roost.run(&["sandbox", "ls", "--no-headers"]).ok().lines().count(), 1);
    assert_eq!(roost.run(&["sandbox", "ls", "-o", "name"]).ok(), "demo\n");
    assert!(roost.run(&["sandbox", "ls", "-o", "yaml"]).ok().contains("phase: Ready"));
}

#[test]
fn lists_follow_every_page() {
    let central = Central::start();
    central.state().page_size = Some(2);
    for name in ["a", "b", "c", "d", "e"] {
        central.state().put(fakes::named(name));
    }
    let mut names: Vec<_> =
        Roost::of(&central).run(&["sandbox", "ls", "-o", "name"]).ok().lines().map(String::from).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(central.requests("GET", "/sandboxes").len(), 3);
}

#[test]
fn an_empty_list_says_how_to_begin_and_stays_empty_for_programs() {
    let central = Central::start();
    let ended = Roost::of(&central).run(&["sandbox", "ls"]);
    assert!(ended.stderr.contains("roost sandbox create"), "{}", ended.stderr);
    assert_eq!(ended.ok(), "");
    assert_eq!(Roost::of(&central).run(&["sandbox", "ls", "-o", "json"]).ok(), "[]\n");
}

#[test]
fn several_sandboxes_fail_one_by_one() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("a")));
    central.state().put(fakes::ready(fakes::named("c")));
    let ended = Roost::of(&central).run(&["sandbox", "stop", "a", "b", "c", "--wait"]);
    assert!(ended.stdout.contains("a Stopped\n") && ended.stdout.contains("c Stopped\n"), "{}", ended.stdout);
    assert!(ended.failed(3).contains("there is no sandbox \"b\""));
}

#[test]
fn restart_does_not_take_the_old_ready_for_the_new_one() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let ended = Roost::of(&central).run(&["sandbox", "restart", "demo", "--wait"]);
    assert!(ended.stderr.contains("demo Starting"), "{}", ended.stderr);
    assert!(ended.ok().starts_with("demo Ready in 231 ms"));
}

#[test]
fn rm_waits_until_the_sandbox_is_gone() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["sandbox", "rm", "demo", "--wait"]).ok(), "demo Gone\n");
    assert!(central.state().sandboxes.is_empty());
    roost.run(&["sandbox", "rm", "demo"]).failed(3);
    roost.run(&["sandbox", "rm", "demo", "--ignore-not-found"]).ok();
}

#[test]
fn rm_all_removes_everything_without_asking_a_script() {
    let central = Central::start();
    for name in ["a", "b", "c"] {
        central.state().put(fakes::ready(fakes::named(name)));
    }
    Roost::of(&central).run(&["sandbox", "delete", "--all", "--wait"]).ok();
    assert!(central.state().sandboxes.is_empty());
}

#[test]
fn wait_knows_what_is_gone_already() {
    let central = Central::start();
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["sandbox", "wait", "demo", "--for=Gone"]).ok(), "demo Gone\n");
    roost.run(&["sandbox", "wait", "demo", "--for=Ready"]).failed(3);
}

#[test]
fn get_shows_a_card_to_people_and_the_document_to_programs() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    let card = roost.run(&["sandbox", "get", "demo"]).ok();
    let says = |words: &[&str]| card.lines().any(|line| line.split_whitespace().eq(words.iter().copied()));
    assert!(says(&["Status:", "Ready"]) && card.contains("Last start, 231 ms:\n"), "{card}");
    assert!(says(&["Window", "manager:", "image"]), "{card}");
    let json: serde_json::Value =
        serde_json::from_str(&roost.run(&["sandbox", "get", "demo", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["name"], "demo");
}

#[test]
fn screenshot_saves_the_picture_and_says_where() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["sandbox", "screenshot", "demo"]).ok(), "demo.png (1280x800, 24 B)\n");
    let saved = std::fs::read(roost.home().join("demo.png")).unwrap();
    let piped = roost.run(&["sandbox", "screenshot", "demo", "-o", "-"]);
    assert_eq!((piped.code, &piped.raw), (0, &saved));
    let error = roost.run(&["sandbox", "screenshot", "demo", "-o", "no/such/dir/x.png"]).failed(1);
    assert!(error.starts_with("error: cannot write no/such/dir/x.png: No such file"), "{error}");
}

#[test]
fn logs_ask_for_the_right_output() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["sandbox", "logs", "demo"]).ok(), "workload tail=all follow=false\n");
    let args = ["sandbox", "logs", "demo", "-f", "--tail", "5", "--display"];
    assert_eq!(roost.run(&args).ok(), "display tail=5 follow=true\n");
}

#[test]
fn watch_shows_the_list_and_then_every_change() {
    use std::io::{BufRead as _, BufReader};
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    let mut child = roost.command(&["sandbox", "ls", "--watch", "--no-headers"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap().split_whitespace().take(2).map(String::from).collect::<Vec<_>>();
    assert_eq!(next(), ["demo", "Ready"]);
    roost.run(&["sandbox", "rm", "demo"]).ok();
    assert_eq!(next(), ["demo", "Deleting"]);
    assert_eq!(next(), ["demo", "Gone"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    let mut child = roost.command(&["sandbox", "ls"]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn limits_are_set_in_the_units_that_people_type() {
    let central = Central::start();
    let id = central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    let args = ["sandbox", "set", "demo", "--cpu", "1500m", "--memory", "8Gi", "--pids", "300", "--shm", "256Mi"];
    assert_eq!(roost.run(&args).ok(), "demo changed\n");
    let request = central.requests("PATCH", "/sandboxes/demo").remove(0);
    assert!(request.header("idempotency-key").is_some());
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let expected = serde_json::json!({"resources": {"cpu_limit_millis": 1500, "memory_limit_bytes": 8_u64 << 30,
        "pids_limit": 300, "shm_bytes": 256 << 20}});
    assert_eq!(body, expected);
    assert!(roost.run(&["sandbox", "get", &id]).ok().contains("limit 8 GiB, /dev/shm 256 MiB"));
    roost.run(&["sandbox", "set", "demo"]).failed(2);
    roost.run(&["sandbox", "set", "demo", "--memory", "much"]).failed(2);
    roost.run(&["sandbox", "set", "demo", "--pids", "1"]).failed(2);
    roost.run(&["sandbox", "set", "demo", "--pids", "400", "--if-generation", "1"]).failed(4);
}

#[test]
fn a_wait_for_limits_ends_when_they_are_in_force_or_refused() {
    let central = Central::start();
    central.state().put(fakes::ready(fakes::named("demo")));
    let roost = Roost::of(&central);
    let set = |memory| roost.run(&["sandbox", "set", "demo", "--memory", memory, "--shm", "64Mi", "--wait"]);
    assert_eq!(set("2Gi").ok(), "demo updated\n");
    let refused = set("512Mi");
    assert!(refused.stderr.contains("demo keeps an old limit: memory is in use"), "{}", refused.stderr);
    refused.failed(4);
}
