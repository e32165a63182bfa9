//! `roost node`.

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
fn a_join_token_alone_is_on_standard_output() {
    let central = Central::start();
    let roost = Roost::of(&central);
    assert_eq!(roost.run(&["node", "join-token", "--expires-in", "10m"]).ok(), "rjt_secret\n");
    let request = central.requests("POST", "/join-tokens").remove(0);
    assert_eq!(request.body.as_ref(), br#"{"expires_in_s":600}"#);
    assert!(roost.run(&["node", "join-token", "ls"]).ok().contains("join-0123456789abcdef"));
}
