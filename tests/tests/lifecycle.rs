//! The life of a sandbox on real parts: containerd, runc, Xvfb, fluxbox.

use std::collections::BTreeMap;

use roost_proto::id::SandboxId;
use roost_proto::model::{Phase, SandboxSpec, Stage};
use roost_proto::node as wire;
use roost_tests::client::request;
use roost_tests::node::spec;
use roost_tests::{Result, TestNode};

/// A screen and a program of our own instead of the image's session.
fn program(script: &str) -> Result<SandboxSpec> {
    let mut spec = spec("bare")?;
    spec.command = ["/usr/bin/tini", "--", "/bin/sh", "-c", script].map(String::from).to_vec();
    Ok(spec)
}

/// Width, height and number of different colours of a PNG.
fn look_at(png: &[u8]) -> Result<(u32, u32, usize)> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("picture too large")?];
    let info = reader.next_frame(&mut pixels)?;
    let bytes = info.color_type.samples();
    let colours: std::collections::HashSet<&[u8]> = pixels[..info.buffer_size()].chunks(bytes).collect();
    Ok((info.width, info.height, colours.len()))
}

#[tokio::test]
async fn a_desktop_becomes_ready_and_its_screenshot_shows_the_window_manager() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("fluxbox")?).await?;
    let observed = node.client.get(&id).await?;
    let stages: Vec<Stage> = observed.stages.iter().map(|t| t.stage).collect();
    let expected: Vec<Stage> =
        Stage::ALL.into_iter().filter(|s| !matches!(s, Stage::Image | Stage::Readiness)).collect();
    assert_eq!(stages, expected, "every stage is timed, in order");
    let shows_toolbar = || async {
        let (width, height, colours) = look_at(&node.client.screenshot(&id).await?)?;
        assert_eq!((width, height), (1280, 800));
        Ok((colours > 2).then_some(()))
    };
    roost_tests::eventually("the toolbar is drawn", std::time::Duration::from_secs(20), shows_toolbar).await?;
    node.clear().await
}

#[tokio::test]
async fn a_workload_runs_as_its_image_says_and_owns_nothing_of_the_host() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("bare")?).await?;
    let sh = async |script: &str| {
        Ok::<_, roost_tests::client::Error>(node.client.exec(&id, &["/bin/sh", "-c", script]).await?.stdout)
    };
    assert_eq!(sh("id -u").await?.trim(), "1000");
    let map = sh("cat /proc/self/uid_map").await?;
    let host_id: u32 = map.split_whitespace().nth(1).ok_or("no map")?.parse()?;
    assert!(host_id >= 1 << 30, "id 0 inside is {host_id} outside");
    let status = sh("grep -E '^(CapEff|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status").await?;
    for line in ["CapEff:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert_eq!(sh("cat /proc/1/comm").await?.trim(), "tini");
    assert_eq!(sh("ls /sys/class/net").await?.trim(), "lo");
    assert_eq!(sh("hostname").await?.trim(), id.as_str());
    let denied = node.client.exec(&id, &["/bin/sh", "-c", "touch /tmp/.X11-unix/X9"]).await?;
    assert_ne!(denied.exit_code, 0, "the X socket's directory must be read-only");
    let unshare = node.client.exec(&id, &["/usr/bin/unshare", "-U", "true"]).await?;
    assert_ne!(unshare.exit_code, 0, "this profile allows no further user namespace");
    node.clear().await
}

#[tokio::test]
async fn limits_reach_the_kernel_and_usage_is_reported() -> Result<()> {
    let node = TestNode::start().await?;
    let mut spec = spec("bare")?;
    spec.resources.memory_limit_bytes = 300 << 20;
    spec.resources.shm_bytes = 100 << 20;
    spec.resources.pids_limit = 99;
    let id = node.client.create_ready(&spec).await?;
    let shm = node.client.exec(&id, &["/bin/df", "-B1", "--output=size", "/dev/shm"]).await?.stdout;
    assert_eq!(shm.split_whitespace().last(), Some((100 << 20).to_string().as_str()));
    let read = |controller: &str, v1: &str, v2: &str| {
        let cgroup = format!("{}/{id}", node.cgroup_parent());
        let v1 = format!("/sys/fs/cgroup/{controller}/{cgroup}/{v1}");
        std::fs::read_to_string(v1).or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{cgroup}/{v2}")))
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max")?.trim(), (300 << 20).to_string());
    assert_eq!(read("pids", "pids.max", "pids.max")?.trim(), "99");
    let hog = node.client.exec(&id, &["/bin/sh", "-c", "head -c 30000000 /dev/zero > /dev/shm/hog"]).await?;
    assert_eq!(hog.exit_code, 0, "{}", hog.stderr);
    let sampled = || async {
        let usage = node.client.get(&id).await?.usage;
        Ok(usage.filter(|u| u.shm_bytes >= 30_000_000 && u.memory_bytes >= 30_000_000))
    };
    let usage = roost_tests::eventually("usage shows /dev/shm", std::time::Duration::from_secs(30), sampled).await?;
    assert!(usage.pids >= 2 && usage.cpu_us > 0, "{usage:?}");
    node.clear().await
}

#[tokio::test]
async fn files_survive_stop_and_start_and_restart_makes_new_processes() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("bare")?).await?;
    node.client.exec(&id, &["/bin/sh", "-c", "echo kept > ~/note"]).await?;
    node.client.api.clone().stop_sandbox(request(&id)).await?;
    node.client.reaches(&id, Phase::Stopped).await?;
    assert_eq!(
        roost_tests::traces::cgroups_below(&node.cgroup_parent()).iter().filter(|c| c.contains(id.as_str())).count(),
        0
    );
    node.client.api.clone().start_sandbox(request(&id)).await?;
    node.client.reaches(&id, Phase::Ready).await?;
    assert_eq!(node.client.exec(&id, &["/bin/sh", "-c", "cat ~/note"]).await?.stdout.trim(), "kept");
    let starts = node.client.get(&id).await?.starts;
    node.client.api.clone().restart_sandbox(request(&id)).await?;
    let restarted = || async {
        let observed = node.client.get(&id).await?;
        Ok((observed.phase == Phase::Ready && observed.starts > starts).then_some(()))
    };
    roost_tests::eventually("the sandbox is restarted", roost_tests::client::PHASE_LIMIT, restarted).await?;
    node.clear().await
}

#[tokio::test]
async fn a_workload_that_ends_is_failed_with_its_exit_code_and_can_be_started_again() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&program("until [ -e ~/go ]; do sleep 0.1; done; rm ~/go; exit 7")?).await?;
    node.client.exec(&id, &["/bin/touch", "/home/agent/go"]).await?;
    let failed = || async {
        let observed = node.client.get(&id).await?;
        Ok((observed.phase == Phase::Failed).then_some(observed))
    };
    let observed = roost_tests::eventually("it failed", roost_tests::client::PHASE_LIMIT, failed).await?;
    assert_eq!((observed.reason.as_deref(), observed.exit_code), (Some("workload-exited"), Some(7)));
    assert!(observed.message.is_some_and(|m| m.contains("roost sandbox logs")));
    node.client.api.clone().start_sandbox(request(&id)).await?;
    let again = || async { Ok((node.client.get(&id).await?.phase == Phase::Ready).then_some(())) };
    roost_tests::eventually("it is Ready again", roost_tests::client::PHASE_LIMIT, again).await?;
    node.clear().await
}

#[tokio::test]
async fn starts_that_cannot_work_say_why_and_leave_nothing() -> Result<()> {
    let node = TestNode::start().await?;
    let mut no_image = spec("bare")?;
    no_image.image = "nowhere/nothing:1".parse()?;
    let mut no_program = spec("bare")?;
    no_program.command = vec!["/no/such/program".into()];
    let mut no_manager = program("sleep 60")?;
    no_manager.window_manager = roost_proto::model::WindowManager::Image;
    no_manager.start_timeout_ms = 1500;
    let ends_at_once = program("exit 3")?;
    for (spec, reason) in [
        (no_image, "image-missing"),
        (no_program, "container-failed"),
        (no_manager, "start-timeout"),
        (SandboxSpec { window_manager: roost_proto::model::WindowManager::Image, ..ends_at_once }, "workload-exited"),
    ] {
        let id = node.client.create(&spec).await?;
        let failed = || async {
            let observed = node.client.get(&id).await?;
            Ok((observed.phase == Phase::Failed).then_some(observed))
        };
        let observed = roost_tests::eventually(reason, roost_tests::client::PHASE_LIMIT, failed).await?;
        assert_eq!(observed.reason.as_deref(), Some(reason), "{:?}", observed.message);
        let cgroups = roost_tests::traces::cgroups_below(&node.cgroup_parent());
        assert!(!cgroups.iter().any(|c| c.contains(id.as_str())), "{cgroups:?}");
        let mounts = roost_tests::traces::mounts_under(&node.state());
        assert!(!mounts.iter().any(|m| m.display().to_string().contains(id.as_str())), "{mounts:?}");
    }
    node.clear().await
}

#[tokio::test]
async fn create_is_idempotent_by_id_and_refuses_another_spec() -> Result<()> {
    let node = TestNode::start().await?;
    let id = SandboxId::random();
    let create = |spec: SandboxSpec| {
        let mut api = node.client.api.clone();
        let request =
            wire::CreateSandboxRequest { sandbox_id: id.to_string(), spec: Some(spec.into()), name: String::new() };
        async move { api.create_sandbox(request).await }
    };
    let spec = spec("bare")?;
    let (a, b) = tokio::join!(create(spec.clone()), create(spec.clone()));
    a?;
    b?;
    assert_eq!(node.client.list().await?.len(), 1);
    let other = SandboxSpec { env: BTreeMap::from([("A".into(), "b".into())]), ..spec };
    assert_eq!(create(other).await.map_err(|e| e.code()).err(), Some(tonic::Code::AlreadyExists));
    node.clear().await
}

#[tokio::test]
async fn output_is_kept_and_programs_keep_their_streams_and_exit_codes_apart() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&program("echo from the workload; exec sleep infinity")?).await?;
    let logs = wire::LogsRequest { sandbox_id: id.to_string(), source: 0, follow: false, tail_lines: None };
    let mut chunks = node.client.api.clone().logs(logs).await?.into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        text.extend(chunk.data);
    }
    assert!(String::from_utf8(text)?.contains("from the workload"));
    let result = node.client.exec(&id, &["/bin/sh", "-c", "echo out; echo err >&2; exit 42"]).await?;
    assert_eq!((result.stdout.as_str(), result.stderr.as_str(), result.exit_code), ("out\n", "err\n", 42));
    let missing = node.client.exec(&id, &["/no/such/program"]).await.map(|_| ()).unwrap_err();
    assert!(missing.to_string().contains("no such program"), "{missing}");
    node.clear().await
}
