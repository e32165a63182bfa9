//! What the kernel enforces and counts for a sandbox, by its effects. Runs on
//! hosts with cgroup v1 and in a guest with v2 alone, see tests/run.sh.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Phase, SandboxSpec, Usage};
use roost_tests::node::{oci_runtime, spec};
use roost_tests::{Result, TestNode, cgroup, eventually, traces};

/// How long the kernel and the sampling of usage may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The cgroup of a sandbox, below the mount of the controllers.
fn cgroup_of(node: &TestNode, id: &SandboxId) -> String {
    format!("{}/{id}", node.cgroup_parent())
}

fn limited(memory_bytes: u64, pids: u32, cpu_millis: u32) -> Result<SandboxSpec> {
    let mut spec = spec("bare")?;
    spec.resources.memory_limit_bytes = memory_bytes;
    spec.resources.memory_request_bytes = spec.resources.memory_request_bytes.min(memory_bytes);
    spec.resources.shm_bytes = 64 << 20;
    spec.resources.pids_limit = pids;
    spec.resources.cpu_request_millis = spec.resources.cpu_request_millis.min(cpu_millis);
    spec.resources.cpu_limit_millis = cpu_millis;
    Ok(spec)
}

/// The next sample of a sandbox's usage for which `holds`.
async fn usage(node: &TestNode, id: &SandboxId, holds: impl Fn(&Usage) -> bool) -> Result<Usage> {
    let sample = || async { Ok(node.client.get(id).await?.usage.filter(&holds)) };
    eventually("the usage shows it", LIMIT, sample).await
}

#[tokio::test]
async fn a_memory_hog_is_killed_and_neither_its_display_nor_its_first_process() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&limited(160 << 20, 200, 0)?).await?;
    // v1 counts a kill where the victim lives, and there alone.
    let kills = |role: &str| {
        let path = format!("{}/{role}", cgroup_of(&node, &id));
        let counts = cgroup::read_keys(&path, "memory", "memory.oom_control", "memory.events")?;
        Ok::<u64, roost_tests::client::Error>(counts["oom_kill"])
    };
    assert_eq!((kills("display")?, kills("workload")?), (0, 0));
    // One block of 400 MiB: a single read fills it, which costs little time.
    let script = "dd if=/dev/zero of=/dev/null bs=400M count=1; echo $?";
    let hog = node.client.exec(&id, &["/bin/sh", "-c", script]).await?;
    assert_eq!(hog.stdout.trim(), "137", "{}", hog.stderr);
    assert!(kills("workload")? >= 1);
    assert_eq!(kills("display")?, 0);
    assert_eq!(node.client.get(&id).await?.phase, Phase::Ready);
    assert!(!node.client.screenshot(&id).await?.is_empty(), "the display lives");
    assert_eq!(node.client.exec(&id, &["/bin/echo", "alive"]).await?.stdout, "alive\n");
    node.clear().await
}

#[tokio::test]
async fn a_fork_bomb_ends_at_the_limit_and_is_counted() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&limited(512 << 20, 60, 0)?).await?;
    let script = "i=0; while [ $i -lt 100 ]; do sleep 600 >/dev/null 2>&1 & i=$((i+1)); done";
    let bomb = node.client.exec(&id, &["/bin/sh", "-c", script]).await?;
    assert_ne!(bomb.exit_code, 0, "a hundred processes must not fit");
    assert!(bomb.stderr.contains("Cannot fork"), "{}", bomb.stderr);
    let sample = usage(&node, &id, |u| u.pids > 40).await?;
    assert!(sample.pids <= 60, "{sample:?}");
    assert!(!node.client.screenshot(&id).await?.is_empty(), "the display lives");
    node.clear().await
}

#[tokio::test]
async fn a_spinning_workload_is_throttled_at_its_cpu_limit() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&limited(512 << 20, 200, 500)?).await?;
    let throttled = || {
        let counts = cgroup::read_keys(&cgroup_of(&node, &id), "cpu", "cpu.stat", "cpu.stat")?;
        Ok::<u64, roost_tests::client::Error>(counts["nr_throttled"])
    };
    // Its output closed: an exec lasts as long as somebody can write.
    let script = "for i in 1 2; do (while :; do :; done) >/dev/null 2>&1 & done";
    node.client.exec(&id, &["/bin/sh", "-c", script]).await?;
    let before = throttled()?;
    eventually("the kernel throttles it", LIMIT, || async { Ok((throttled()? > before).then_some(())) }).await?;
    node.clear().await
}

#[tokio::test]
async fn usage_is_what_the_kernel_counts_for_display_and_workload_together() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&limited(512 << 20, 200, 0)?).await?;
    node.client.exec(&id, &["/bin/sh", "-c", "head -c 40M /dev/zero > /dev/shm/file"]).await?;
    let sample = usage(&node, &id, |u| u.shm_bytes >= 40 << 20).await?;
    let path = cgroup_of(&node, &id);
    let memory = cgroup::read_u64(&path, "memory", "memory.usage_in_bytes", "memory.current")?;
    assert!(sample.memory_bytes >= 40 << 20, "what is in /dev/shm counts: {sample:?}");
    assert!(sample.memory_bytes.abs_diff(memory) < 32 << 20, "{sample:?}, the kernel counts {memory}");
    let pids = cgroup::read_u64(&path, "pids", "pids.current", "pids.current")?;
    assert_eq!(u64::from(sample.pids), pids);
    let measures = cgroup::is_v2() && std::fs::read(cgroup::dir(&path, "").join("memory.pressure")).is_ok();
    assert_eq!(sample.pressure.is_some(), measures, "time lost by waiting, where the kernel measures it");
    for role in ["display", "workload"] {
        let part = format!("{path}/{role}");
        assert!(cgroup::read_u64(&part, "pids", "pids.current", "pids.current")? >= 1, "{part}");
    }
    node.clear().await
}

#[tokio::test]
async fn processes_live_in_leaves_alone_and_the_shim_outside_of_its_sandbox() -> Result<()> {
    let mut node = TestNode::start().await?;
    node.kill_daemon();
    // A parent further down, as a service manager would delegate it.
    let parent = format!("{}/pool/sandboxes", node.cgroup_parent());
    node.configure(&format!("[sandboxes]\ncgroup_parent = \"{parent}\"\n"));
    node.restart().await?;
    let id = node.client.create_ready(&limited(256 << 20, 123, 700)?).await?;
    let path = format!("{parent}/{id}");
    assert_eq!(cgroup::read(&path, "pids", "pids.max", "pids.max")?, "123");
    assert_eq!(cgroup::read_u64(&path, "memory", "memory.limit_in_bytes", "memory.max")?, 256 << 20);
    assert!(cgroup::read(&path, "cpu", "cpu.cfs_quota_us", "cpu.max")?.starts_with("70000"));
    let processes = |path: &str| cgroup::read(path, "pids", "cgroup.procs", "cgroup.procs");
    for inner in [node.cgroup_parent().as_str(), &parent, &path] {
        assert_eq!(processes(inner)?, "", "{inner} holds no process itself");
    }
    let shims = traces::processes_with(&format!("-id {id}"));
    assert_eq!(shims.len(), 1, "{shims:?}");
    let in_shims = processes(&format!("{parent}/shims"))?;
    assert!(in_shims.lines().any(|pid| pid == shims[0].0.to_string()), "{shims:?} in {in_shims}");
    node.clear().await
}

#[tokio::test]
async fn a_changed_runtime_is_used_from_the_next_start_and_what_runs_is_left_alone() -> Result<()> {
    let mut node = TestNode::start().await?;
    let before = node.client.create_ready(&spec("bare")?).await?;
    let (wrapper, calls) = (node.root.join("runtime"), node.root.join("calls"));
    let script = format!("#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n", calls.display(), oci_runtime());
    std::fs::write(&wrapper, script)?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    node.kill_daemon();
    node.configure(&format!("[containerd]\nruntime_binary = \"{}\"\n", wrapper.display()));
    node.restart().await?;
    let after = node.client.create_ready(&spec("bare")?).await?;
    for id in [&before, &after] {
        assert_eq!(node.client.exec(id, &["/bin/echo", "alive"]).await?.stdout, "alive\n");
    }
    let made_by_wrapper = |id: &SandboxId| Ok::<_, std::io::Error>(read(&calls)?.contains(id.as_str()));
    assert!(made_by_wrapper(&after)? && !made_by_wrapper(&before)?, "{}", read(&calls)?);
    node.clear().await
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_named_in_the_failure() -> Result<()> {
    let mut node = TestNode::start().await?;
    node.kill_daemon();
    node.configure("[containerd]\nruntime_binary = \"no-such-runtime\"\n");
    node.restart().await?;
    let id = node.client.create(&spec("bare")?).await?;
    let failed = || async { Ok(Some(node.client.get(&id).await?).filter(|o| o.phase == Phase::Failed)) };
    let observed = eventually("the start fails", LIMIT, failed).await?;
    assert_eq!(observed.reason.as_deref(), Some("container-failed"));
    assert!(observed.message.as_ref().is_some_and(|m| m.contains("no-such-runtime")), "{:?}", observed.message);
    node.clear().await
}

#[tokio::test]
async fn a_node_tells_the_runtime_that_it_uses_and_the_quota_that_the_kernel_enforces() -> Result<()> {
    let node = TestNode::start().await?;
    let quota = || async {
        let abilities = node.client.node().await?.abilities;
        Ok(abilities.into_iter().find(|ability| ability.name == "quota"))
    };
    let quota = eventually("the host was looked at", LIMIT, quota).await?;
    let has_projects = mount_options(&node.state())?.split(',').any(|option| option == "prjquota");
    println!("quota: {quota:?}");
    assert_eq!(quota.detail == "ext4 project quota", has_projects, "{quota:?}");

    let config = node.root.join("roostd.toml").display().to_string();
    let output = std::process::Command::new(roost_tests::node::binary("roostd")?)
        .args(["doctor", "--sandboxes", "10", "--output", "json", "--config", &config])
        .output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let check = |name: &str| {
        let found = report["checks"].as_array().and_then(|all| all.iter().find(|check| check["name"] == name));
        found.cloned().unwrap_or_default()
    };
    let runtime = check("oci-runtime");
    assert_eq!(runtime["verdict"], "ok", "{runtime}");
    assert!(runtime["found"].as_str().is_some_and(|found| found.starts_with(&oci_runtime())), "{runtime}");
    assert_eq!(check("quota")["found"] == "ext4 project quota", has_projects, "{report}");
    Ok(())
}

/// Options of the file system that holds a path.
fn mount_options(path: &Path) -> Result<String> {
    let output = std::process::Command::new("findmnt").args(["-no", "OPTIONS", "-T"]).arg(path).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn read(path: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}
