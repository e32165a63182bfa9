//! A sandbox's own disk limit: what it fills is its own matter, and the limit
//! outlives the daemon.

use std::path::PathBuf;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Observed, Phase, ResourcesChange, SandboxSpec};
use roost_tests::client::{ExecResult, request};
use roost_tests::node::spec;
use roost_tests::traces::mounts_under;
use roost_tests::{Result, TestNode, eventually};

const MIB: u64 = 1 << 20;
/// The limit of these tests, in bytes.
const LIMIT: u64 = 128 * MIB;
/// How long a wish may take to be seen.
const SET_LIMIT: Duration = Duration::from_secs(40);
/// Writes 400 MB into a file that has no name any more, and then waits.
const HIDDEN_FILLER: &str = "exec 3>~/hidden; rm ~/hidden; head -c 400000000 /dev/zero >&3; echo $?; sleep 600";

fn limited() -> Result<SandboxSpec> {
    let mut spec = spec("bare")?;
    spec.resources.disk_limit_bytes = LIMIT;
    Ok(spec)
}

async fn sh(node: &TestNode, id: &SandboxId, script: &str) -> Result<ExecResult> {
    node.client.exec(id, &["/bin/sh", "-c", script]).await
}

async fn until(node: &TestNode, id: &SandboxId, what: &str, holds: impl Fn(&Observed) -> bool) -> Result<Observed> {
    eventually(what, SET_LIMIT, || async {
        let observed = node.client.get(id).await?;
        Ok(holds(&observed).then_some(observed))
    })
    .await
}

/// Files behind loop devices that lie below the node's root.
fn loop_files(node: &TestNode) -> Vec<PathBuf> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices.filter_map(|d| std::fs::read_to_string(d.path().join("loop/backing_file")).ok());
    files.map(|file| PathBuf::from(file.trim())).filter(|file| file.starts_with(node.state())).collect()
}

/// What the root of a workload is, in bytes, as `df` shows it inside.
async fn df_bytes(node: &TestNode, id: &SandboxId) -> Result<u64> {
    let answer = node.client.exec(id, &["/bin/df", "-B1", "--output=size", "/"]).await?;
    Ok(answer.stdout.split_whitespace().last().unwrap_or_default().parse()?)
}

#[tokio::test]
async fn a_filler_ends_at_its_own_limit_also_when_it_removes_its_file() -> Result<()> {
    let node = TestNode::start().await?;
    let neighbour = node.client.create_ready(&spec("bare")?).await?;
    let id = node.client.create_ready(&limited()?).await?;
    let named = sh(&node, &id, "head -c 400000000 /dev/zero > ~/fill; stat -c %s ~/fill").await?;
    assert!(named.stderr.contains("No space left") || named.stderr.contains("quota exceeded"), "{}", named.stderr);
    let written: u64 = named.stdout.trim().parse()?;
    assert!((100 * MIB..LIMIT).contains(&written), "{written}");

    let freed = sh(&node, &id, "rm ~/fill && head -c 50000000 /dev/zero > ~/again && rm ~/again").await?;
    assert_eq!(freed.exit_code, 0, "what is removed can be written again: {}", freed.stderr);
    let hidden = format!("setsid sh -c '{HIDDEN_FILLER}' >~/said 2>&1 </dev/null &");
    sh(&node, &id, &hidden).await?;
    let seen = until(&node, &id, "the hidden file is counted", |o| {
        o.usage.and_then(|usage| usage.disk_bytes).is_some_and(|bytes| bytes > 100 * MIB)
    })
    .await?;
    println!("usage with a hidden file: {:?}", seen.usage);
    assert_eq!(seen.limits.map(|limits| limits.disk_limit_bytes), Some(LIMIT));
    assert_eq!(seen.phase, Phase::Ready);
    let refused = sh(&node, &id, "head -c 50000000 /dev/zero > ~/more").await?;
    assert_ne!(refused.exit_code, 0, "the hidden file holds the room");
    let other = sh(&node, &neighbour, "head -c 200000000 /dev/zero > ~/large && rm ~/large").await?;
    assert_eq!(other.exit_code, 0, "the other one does not feel it: {}", other.stderr);
    assert_eq!(node.client.get(&neighbour).await?.usage.and_then(|usage| usage.disk_bytes), None);
    node.clear().await
}

#[tokio::test]
async fn a_disk_limit_and_its_files_survive_daemon_stop_and_growth_and_leave_nothing() -> Result<()> {
    let mut node = TestNode::start().await?;
    let id = node.client.create_ready(&limited()?).await?;
    assert!(df_bytes(&node, &id).await? <= LIMIT);
    sh(&node, &id, "head -c 30000000 /dev/zero > ~/kept").await?;

    node.kill_daemon();
    node.restart().await?;
    node.client.reaches(&id, Phase::Ready).await?;
    let full = sh(&node, &id, "head -c 400000000 /dev/zero > ~/fill; rm ~/fill; stat -c %s ~/kept").await?;
    assert!(full.stderr.contains("No space left") || full.stderr.contains("quota exceeded"), "{}", full.stderr);
    assert_eq!(full.stdout.trim(), "30000000");

    let raise = ResourcesChange { disk_limit_bytes: Some(2 * LIMIT), ..Default::default() };
    node.client.set(&id, raise).await?;
    let is_raised = |o: &Observed| o.limits.as_ref().is_some_and(|l| l.disk_limit_bytes == 2 * LIMIT);
    // A loop file system that is in use grows only by CAP_SYS_RESOURCE.
    let told = |o: &Observed| o.message.as_ref().is_some_and(|message| message.contains("CAP_SYS_RESOURCE"));
    let seen = until(&node, &id, "the raised limit is answered", |o| is_raised(o) || told(o)).await?;
    assert_eq!((seen.phase, seen.starts), (Phase::Ready, 1));
    let written = sh(&node, &id, "head -c 180000000 /dev/zero > ~/more").await?;
    assert_eq!(written.exit_code == 0, is_raised(&seen), "{}", written.stderr);
    let lower = ResourcesChange { disk_limit_bytes: Some(LIMIT), ..Default::default() };
    let refused = node.client.set(&id, lower).await.unwrap_err().to_string();
    assert!(refused.contains("can only be raised"), "{refused}");

    node.client.api.clone().stop_sandbox(request(&id)).await?;
    node.client.reaches(&id, Phase::Stopped).await?;
    let idle = || async { Ok(loop_files(&node).is_empty().then_some(())) };
    eventually("a stopped sandbox holds no loop device", SET_LIMIT, idle).await?;
    node.client.api.clone().start_sandbox(request(&id)).await?;
    node.client.reaches(&id, Phase::Ready).await?;
    let more = sh(&node, &id, "head -c 180000000 /dev/zero > ~/more; stat -c %s ~/kept ~/more").await?;
    assert_eq!(more.stdout, "30000000\n180000000\n", "{}", more.stderr);
    assert!((LIMIT..=2 * LIMIT).contains(&df_bytes(&node, &id).await?));

    node.client.delete(&id).await?;
    eventually("its loop device is gone", SET_LIMIT, || async { Ok(loop_files(&node).is_empty().then_some(())) })
        .await?;
    assert!(!node.state().join("sandboxes").join(id.as_str()).exists());
    let left = mounts_under(&node.state().join("sandboxes"));
    assert!(left.is_empty(), "{left:?}");
    node.clear().await
}

#[tokio::test]
async fn a_sandbox_without_a_limit_has_no_file_system_of_its_own() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("bare")?).await?;
    assert!(loop_files(&node).is_empty());
    let dir = node.state().join("sandboxes").join(id.as_str());
    assert!(dir.join("upper").exists() && !dir.join("disk").exists() && !dir.join("disk.img").exists());
    let limit = ResourcesChange { disk_limit_bytes: Some(LIMIT), ..Default::default() };
    let refused = node.client.set(&id, limit).await.unwrap_err().to_string();
    assert!(refused.contains("create it again"), "{refused}");
    node.clear().await
}
