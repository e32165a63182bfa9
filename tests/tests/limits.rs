//! Limits that change while a sandbox runs, and the cap over all of them.

use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Observed, Phase, Resources, ResourcesChange, SandboxSpec};
use roost_tests::client::request;
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, eventually};

const MIB: u64 = 1 << 20;
/// How long a wish may take to be in force: a refused one is tried again every
/// 10 s.
const SET_LIMIT: Duration = Duration::from_secs(40);

async fn sh(node: &TestNode, id: &SandboxId, script: &str) -> Result<roost_tests::client::ExecResult> {
    node.client.exec(id, &["/bin/sh", "-c", script]).await
}

async fn until(node: &TestNode, id: &SandboxId, what: &str, holds: impl Fn(&Observed) -> bool) -> Result<Observed> {
    eventually(what, SET_LIMIT, || async {
        let observed = node.client.get(id).await?;
        Ok(holds(&observed).then_some(observed))
    })
    .await
}

fn kernel_has(node: &TestNode, id: &SandboxId, wanted: &Resources) -> Result<()> {
    let cgroup = node.cgroup(id.as_str());
    assert_eq!(cgroup.memory_limit_bytes()?, wanted.memory_limit_bytes);
    assert_eq!(cgroup.pids_limit()?, u64::from(wanted.pids_limit));
    assert_eq!(cgroup.cpu_quota_us()?, u64::from(wanted.cpu_limit_millis) * 100);
    Ok(())
}

async fn shm_bytes(node: &TestNode, id: &SandboxId) -> Result<u64> {
    let answer = node.client.exec(id, &["/bin/df", "-B1", "--output=size", "/dev/shm"]).await?;
    Ok(answer.stdout.split_whitespace().last().unwrap_or_default().parse()?)
}

#[tokio::test]
async fn new_limits_reach_what_runs_and_survive_daemon_and_restart() -> Result<()> {
    let mut node = TestNode::start().await?;
    let spec = spec("bare")?;
    let id = node.client.create_ready(&spec).await?;
    let first = node.client.get(&id).await?;
    assert_eq!(first.limits.as_ref(), Some(&spec.resources));
    let before = node.cgroup(id.as_str()).process_ids();
    let change = ResourcesChange {
        cpu_request_millis: Some(250),
        cpu_limit_millis: Some(500),
        memory_request_bytes: Some(64 * MIB),
        memory_limit_bytes: Some(640 * MIB),
        pids_limit: Some(300),
        shm_bytes: Some(96 * MIB),
        disk_limit_bytes: None,
    };
    let wanted = change.apply(&spec.resources).map_err(|e| format!("{e:?}"))?;
    node.client.set(&id, change).await?;
    let is_in_force = |observed: &Observed| observed.limits.as_ref() == Some(&wanted);
    let observed = until(&node, &id, "the limits are in force", is_in_force).await?;
    assert_eq!((observed.phase, observed.reason), (Phase::Ready, None));
    kernel_has(&node, &id, &wanted)?;
    assert_eq!(node.cgroup(id.as_str()).process_ids(), before, "nothing was restarted");
    assert_eq!(shm_bytes(&node, &id).await?, 96 * MIB);

    node.kill_daemon();
    node.restart().await?;
    until(&node, &id, "the next daemon has them in force", is_in_force).await?;
    kernel_has(&node, &id, &wanted)?;
    assert_eq!(node.cgroup(id.as_str()).process_ids(), before);

    node.client.api.clone().restart_sandbox(request(&id)).await?;
    until(&node, &id, "it is started again", |o| o.phase == Phase::Ready && o.starts == 2).await?;
    kernel_has(&node, &id, &wanted)?;
    assert_eq!(shm_bytes(&node, &id).await?, 96 * MIB);

    // Up again, beyond what it began with.
    let larger = ResourcesChange { memory_limit_bytes: Some(5 << 30), cpu_limit_millis: Some(0), ..Default::default() };
    node.client.set(&id, larger).await?;
    until(&node, &id, "the limits are raised", |o| {
        o.limits.as_ref().is_some_and(|l| l.memory_limit_bytes == 5 << 30 && l.cpu_limit_millis == 0)
    })
    .await?;
    assert_eq!(node.cgroup(id.as_str()).memory_limit_bytes()?, 5 << 30);
    assert!(node.cgroup(id.as_str()).cpu_quota_us().is_err(), "no quota any more");
    node.clear().await
}

#[tokio::test]
async fn a_limit_below_what_is_in_use_is_refused_until_it_is_free_and_kills_nobody() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&SandboxSpec { resources: Resources::default(), ..spec("bare")? }).await?;
    let before = node.cgroup(id.as_str()).process_ids();
    let held = node.client.get(&id).await?.limits.ok_or("no limits")?;
    let filled = sh(&node, &id, "head -c 314572800 /dev/zero > /dev/shm/held").await?;
    assert_eq!(filled.exit_code, 0, "{}", filled.stderr);
    let change = ResourcesChange {
        memory_request_bytes: Some(64 * MIB),
        memory_limit_bytes: Some(256 * MIB),
        shm_bytes: Some(64 * MIB),
        pids_limit: Some(200),
        ..Default::default()
    };
    node.client.set(&id, change).await?;
    let refused = |o: &Observed| o.reason.as_deref() == Some("limits-in-use");
    let observed = until(&node, &id, "the limit is refused", refused).await?;
    let in_force = observed.limits.ok_or("no limits")?;
    println!("refused: {}", observed.message.unwrap_or_default());
    assert_eq!(in_force.memory_limit_bytes, held.memory_limit_bytes, "the old limit stays");
    assert_eq!(in_force.shm_bytes, held.shm_bytes);
    assert_eq!(in_force.pids_limit, 200, "what can be set is set");
    assert_eq!(observed.phase, Phase::Ready);
    let cgroup = node.cgroup(id.as_str());
    assert_eq!(cgroup.memory_limit_bytes()?, held.memory_limit_bytes);
    assert_eq!((cgroup.oom_kills()?, cgroup.process_ids()), (0, before));
    sh(&node, &id, "rm /dev/shm/held").await?;
    let applied = |o: &Observed| {
        o.reason.is_none()
            && o.limits.as_ref().is_some_and(|l| l.memory_limit_bytes == 256 * MIB && l.shm_bytes == 64 * MIB)
    };
    until(&node, &id, "the limit is in force once it fits", applied).await?;
    assert_eq!(cgroup.memory_limit_bytes()?, 256 * MIB);
    node.clear().await
}

#[tokio::test]
async fn new_limits_wait_for_the_next_start_and_start_nothing() -> Result<()> {
    let node = TestNode::start().await?;
    let mut failing = spec("bare")?;
    failing.command = ["/usr/bin/tini", "--", "/bin/sh", "-c", "exit 3"].map(String::from).to_vec();
    let id = node.client.create(&failing).await?;
    until(&node, &id, "it failed", |o| o.phase == Phase::Failed).await?;
    let starts = node.client.get(&id).await?.starts;
    node.client.set(&id, ResourcesChange { pids_limit: Some(123), ..Default::default() }).await?;
    let answered = until(&node, &id, "the wish is answered", |o| o.observed_generation == 2).await?;
    assert_eq!((answered.phase, answered.starts, answered.limits), (Phase::Failed, starts, None));
    let refused = node.client.set(&id, ResourcesChange { pids_limit: Some(1), ..Default::default() }).await;
    assert!(refused.is_err_and(|e| e.to_string().contains("resources.pids_limit")));
    node.clear().await
}

fn machine_memory_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let kib = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|l| l.split_whitespace().next());
    Ok(kib.ok_or("no MemTotal")?.parse::<u64>()? * 1024)
}

fn pids_max() -> Result<u64> {
    let read = |name: &str| Ok::<u64, roost_tests::client::Error>(std::fs::read_to_string(name)?.trim().parse()?);
    Ok(read("/proc/sys/kernel/pid_max")?.min(read("/proc/sys/kernel/threads-max")?))
}

/// A daemon that leaves its sandboxes 640 MiB, half a core and 300 processes.
async fn capped() -> Result<TestNode> {
    let mut node = TestNode::start().await?;
    assert!(node.client.node().await?.cap.is_some_and(|cap| cap.memory_bytes > 640 * MIB));
    let cores = u64::try_from(std::thread::available_parallelism()?.get())?;
    let memory = machine_memory_bytes()? - 640 * MIB;
    let (cpu, pids) = (cores * 1000 - 500, pids_max()? - 300);
    node.kill_daemon();
    node.configure(&format!("[reserved]\nmemory_bytes = {memory}\ncpu_millis = {cpu}\npids = {pids}\n"));
    node.restart().await?;
    Ok(node)
}

fn small(spec: &mut SandboxSpec) {
    spec.resources.memory_request_bytes = 64 * MIB;
    spec.resources.memory_limit_bytes = 512 * MIB;
    spec.resources.shm_bytes = 256 * MIB;
    spec.resources.pids_limit = 250;
}

#[tokio::test]
async fn all_sandboxes_together_cannot_take_what_is_reserved() -> Result<()> {
    let node = capped().await?;
    let cap = node.client.node().await?.cap.ok_or("no cap in the status")?;
    let parent = node.cgroup("");
    assert_eq!((parent.memory_limit_bytes()?, parent.pids_limit()?), (cap.memory_bytes, cap.pids.into()));
    assert_eq!((cap.memory_bytes, cap.cpu_millis, cap.pids), (640 * MIB, 500, 300));
    assert_eq!(parent.cpu_quota_us()?, 50_000);
    let mut spec = spec("bare")?;
    small(&mut spec);
    // More than the node has: v1 refuses a quota above that of the parent.
    spec.resources.cpu_limit_millis = 4000;
    let (a, b) = tokio::try_join!(node.client.create_ready(&spec), node.client.create_ready(&spec))?;

    // Each within its own limit, both together above the cap.
    let in_both = async |script: &str| {
        for id in [&a, &b] {
            let script = format!("setsid sh -c '{script}' >/dev/null 2>&1 </dev/null &");
            if let Err(error) = sh(&node, id, &script).await {
                println!("a program did not start any more: {error}");
            }
        }
    };
    let limit = Duration::from_secs(120);
    in_both("head -c 450000000 /dev/zero | tail -c 450000000 | sleep 1000").await;
    let kills = || {
        Ok::<_, roost_tests::client::Error>(node.cgroup(a.as_str()).oom_kills()? + node.cgroup(b.as_str()).oom_kills()?)
    };
    eventually("the cap of memory is met", limit, || async { Ok((kills()? > 0).then_some(())) }).await?;
    in_both("i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; wait").await;
    eventually("the cap of processes is met", limit, || async { Ok((parent.pids()? >= 250).then_some(())) }).await?;
    assert!(parent.throttled_periods()? > 0, "the quota is met");
    println!(
        "cap: memory peak {} of {} bytes, {} of {} processes, {} throttled periods",
        parent.memory_peak_bytes()?,
        cap.memory_bytes,
        parent.pids()?,
        cap.pids,
        parent.throttled_periods()?
    );
    // The mark of the peak counts a charge that is refused a moment later.
    assert!(parent.memory_peak_bytes()? <= cap.memory_bytes + MIB);
    assert!(parent.pids()? <= cap.pids.into());
    // The daemon is outside of it: it ends all of that.
    node.clear().await
}
