//! Nothing that is killed loses a running sandbox or leaves something behind.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use roost_tests::client::{PHASE_LIMIT, request};
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, eventually, traces, within};

/// Sandboxes of the adoption tests; a bench does it with 50.
const SANDBOXES: usize = 6;

/// Processes of every sandbox, by cgroup.
fn processes(node: &TestNode) -> BTreeMap<String, Vec<String>> {
    let parent = node.cgroup_parent();
    let of = |name: &String| {
        let v1 = format!("/sys/fs/cgroup/pids/{parent}/{name}/cgroup.procs");
        let v2 = format!("/sys/fs/cgroup/{parent}/{name}/cgroup.procs");
        let text = std::fs::read_to_string(v1).or_else(|_| std::fs::read_to_string(v2)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let names = traces::cgroups_below(&parent);
    names.iter().filter(|n| n.contains("sbx-")).map(|name| (name.clone(), of(name))).collect()
}

async fn several(node: &TestNode, count: usize) -> Result<Vec<SandboxId>> {
    let spec = spec("bare")?;
    let creates = (0..count).map(|_| node.client.create_ready(&spec));
    futures::future::try_join_all(creates).await
}

async fn all_ready(node: &TestNode, ids: &[SandboxId]) -> Result<()> {
    eventually("all sandboxes are Ready", PHASE_LIMIT, || async {
        let list = node.client.list().await?;
        Ok(ids.iter().all(|id| list.get(id.as_str()) == Some(&Phase::Ready)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_killed_daemon_adopts_every_running_sandbox_without_touching_it() -> Result<()> {
    let mut node = TestNode::start().await?;
    let ids = several(&node, SANDBOXES).await?;
    let before = processes(&node);
    let ready_at = node.client.get(&ids[0]).await?.ready_at_unix_ms;
    node.kill_daemon();
    assert_eq!(processes(&node), before, "sandboxes outlive the daemon");
    node.restart().await?;
    all_ready(&node, &ids).await?;
    assert_eq!(processes(&node), before, "same processes");
    let observed = node.client.get(&ids[0]).await?;
    assert_eq!(observed.ready_at_unix_ms, ready_at);
    assert!(!observed.stages.is_empty(), "the timings of the start are kept");
    assert_eq!(node.client.exec(&ids[0], &["/bin/echo", "alive"]).await?.stdout, "alive\n");
    node.clear().await
}

#[tokio::test]
async fn what_ended_while_the_daemon_was_away_is_seen_and_what_nobody_owns_is_reaped() -> Result<()> {
    let mut node = TestNode::start().await?;
    let ids = several(&node, 2).await?;
    let victim = processes(&node).remove(&format!("{}/workload", ids[0])).ok_or("no workload")?;
    node.kill_daemon();
    kill(Pid::from_raw(victim[0].parse()?), Signal::SIGKILL)?;
    let orphan = SandboxId::random();
    std::fs::create_dir_all(node.state().join("sandboxes").join(orphan.as_str()).join("upper/x"))?;
    node.restart().await?;
    eventually("the end is seen", PHASE_LIMIT, || async {
        let list = node.client.list().await?;
        let phases = ids.iter().map(|id| list.get(id.as_str()).copied()).collect::<Vec<_>>();
        Ok((phases == [Some(Phase::Failed), Some(Phase::Ready)]).then_some(()))
    })
    .await?;
    eventually("the orphan is reaped", PHASE_LIMIT, || async {
        Ok((!node.state().join("sandboxes").join(orphan.as_str()).exists()).then_some(()))
    })
    .await?;
    node.clear().await
}

#[tokio::test]
async fn a_lost_ledger_is_rebuilt_from_what_runs() -> Result<()> {
    let mut node = TestNode::start().await?;
    let ids = several(&node, 2).await?;
    let before = processes(&node);
    node.kill_daemon();
    // Not a database any more.
    for entry in std::fs::read_dir(node.state().join("ledger"))? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::write(path, b"garbage")?;
        }
    }
    node.restart().await?;
    all_ready(&node, &ids).await?;
    assert_eq!(processes(&node), before, "same processes");
    node.clear().await
}

#[tokio::test]
async fn a_killed_containerd_comes_back_without_a_lost_sandbox() -> Result<()> {
    let mut node = TestNode::start().await?;
    let ids = several(&node, 2).await?;
    let before = processes(&node);
    node.containerd.kill();
    // Wanted while containerd is away: carried out when it is back.
    let late = node.client.create(&spec("bare")?).await?;
    node.containerd.restart().await?;
    node.client.reaches(&late, Phase::Ready).await?;
    all_ready(&node, &ids).await?;
    let after = processes(&node);
    assert!(before.iter().all(|(name, pids)| after.get(name) == Some(pids)), "same processes");
    // Events flow again.
    let victim = &after[&format!("{}/workload", ids[1])];
    kill(Pid::from_raw(victim[0].parse()?), Signal::SIGKILL)?;
    eventually("an end is seen", PHASE_LIMIT, || async {
        Ok((node.client.list().await?.get(ids[1].as_str()) == Some(&Phase::Failed)).then_some(()))
    })
    .await?;
    node.clear().await
}

#[tokio::test]
async fn a_killed_display_or_shim_fails_the_sandbox_and_a_start_brings_it_back() -> Result<()> {
    let node = TestNode::start().await?;
    let ids = several(&node, 2).await?;
    let all = processes(&node);
    let display = &all[&format!("{}/display", ids[0])];
    kill(Pid::from_raw(display[0].parse()?), Signal::SIGKILL)?;
    let shims = traces::processes_with(&format!("-id {}", ids[1]));
    assert!(!shims.is_empty(), "one shim holds both containers of a sandbox");
    for (pid, _) in shims {
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    }
    for (id, reasons) in [(&ids[0], &["display-exited"][..]), (&ids[1], &["display-exited", "workload-exited"])] {
        let failed = || async {
            let observed = node.client.get(id).await?;
            Ok((observed.phase == Phase::Failed).then_some(observed.reason.unwrap_or_default()))
        };
        let reason = eventually("the loss is seen", PHASE_LIMIT, failed).await?;
        assert!(reasons.contains(&reason.as_str()), "{reason}");
        node.client.api.clone().start_sandbox(request(id)).await?;
        let ready = || async { Ok((node.client.get(id).await?.phase == Phase::Ready).then_some(())) };
        eventually("it is Ready again", PHASE_LIMIT, ready).await?;
    }
    node.clear().await
}

#[tokio::test]
async fn a_second_daemon_on_the_same_root_is_refused() -> Result<()> {
    let node = TestNode::start().await?;
    let config = node.root.join("roostd.toml").display().to_string();
    let log = node.root.join("second.log");
    let program = roost_tests::node::binary("roostd")?;
    let mut second = roost_tests::process::Process::start(&program, &["--config", &config], &log)?;
    eventually("the second daemon ends", PHASE_LIMIT, || {
        let ended = !second.is_running();
        async move { Ok(ended.then_some(())) }
    })
    .await?;
    assert!(second.output().contains("another roostd runs on"), "{}", second.output());
    node.client.list().await?;
    Ok(())
}

#[tokio::test]
async fn a_start_is_given_up_when_it_is_no_longer_wanted() -> Result<()> {
    let node = TestNode::start().await?;
    let mut slow = spec("bare")?;
    slow.window_manager = roost_proto::model::WindowManager::Image;
    let id = node.client.create(&slow).await?;
    let waits = || async {
        Ok((node.client.get(&id).await?.stage == Some(roost_proto::model::Stage::WindowManager)).then_some(()))
    };
    eventually("it waits for a window manager", PHASE_LIMIT, waits).await?;
    node.client.api.clone().delete_sandbox(request(&id)).await?;
    // Well before the start would time out by itself.
    within("the start is given up", Duration::from_secs(15), node.client.reaches(&id, Phase::Gone)).await?;
    assert!(node.client.list().await?.is_empty());
    Ok(())
}
