//! Another daemon in the place of one that holds many desktops.

use std::collections::BTreeMap;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, within};
use tokio::time::{Instant, sleep};

/// Desktops that run meanwhile.
const SANDBOXES: usize = 100;
/// How many start at once.
const AT_ONCE: usize = 4;
/// How long all of it may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

fn processes(node: &TestNode, ids: &[SandboxId]) -> BTreeMap<String, Vec<u32>> {
    ids.iter().map(|id| (id.to_string(), node.cgroup(id.as_str()).process_ids())).collect()
}

async fn fill(node: &TestNode) -> Result<Vec<SandboxId>> {
    let spec = spec("bare")?;
    let mut ids = Vec::new();
    while ids.len() < SANDBOXES {
        let some = (0..AT_ONCE).map(|_| node.client.create_ready(&spec));
        ids.extend(futures::future::try_join_all(some).await?);
    }
    Ok(ids)
}

/// Time until the list shows all as Ready; nothing else may be seen of them
/// once they are shown.
async fn adopted(node: &TestNode, ids: &[SandboxId], begun: Instant) -> Result<u128> {
    loop {
        let list = node.client.list().await?;
        let phases = ids.iter().map(|id| list.get(id.as_str()).copied());
        let lost: Vec<_> = phases
            .clone()
            .filter(|p| matches!(p, None | Some(Phase::Failed | Phase::Stopping | Phase::Stopped)))
            .collect();
        assert!(lost.is_empty(), "a Ready was lost: {lost:?}");
        if phases.into_iter().all(|phase| phase == Some(Phase::Ready)) {
            return Ok(begun.elapsed().as_millis());
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_daemon_is_replaced_under_a_hundred_desktops_and_none_feels_it() -> Result<()> {
    let mut node = TestNode::start().await?;
    let ids = within("a hundred desktops", LIMIT, fill(&node)).await?;
    let before = processes(&node, &ids);
    assert!(before.values().all(|pids| !pids.is_empty()));
    let ready_at = node.client.get(&ids[0]).await?.ready_at_unix_ms;
    for (how, kill) in [("stopped as an upgrade does", false), ("killed", true)] {
        if kill {
            node.kill_daemon();
        } else {
            node.daemon.stop();
        }
        let begun = Instant::now();
        node.restart().await?;
        let took_ms = within("all are adopted", LIMIT, adopted(&node, &ids, begun)).await?;
        println!("{SANDBOXES} desktops, roostd {how}: all adopted {took_ms} ms after its start");
        assert_eq!(processes(&node, &ids), before, "the same processes");
        assert_eq!(node.client.get(&ids[0]).await?.ready_at_unix_ms, ready_at);
    }
    for id in [&ids[0], &ids[SANDBOXES / 2], &ids[SANDBOXES - 1]] {
        assert!(node.client.screenshot(id).await?.starts_with(b"\x89PNG"));
        assert_eq!(node.client.exec(id, &["/bin/echo", "well"]).await?.stdout, "well\n");
    }
    node.clear().await
}
