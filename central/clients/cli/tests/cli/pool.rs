//! `roost pool` and `roost sandbox claim`.

use serde_json::{Value, json};

use crate::central::Central;
use crate::run::Roost;

fn sent(central: &Central, method: &str, path: &str) -> Value {
    serde_json::from_slice(&central.requests(method, path).remove(0).body).unwrap()
}

#[test]
fn a_pool_is_set_as_it_was_typed() {
    let central = Central::start();
    let line =
        "pool set desks --template desktop --min-ready 2 --demand-window 5s --update recreate --node gpu-1 -e A=1";
    let said = Roost::of(&central).run(&line.split(' ').collect::<Vec<_>>()).ok();
    assert_eq!(said, "desks set; see roost pool get desks\n");
    let pool = sent(&central, "PUT", "/pools/desks");
    assert_eq!((&pool["min_ready"], &pool["max"], &pool["demand_window_ms"]), (&json!(2), &json!(4), &json!(5000)));
    assert_eq!((&pool["update"], &pool["nodes"]), (&json!("recreate"), &json!(["gpu-1"])));
    assert_eq!(pool["env"], json!({"A": "1"}));
}

#[test]
fn a_pool_that_cannot_be_is_refused_before_it_is_sent() {
    let central = Central::start();
    let set = ["pool", "set", "desks", "--template", "desktop", "--min-ready", "3", "--max", "2"];
    assert!(Roost::of(&central).run(&set).failed(2).contains("min_ready"));
    let local = ["pool", "set", "central-a", "--socket", "x", "--template-file", "t", "--profile-file", "p"];
    let refused = Roost::alone().run(&[&local[..], &["--min-ready", "1"]].concat()).failed(2);
    assert!(refused.contains("central's pools"), "{refused}");
    assert!(central.requests("PUT", "/pools/desks").is_empty());
}

#[test]
fn pools_are_shown_over_all_nodes_and_on_each() {
    let central = Central::start();
    let roost = Roost::of(&central);
    let list = roost.run(&["pool", "ls"]).ok();
    assert!(list.contains("3 / 4") && list.contains("gpu-2: the image is on no registry"), "{list}");
    let nodes = roost.run(&["pool", "get", "desks"]).ok();
    assert!(nodes.contains("2 / 2") && nodes.contains("1 / 2"), "{nodes}");
    let json: Value = serde_json::from_str(&roost.run(&["pool", "get", "desks", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["nodes"][0]["standing"]["hits"], 7);
    assert_eq!(roost.run(&["pool", "ls", "-o", "name"]).ok(), "desks\n");
    assert_eq!(roost.run(&["pool", "rm", "desks"]).ok(), "pool desks deleted\n");
    assert!(roost.run(&["pool", "rm", "nobodys"]).failed(3).contains("roost pool ls"));
}

#[test]
fn a_claim_brings_files_and_secrets_from_where_they_are() {
    let central = Central::start();
    let roost = Roost::of(&central).var("API_KEY", "from the environment");
    std::fs::write(roost.home().join("in.txt"), "hi").unwrap();
    std::fs::write(roost.home().join("cert"), [0, 255]).unwrap();
    let line = "sandbox claim desks --name demo -e TASK=42 --file in.txt:/home/agent/in:0640 --secret API_KEY \
                --secret cert=@cert --secret piped=- --identity agent=agt-7 --hostname desk --claim-id clm-0123456789abcdef";
    let said = roost.run_with(&line.split_whitespace().collect::<Vec<_>>(), b"from the pipe").ok();
    assert!(said.starts_with("demo claimed, bound in 4"), "{said}");
    let claim = sent(&central, "POST", "/claims");
    assert_eq!(claim["files"], json!([{"path": "/home/agent/in", "content": "aGk=", "mode": "0640"}]));
    assert_eq!(claim["secrets"]["cert"], "AP8=");
    assert_eq!(claim["secrets"]["API_KEY"], "ZnJvbSB0aGUgZW52aXJvbm1lbnQ=");
    assert_eq!(claim["secrets"]["piped"], "ZnJvbSB0aGUgcGlwZQ==");
    assert_eq!((&claim["identity"], &claim["hostname"]), (&json!({"agent": "agt-7"}), &json!("desk")));
    let key = central.requests("POST", "/claims").remove(0).header("idempotency-key").map(String::from);
    assert_eq!(key.as_deref(), Some("clm-0123456789abcdef"));
}

#[test]
fn the_hook_decides_how_the_command_ends_and_a_cold_start_is_said() {
    let central = Central::start();
    let roost = Roost::of(&central);
    let failed = roost.run(&["sandbox", "claim", "desks", "-e", "STATUS=3"]);
    assert!(failed.code == 8 && failed.stdout.contains("hook ended with 3"), "{}{}", failed.stdout, failed.stderr);
    let good = roost.run(&["sandbox", "claim", "empty", "-e", "STATUS=0"]).ok();
    assert!(good.contains("hook ended with 0; started for this claim: the pool has no desktop ready"), "{good}");
}

#[test]
fn a_secret_that_cannot_be_had_is_named_and_nothing_is_claimed() {
    let central = Central::start();
    let roost = Roost::of(&central);
    let unset = roost.run(&["sandbox", "claim", "desks", "--secret", "KEY=env:NOT_SET"]).failed(2);
    assert!(unset.contains("NOT_SET") && unset.contains("KEY=@FILE"), "{unset}");
    roost.run(&["sandbox", "claim", "desks", "--secret", "KEY=@nowhere"]).failed(1);
    roost.run(&["sandbox", "claim", "desks", "--secret", "KEY=s3cret"]).failed(2);
    let twice = roost.run(&["sandbox", "claim", "desks", "--secret", "A=-", "--secret", "B=-"]).failed(2);
    assert!(twice.contains("standard input"), "{twice}");
    assert!(central.requests("POST", "/claims").is_empty());
}
