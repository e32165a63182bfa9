//! Time on a real node: what stands still, goes on, and ends because its time
//! is over.

use std::path::PathBuf;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Ends, ExpiryAction, Lifetime, Observed, Phase, SandboxSpec};
use roost_proto::node as wire;
use roost_tests::client::request;
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, eventually};

/// How long something may take that is not waited for on purpose.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a process that stands still is watched.
const STILL: Duration = Duration::from_millis(400);

/// A desktop whose workload counts as fast as it can write, and notes a SIGTERM.
fn counting() -> Result<SandboxSpec> {
    let script = "trap 'echo asked >/tmp/asked; exit 0' TERM; while :; do echo >>/tmp/count; sleep 0.01; done";
    Ok(SandboxSpec { command: vec!["/bin/sh".into(), "-c".into(), script.into()], ..spec("bare")? })
}

/// A file that the workload wrote, as the host sees it.
fn file_of(node: &TestNode, id: &SandboxId, name: &str) -> Result<PathBuf> {
    let dir = node.state().join("sandboxes").join(id.as_str());
    let mut found = Vec::new();
    find(&dir, name, &mut found);
    Ok(found.into_iter().next().ok_or_else(|| format!("{name} of {id} is not below {}", dir.display()))?)
}

fn find(dir: &std::path::Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => find(&path, name, found),
            Ok(kind) if kind.is_file() && entry.file_name() == name => found.push(path),
            _ => {}
        }
    }
}

fn count(node: &TestNode, id: &SandboxId) -> Result<u64> {
    Ok(std::fs::metadata(file_of(node, id, "count")?)?.len())
}

async fn counts_on(node: &TestNode, id: &SandboxId) -> Result<()> {
    let before = count(node, id).unwrap_or_default();
    eventually("the workload goes on", LIMIT, || async { Ok((count(node, id)? > before).then_some(())) }).await
}

async fn stands_still(node: &TestNode, id: &SandboxId) -> Result<()> {
    let before = count(node, id)?;
    tokio::time::sleep(STILL).await;
    assert_eq!(count(node, id)?, before, "the workload stands still");
    Ok(())
}

/// The end that is shown a moment after Ready.
async fn ends_of(node: &TestNode, id: &SandboxId) -> Result<Ends> {
    eventually("its end is shown", LIMIT, || async { Ok(node.client.get(id).await?.ends) }).await
}

async fn pause(node: &TestNode, id: &SandboxId) -> Result<Observed> {
    node.client.api.clone().pause_sandbox(request(id)).await?;
    node.client.reaches(id, Phase::Paused).await
}

#[tokio::test]
async fn a_paused_sandbox_stands_still_whoever_is_killed_and_goes_on_where_it_was() -> Result<()> {
    let mut node = TestNode::start().await?;
    let id = node.client.create_ready(&counting()?).await?;
    counts_on(&node, &id).await?;
    let frame = node.client.screenshot(&id).await?;
    pause(&node, &id).await?;
    stands_still(&node, &id).await?;
    let pids = node.cgroup(id.as_str()).process_ids();
    assert_eq!(node.client.screenshot(&id).await?, frame, "its last frame can be seen");
    let refused = node.client.exec(&id, &["/bin/true"]).await.unwrap_err().to_string();
    assert!(refused.contains("roost sandbox resume"), "{refused}");

    node.kill_daemon();
    node.restart().await?;
    let adopted = node.client.reaches(&id, Phase::Paused).await?;
    assert_eq!(adopted.starts, 1);
    stands_still(&node, &id).await?;
    assert_eq!(node.cgroup(id.as_str()).process_ids(), pids, "nothing was ended or started");

    node.client.api.clone().resume_sandbox(request(&id)).await?;
    node.client.reaches(&id, Phase::Ready).await?;
    counts_on(&node, &id).await?;
    assert_eq!(node.client.exec(&id, &["/bin/echo", "on"]).await?.stdout, "on\n");
    assert_eq!(node.client.get(&id).await?.starts, 1);
    node.clear().await
}

#[tokio::test]
async fn what_stands_still_is_stopped_with_its_grace_and_deleted_at_once() -> Result<()> {
    let node = TestNode::start().await?;
    let spec = SandboxSpec { stop_grace_ms: 60_000, ..counting()? };
    let (stopped, deleted) = (node.client.create_ready(&spec).await?, node.client.create_ready(&spec).await?);
    for id in [&stopped, &deleted] {
        counts_on(&node, id).await?;
        pause(&node, id).await?;
    }
    node.client.api.clone().stop_sandbox(request(&stopped)).await?;
    node.client.reaches(&stopped, Phase::Stopped).await?;
    assert_eq!(std::fs::read_to_string(file_of(&node, &stopped, "asked")?)?, "asked\n", "it heard the SIGTERM");
    assert_eq!(node.cgroup(stopped.as_str()).process_ids(), Vec::<u32>::new());
    node.client.delete(&deleted).await?;
    assert_eq!(node.cgroup(deleted.as_str()).process_ids(), Vec::<u32>::new());

    let refused = node.client.api.clone().pause_sandbox(request(&stopped)).await.unwrap_err();
    assert!(refused.message().contains("roost sandbox start"), "{refused:?}");
    node.clear().await
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_the_middle_of_a_pause_or_a_resume_converges() -> Result<()> {
    let mut node = TestNode::start().await?;
    let id = node.client.create_ready(&counting()?).await?;
    counts_on(&node, &id).await?;
    for round in 0..3 {
        for (is_paused, phase) in [(true, Phase::Paused), (false, Phase::Ready)] {
            let mut api = node.client.api.clone();
            // Durable; whatever of it is done, the next daemon does the rest.
            if is_paused {
                api.pause_sandbox(request(&id)).await?;
            } else {
                api.resume_sandbox(request(&id)).await?;
            }
            node.kill_daemon();
            node.restart().await?;
            node.client.reaches(&id, phase).await?;
            if is_paused {
                stands_still(&node, &id).await?;
            } else {
                counts_on(&node, &id).await?;
            }
            assert_eq!(node.client.get(&id).await?.starts, 1, "round {round}");
        }
    }
    node.clear().await
}

#[tokio::test]
async fn a_time_to_live_ends_over_a_killed_daemon_with_the_grace_of_the_workload() -> Result<()> {
    let mut node = TestNode::start().await?;
    let lifetime = Lifetime { ttl_ms: 600_000, ..Lifetime::default() };
    let id = node.client.create_ready(&SandboxSpec { lifetime, stop_grace_ms: 60_000, ..counting()? }).await?;
    counts_on(&node, &id).await?;
    let ends = ends_of(&node, &id).await?;
    node.kill_daemon();
    node.restart().await?;
    node.client.reaches(&id, Phase::Ready).await?;
    let again = ends_of(&node, &id).await?;
    let off_ms = again.at_unix_ms.abs_diff(ends.at_unix_ms);
    assert!(off_ms < 30_000, "the end moved by {off_ms} ms");

    // Much shorter from now on.
    let update = wire::UpdateSandboxRequest {
        sandbox_id: id.to_string(),
        resources: None,
        lifetime: Some(roost_proto::types::LifetimeChange { ttl_ms: Some(3_000), ..Default::default() }),
    };
    node.client.api.clone().update_sandbox(update).await?;
    let gone = node.client.reaches(&id, Phase::Gone).await?;
    assert_eq!(gone.reason.as_deref(), Some("expired-ttl"));
    assert!(node.client.list().await?.is_empty());
    assert!(!node.state().join("sandboxes").join(id.as_str()).exists(), "no file of it is left");
    assert_eq!(node.cgroup(id.as_str()).process_ids(), Vec::<u32>::new());
    node.clear().await
}

#[tokio::test]
async fn only_what_nobody_uses_ends_by_its_idle_timeout() -> Result<()> {
    let node = TestNode::start().await?;
    let idle = |idle_action| Lifetime { idle_timeout_ms: 12_000, idle_action, ..Lifetime::default() };
    let quiet = SandboxSpec { command: vec!["/bin/sleep".into(), "1000000".into()], ..spec("bare")? };
    let busy_script = "while :; do :; done";
    let busy = SandboxSpec { command: vec!["/bin/sh".into(), "-c".into(), busy_script.into()], ..spec("bare")? };
    let make = async |spec: &SandboxSpec, action| {
        node.client.create_ready(&SandboxSpec { lifetime: idle(action), ..spec.clone() }).await
    };
    let computes = make(&busy, ExpiryAction::Stop).await?;
    let used = make(&quiet, ExpiryAction::Stop).await?;
    let paused = make(&quiet, ExpiryAction::Pause).await?;
    let unused = make(&quiet, ExpiryAction::Stop).await?;
    let in_use = tokio::spawn({
        let (client, used) = (node.client.clone(), used.clone());
        async move { client.exec(&used, &["/bin/sh", "-c", "until [ -e /tmp/enough ]; do sleep 1; done"]).await }
    });

    let stopped = node.client.reaches(&unused, Phase::Stopped).await?;
    assert_eq!(stopped.reason.as_deref(), Some("expired-idle"));
    assert!(stopped.message.is_some_and(|message| message.contains("roost sandbox start")));
    assert_eq!(node.cgroup(unused.as_str()).process_ids(), Vec::<u32>::new());
    assert_eq!(node.client.reaches(&paused, Phase::Paused).await?.reason.as_deref(), Some("expired-idle"));
    for id in [&computes, &used] {
        assert_eq!(node.client.get(id).await?.phase, Phase::Ready, "{id} is used");
    }
    node.client.exec(&used, &["/bin/touch", "/tmp/enough"]).await?;
    assert_eq!(in_use.await??.exit_code, 0);
    node.client.reaches(&used, Phase::Stopped).await?;
    node.client.api.clone().resume_sandbox(request(&paused)).await?;
    assert_eq!(node.client.reaches(&paused, Phase::Ready).await?.starts, 1);
    node.clear().await
}
