//! Simulated nodes at a real central: they take the same way as real ones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use roost_tests::fleet::{FleetOptions, SimFleet};
use roost_tests::{Rest, Result, eventually};
use serde_json::{Value, json};

/// How long a step over many sandboxes may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(120);
const SANDBOXES: &str = "/api/v1/sandboxes";

/// Heartbeats come often, so that no test waits for one.
fn options(nodes: u32, sandboxes: u32, sim: &[&str]) -> FleetOptions {
    let sim = sim.iter().map(ToString::to_string).collect();
    FleetOptions { nodes, sandboxes, link: "heartbeat_period_ms = 500".into(), sim }
}

async fn create(rest: &mut Rest, template: &str) -> Result<String> {
    let made = rest.good(Method::POST, SANDBOXES, Some(&json!({ "template": template }))).await?;
    Ok(made["id"].as_str().ok_or("a sandbox without id")?.to_owned())
}

/// How many sandboxes central shows in each phase.
async fn phases(rest: &mut Rest) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for sandbox in rest.list(SANDBOXES).await? {
        *counts.entry(sandbox["observed"]["phase"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(counts)
}

async fn eventually_phases(fleet: &SimFleet, expected: &[(&str, usize)]) -> Result<()> {
    let expected: BTreeMap<String, usize> = expected.iter().map(|(phase, n)| ((*phase).to_owned(), *n)).collect();
    let last = RefCell::new(BTreeMap::new());
    let reached = eventually("central shows the phases", LIMIT, || async {
        let seen = phases(&mut fleet.rest().await?).await?;
        let is_reached = seen == expected;
        *last.borrow_mut() = seen;
        Ok(is_reached.then_some(()))
    });
    reached.await.map_err(|error| format!("{error}: expected {expected:?}, last seen {last:?}").into())
}

#[tokio::test]
async fn a_simulated_sandbox_goes_through_the_whole_life_of_a_real_one() -> Result<()> {
    let fleet = SimFleet::start(options(2, 5, &["--start-ms", "40±5"])).await?;
    let mut rest = fleet.rest().await?;
    let id = create(&mut rest, "fluxbox").await?;
    let path = format!("{SANDBOXES}/{id}");
    let mut watch = fleet.rest().await?.watch(&id).await?;
    let ready = watch.until("Ready").await?;
    let stages: Vec<&str> =
        ready["observed"]["stages"].as_array().into_iter().flatten().filter_map(|s| s["stage"].as_str()).collect();
    let expected = [
        "ledger",
        "namespaces",
        "rootfs",
        "display_container",
        "display_server",
        "workload",
        "window_manager",
        "first_frame",
    ];
    assert_eq!(stages, expected);
    rest.good(Method::POST, &format!("{path}/stop"), None).await?;
    watch.until("Stopped").await?;
    rest.good(Method::POST, &format!("{path}/start"), None).await?;
    assert_eq!(watch.until("Ready").await?["observed"]["starts"], 2);
    rest.good(Method::DELETE, &path, None).await?;
    eventually("the sandbox is gone", LIMIT, || {
        let rest = fleet.rest();
        let path = path.clone();
        async move {
            let (status, _) = rest.await?.call(Method::GET, &path, None).await?;
            Ok((status == StatusCode::NOT_FOUND).then_some(()))
        }
    })
    .await?;
    let nodes = rest.good(Method::GET, "/api/v1/nodes", None).await?;
    let used: u64 = nodes["items"].as_array().into_iter().flatten().filter_map(|n| n["sandboxes"].as_u64()).sum();
    assert_eq!(used, 0, "its room is free again");
    Ok(())
}

#[tokio::test]
async fn a_simulated_failure_reaches_central_with_its_reason_and_stage() -> Result<()> {
    let fleet = SimFleet::start(options(1, 5, &["--start-ms", "0", "--fail", "1"])).await?;
    let mut rest = fleet.rest().await?;
    let id = create(&mut rest, "fluxbox").await?;
    let failed = fleet.rest().await?.watch(&id).await?.until("Failed").await?;
    let (reason, stage) = (&failed["observed"]["reason"], &failed["observed"]["stage"]);
    let known = [
        ("container-failed", "display_container"),
        ("display-failed", "display_server"),
        ("workload-exited", "first_frame"),
        ("start-timeout", "first_frame"),
    ];
    assert!(known.iter().any(|(r, s)| reason == r && stage == s), "{reason} at {stage}");
    assert!(failed["observed"]["message"].as_str().is_some_and(|m| m.contains("see")), "{failed}");
    Ok(())
}

#[tokio::test]
async fn a_thousand_sandboxes_on_fifty_nodes_outlive_lost_connections_daemons_and_central() -> Result<()> {
    let mut fleet = SimFleet::start(options(50, 20, &["--start-ms", "20±5", "--busy", "0.1"])).await?;
    let mut rest = fleet.rest().await?;
    // Its restart policy is never: what ends stays Failed.
    for _ in 0..1000 {
        create(&mut rest, "bare").await?;
    }
    let (status, problem) = rest.call(Method::POST, SANDBOXES, Some(&json!({ "template": "fluxbox" }))).await?;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("nothing-fits")), "{problem}");
    eventually_phases(&fleet, &[("Ready", 1000)]).await?;

    // Connections break: nothing happens to what runs.
    assert_eq!(fleet.sim.obey("disconnect 0.5")?["met"], 25);
    // Daemons are killed: the next ones adopt what runs.
    assert_eq!(fleet.sim.obey("restart 0.2")?["met"], 10);
    fleet.all_connected().await?;
    assert_eq!(fleet.sim.obey("crash 5")?["met"], 5);
    assert_eq!(fleet.sim.obey("oom 3")?["met"], 3);
    eventually_phases(&fleet, &[("Failed", 8), ("Ready", 992)]).await?;
    let list = rest.list(SANDBOXES).await?;
    assert!(list.iter().all(|s| s["observed"]["starts"] == 1), "nothing was started again");
    let code = |code: i64| list.iter().filter(|s| s["observed"]["exit_code"] == code).count();
    assert_eq!((code(1), code(137)), (5, 3));

    // Central dies; what ends meanwhile is told afterwards.
    fleet.central.kill();
    fleet.sim.obey("crash 2")?;
    fleet.restart_central().await?;
    fleet.all_connected().await?;
    eventually_phases(&fleet, &[("Failed", 10), ("Ready", 990)]).await?;

    // The nodes lose all they hold: central's word brings it back.
    fleet.restart_sim().await?;
    eventually_phases(&fleet, &[("Ready", 1000)]).await?;
    let mut rest = fleet.rest().await?;
    for sandbox in list {
        let id = sandbox["id"].as_str().unwrap_or_default();
        rest.good(Method::DELETE, &format!("{SANDBOXES}/{id}"), None).await?;
    }
    eventually_phases(&fleet, &[]).await?;
    assert_eq!(fleet.sim.obey("status")?["ready"], 0);
    Ok(())
}

#[tokio::test]
async fn a_picture_of_a_simulated_desktop_comes_through_the_tunnel() -> Result<()> {
    let fleet = SimFleet::start(options(1, 1, &["--start-ms", "0"])).await?;
    let mut rest = fleet.rest().await?;
    let id = create(&mut rest, "fluxbox").await?;
    fleet.rest().await?.watch(&id).await?.until("Ready").await?;
    let picture = rest.bytes(&format!("{SANDBOXES}/{id}/screenshot")).await?;
    let reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info()?;
    assert_eq!((reader.info().width, reader.info().height), (1280, 800));
    Ok(())
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_answered_and_not_obeyed() -> Result<()> {
    let mut fleet = SimFleet::start(options(1, 1, &[])).await?;
    let refused = fleet.sim.obey("reboot 1").unwrap_err();
    assert!(refused.to_string().contains("disconnect SHARE"), "{refused}");
    assert_eq!(fleet.sim.obey("status")?["connected"], Value::from(1));
    Ok(())
}
