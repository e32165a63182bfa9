//! `roost node`.

use roost_proto::model::{NodeCap, Pressure, Stall};

use crate::central::Central;
use crate::fakes;
use crate::run::Roost;

#[test]
fn nodes_are_listed_shown_and_removed_by_name() {
    let central = Central::start();
    central.state().nodes = vec![fakes::node(fakes::NODE, "gpu-a")];
    let roost = Roost::of(&central);
    let table = roost.run(&["node", "ls"]).ok();
    let row: Vec<_> = table.lines().nth(1).unwrap().split("   ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(row, ["gpu-a", "Online", "1 / 1000", "0.5 / 2", "512 MiB / 20 GiB", "0.1.0", "60m"]);
    assert!(roost.run(&["node", "get", "gpu-a"]).ok().contains("roostd 0.1.0, containerd 1.6.20"));
    assert_eq!(roost.run(&["node", "rm", "gpu-a"]).ok(), "gpu-a removed\n");
    assert_eq!(central.requests("DELETE", &format!("/nodes/{}", fakes::NODE)).len(), 1);
    roost.run(&["node", "get", "gpu-z"]).failed(3);
}

#[test]
fn a_lost_node_is_given_up_only_when_told_so() {
    let central = Central::start();
    central.state().nodes = vec![fakes::node(fakes::NODE, "gpu-a")];
    let roost = Roost::of(&central);
    roost.run(&["node", "rm", "gpu-a"]).ok();
    roost.run(&["node", "rm", "gpu-a", "--force"]).ok();
    let removals = central.requests("DELETE", &format!("/nodes/{}", fakes::NODE));
    assert_eq!(removals.iter().map(|r| r.param("force")).collect::<Vec<_>>(), [None, Some("true")]);
}

#[test]
fn a_node_shows_its_cap_and_what_waits() {
    let central = Central::start();
    let mut node = fakes::node(fakes::NODE, "gpu-a");
    node.status.cap = Some(NodeCap { cpu_millis: 1900, memory_bytes: 23 << 30, pids: 30_720 });
    let stall = Stall { some_avg10_ppm: 123_400, full_avg10_ppm: Some(0) };
    node.status.load.pressure = Some(Pressure { io: Some(stall), ..Pressure::default() });
    central.state().nodes = vec![node];
    let card = Roost::of(&central).run(&["node", "get", "gpu-a"]).ok();
    assert!(card.contains("1.9 cores, 23 GiB, 30720 processes"), "{card}");
    assert!(card.contains("io 12.3 % (all 0.0 %)") && !card.contains("memory 0"), "{card}");
}

#[test]
fn a_join_token_alone_is_on_standard_output() {
    let central = Central::start();
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["node", "join-token", "--expires-in", "10m"]).ok(), "rjt_secret\n");
    let request = central.requests("POST", "/join-tokens").remove(0);
    assert_eq!(request.body.as_ref(), br#"{"expires_in_s":600}"#);
    assert!(roost.run(&["node", "join-token", "ls"]).ok().contains("join-0123456789abcdef"));
}
