//! What ends by itself comes back as its policy says, and no further.

use roost_proto::id::SandboxId;
use roost_proto::model::{Observed, Part, Phase, Restart, RestartPolicy, SandboxSpec, WindowManager};
use roost_tests::client::{PHASE_LIMIT, request};
use roost_tests::inside::{murder, process, processes};
use roost_tests::node::spec;
use roost_tests::wait::patience;
use roost_tests::{Result, TestNode, eventually, traces};

/// A back-off that does not end within a test.
const FOR_EVER_MS: u32 = 3_600_000;

/// No policy but what a test names, and the shortest waits.
fn restart() -> Restart {
    Restart {
        application: RestartPolicy::Never,
        window_manager: RestartPolicy::Never,
        display: RestartPolicy::Never,
        backoff_ms: 100,
        ..Restart::default()
    }
}

/// A desktop without a window manager, whose program is `command`.
fn bare(command: &[&str], restart: Restart) -> Result<SandboxSpec> {
    let command = command.iter().map(ToString::to_string).collect();
    Ok(SandboxSpec { command, restart, window_manager: WindowManager::None, ..spec("bare")? })
}

const SLEEP: [&str; 4] = ["/usr/bin/tini", "--", "/bin/sleep", "infinity"];

/// Waits until an observation fits.
async fn until(node: &TestNode, id: &SandboxId, what: &str, fits: impl Fn(&Observed) -> bool) -> Result<Observed> {
    eventually(what, PHASE_LIMIT, || async {
        let observed = node.client.get(id).await?;
        Ok(fits(&observed).then_some(observed))
    })
    .await
}

async fn ready_after(node: &TestNode, id: &SandboxId, restarts: u32) -> Result<Observed> {
    until(node, id, "it is Ready again", |o| o.phase == Phase::Ready && o.restarts >= restarts).await
}

async fn backs_off(node: &TestNode, id: &SandboxId) -> Result<Observed> {
    until(node, id, "a back-off is seen", |o| o.next_restart_at_unix_ms.is_some()).await
}

/// A picture of the screen can be had: the X server draws.
async fn assert_screen_answers(node: &TestNode, id: &SandboxId) -> Result<()> {
    let png = node.client.screenshot(id).await?;
    assert!(png.starts_with(b"\x89PNG"));
    Ok(())
}

#[tokio::test]
async fn an_application_comes_back_alone_on_the_same_screen_and_files() -> Result<()> {
    let node = TestNode::start().await?;
    let policy = Restart { application: RestartPolicy::OnFailure, ..restart() };
    let id = node.client.create_ready(&bare(&SLEEP, policy)?).await?;
    let write = "echo kept >/home/agent/file && echo lost >/dev/shm/file";
    assert_eq!(node.client.exec(&id, &["/bin/sh", "-c", write]).await?.exit_code, 0);
    let display = process(&node, &id, "display", "Xvfb")?;
    let cookie = std::fs::read(node.state().join(format!("sandboxes/{id}/display/xauth")))?;
    let program = process(&node, &id, "workload", "tini")?;

    murder(program)?;
    let observed = ready_after(&node, &id, 1).await?;
    assert_ne!(process(&node, &id, "workload", "tini")?, program);
    assert_eq!(process(&node, &id, "display", "Xvfb")?, display, "the display was not touched");
    assert_eq!(std::fs::read(node.state().join(format!("sandboxes/{id}/display/xauth")))?, cookie);
    assert_eq!((observed.restarts, observed.starts), (1, 1));
    let end = observed.last_end.ok_or("no end is told")?;
    assert_eq!((end.part, end.reason.as_str(), end.exit_code), (Part::Application, "workload-exited", Some(137)));
    let read = node.client.exec(&id, &["/bin/sh", "-c", "cat /home/agent/file; ls /dev/shm"]).await?;
    assert_eq!(read.stdout, "kept\n", "files stay, shared memory does not");
    assert_screen_answers(&node, &id).await?;
    node.clear().await
}

#[tokio::test]
async fn a_program_that_ends_in_peace_is_made_again_by_always_alone() -> Result<()> {
    let node = TestNode::start().await?;
    let script = format!("sleep {}", patience()?);
    let ends = ["/bin/sh", "-c", &script];
    let on_failure = Restart { application: RestartPolicy::OnFailure, ..restart() };
    let always = Restart { application: RestartPolicy::Always, ..restart() };
    let first = node.client.create(&bare(&ends, on_failure)?).await?;
    let second = node.client.create(&bare(&ends, always)?).await?;
    let failed = until(&node, &first, "it is Failed", |o| o.phase == Phase::Failed).await?;
    assert_eq!((failed.reason.as_deref(), failed.exit_code), (Some("workload-exited"), Some(0)));
    assert_eq!(failed.restarts, 0);
    ready_after(&node, &second, 2).await?;
    node.clear().await
}

#[tokio::test]
async fn a_crash_loop_waits_longer_each_time_and_a_stop_or_start_does_not_wait() -> Result<()> {
    let node = TestNode::start().await?;
    let policy = Restart { application: RestartPolicy::Always, ..restart() };
    let id = node.client.create(&bare(&["/bin/false"], policy)?).await?;
    let mut restarts = 0;
    for streak in 0..4 {
        let observed =
            until(&node, &id, "the next back-off", |o| o.restarts >= restarts && o.next_restart_at_unix_ms.is_some())
                .await?;
        assert_eq!((observed.phase, observed.reason.as_deref()), (Phase::Starting, Some("restart-backoff")));
        let wait_ms = observed.next_restart_at_unix_ms.unwrap_or_default()
            - observed.last_end.as_ref().map_or(0, |end| end.at_unix_ms);
        assert!(wait_ms >= 100 << streak, "restart {restarts}: {wait_ms} ms");
        restarts = observed.restarts + 1;
    }
    assert!(processes(&node, &id, "display").iter().any(|p| p.name == "Xvfb"), "the display stays");

    let long = Restart { backoff_ms: FOR_EVER_MS, max_backoff_ms: FOR_EVER_MS, ..policy };
    let waits = node.client.create_ready(&bare(&SLEEP, long)?).await?;
    murder(process(&node, &waits, "workload", "tini")?)?;
    backs_off(&node, &waits).await?;
    node.client.api.clone().start_sandbox(request(&waits)).await?;
    ready_after(&node, &waits, 1).await?;
    murder(process(&node, &waits, "workload", "tini")?)?;
    backs_off(&node, &waits).await?;
    node.client.api.clone().stop_sandbox(request(&waits)).await?;
    let stopped = node.client.reaches(&waits, Phase::Stopped).await?;
    assert_eq!(stopped.next_restart_at_unix_ms, None);
    assert!(processes(&node, &waits, "display").is_empty());
    node.clear().await
}

#[tokio::test]
async fn any_image_is_a_desktop_by_the_platforms_window_manager_which_comes_back_alone() -> Result<()> {
    let node = TestNode::start().await?;
    let policy = Restart { window_manager: RestartPolicy::OnFailure, ..restart() };
    let platform = SandboxSpec { window_manager: WindowManager::Platform, ..bare(&SLEEP, policy)? };
    let id = node.client.create_ready(&platform).await?;
    assert!(!processes(&node, &id, "workload").iter().any(|p| p.name == "fluxbox"), "it is not the image's");
    let (display, manager) = (process(&node, &id, "display", "Xvfb")?, process(&node, &id, "display", "fluxbox")?);
    let program = process(&node, &id, "workload", "tini")?;
    let owner = |pid: i32| std::fs::metadata(format!("/proc/{pid}")).map(|m| std::os::unix::fs::MetadataExt::uid(&m));
    assert_eq!(owner(manager)?, owner(program)?, "it has no further rights");

    murder(manager)?;
    let observed = ready_after(&node, &id, 1).await?;
    assert_ne!(process(&node, &id, "display", "fluxbox")?, manager);
    assert_eq!(process(&node, &id, "display", "Xvfb")?, display);
    assert_eq!(process(&node, &id, "workload", "tini")?, program);
    let end = observed.last_end.ok_or("no end is told")?;
    assert_eq!((end.part, end.reason.as_str(), end.exit_code), (Part::WindowManager, "window-manager-lost", Some(137)));
    assert_screen_answers(&node, &id).await?;

    let never = SandboxSpec { restart: restart(), ..platform };
    let id = node.client.create_ready(&never).await?;
    murder(process(&node, &id, "display", "fluxbox")?)?;
    let failed = until(&node, &id, "it is Failed", |o| o.phase == Phase::Failed).await?;
    assert_eq!(failed.reason.as_deref(), Some("window-manager-lost"));
    node.clear().await
}

#[tokio::test]
async fn a_lost_window_manager_of_the_image_comes_back_with_its_container() -> Result<()> {
    let node = TestNode::start().await?;
    let session = "ROOST_APPLICATIONS= /usr/lib/roost/session & exec sleep infinity";
    let policy = Restart { window_manager: RestartPolicy::OnFailure, ..restart() };
    let image = SandboxSpec {
        window_manager: WindowManager::Image,
        ..bare(&["/usr/bin/tini", "--", "/bin/sh", "-c", session], policy)?
    };
    let id = node.client.create_ready(&image).await?;
    let (display, program) = (process(&node, &id, "display", "Xvfb")?, process(&node, &id, "workload", "tini")?);
    murder(process(&node, &id, "workload", "fluxbox")?)?;
    let observed = ready_after(&node, &id, 1).await?;
    assert_ne!(process(&node, &id, "workload", "tini")?, program);
    assert_eq!(process(&node, &id, "display", "Xvfb")?, display);
    assert_eq!(observed.last_end.map(|end| end.part), Some(Part::WindowManager));
    node.clear().await
}

#[tokio::test]
async fn a_killed_display_or_shim_brings_everything_back_on_its_files() -> Result<()> {
    let node = TestNode::start().await?;
    let policy = Restart { display: RestartPolicy::OnFailure, ..restart() };
    let id = node.client.create_ready(&bare(&SLEEP, policy)?).await?;
    assert_eq!(node.client.exec(&id, &["/bin/sh", "-c", "echo kept >/home/agent/file"]).await?.exit_code, 0);
    for (starts, kill_shim) in [(2, false), (3, true)] {
        let program = process(&node, &id, "workload", "tini")?;
        if kill_shim {
            let shims = traces::processes_with(&format!("-id {id}"));
            assert!(!shims.is_empty());
            shims.into_iter().try_for_each(|(pid, _)| murder(i32::try_from(pid)?))?;
        } else {
            murder(process(&node, &id, "display", "Xvfb")?)?;
        }
        let observed = ready_after(&node, &id, starts - 1).await?;
        assert_eq!(observed.starts, starts);
        assert_eq!(observed.last_end.map(|end| end.part), Some(Part::Display));
        assert_ne!(process(&node, &id, "workload", "tini")?, program);
        assert_eq!(node.client.exec(&id, &["/bin/cat", "/home/agent/file"]).await?.stdout, "kept\n");
        assert_screen_answers(&node, &id).await?;
    }
    node.clear().await
}

#[tokio::test]
async fn a_daemon_killed_in_a_backoff_goes_on_waiting_and_then_restarts() -> Result<()> {
    let mut node = TestNode::start().await?;
    let wait = |ms| Restart { application: RestartPolicy::Always, backoff_ms: ms, max_backoff_ms: ms, ..restart() };
    let long = node.client.create_ready(&bare(&SLEEP, wait(FOR_EVER_MS))?).await?;
    let short = node.client.create_ready(&bare(&SLEEP, wait(5_000))?).await?;
    let display = process(&node, &long, "display", "Xvfb")?;
    let mut before = Vec::new();
    for id in [&long, &short] {
        murder(process(&node, id, "workload", "tini")?)?;
        before.push(backs_off(&node, id).await?);
    }
    node.kill_daemon();
    node.restart().await?;
    let after = backs_off(&node, &long).await?;
    assert_eq!(after.next_restart_at_unix_ms, before[0].next_restart_at_unix_ms);
    assert_eq!((after.last_end, after.message), (before[0].last_end.clone(), before[0].message.clone()));
    assert_eq!(process(&node, &long, "display", "Xvfb")?, display, "the display outlived the daemon");
    let again = ready_after(&node, &short, 1).await?;
    assert_eq!(again.last_end.map(|end| end.at_unix_ms), before[1].last_end.as_ref().map(|end| end.at_unix_ms));

    // The display ends while nobody looks: nothing can come back on it.
    node.kill_daemon();
    murder(display)?;
    node.restart().await?;
    let failed = until(&node, &long, "it is Failed", |o| o.phase == Phase::Failed).await?;
    assert_eq!(failed.reason.as_deref(), Some("display-exited"));
    node.clear().await
}

#[tokio::test]
async fn a_memory_hog_dies_by_name_and_the_display_lives() -> Result<()> {
    let node = TestNode::start().await?;
    let mut small = bare(&SLEEP, restart())?;
    small.resources.memory_limit_bytes = 256 << 20;
    small.resources.memory_request_bytes = 128 << 20;
    small.resources.shm_bytes = 64 << 20;
    let id = node.client.create_ready(&small).await?;
    let display = process(&node, &id, "display", "Xvfb")?;
    let hog = node.client.exec(&id, &["/usr/bin/tail", "/dev/zero"]).await?;
    assert_eq!(hog.exit_code, 137);
    let observed = until(&node, &id, "the kill is told", |o| o.out_of_memory.last.is_some()).await?;
    assert_eq!((observed.phase, observed.out_of_memory.kills), (Phase::Ready, 1), "only a child was killed");
    let victim = observed.out_of_memory.last.ok_or("no victim")?;
    assert_eq!((victim.process.as_str(), victim.part), ("tail", Part::Application));
    assert_eq!(process(&node, &id, "display", "Xvfb")?, display);
    assert_screen_answers(&node, &id).await?;

    let script = format!("sleep {}; exec tail /dev/zero", patience()?);
    let program = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let id = node.client.create(&SandboxSpec { command: program, ..small }).await?;
    let failed = until(&node, &id, "it is Failed", |o| o.phase == Phase::Failed).await?;
    assert_eq!((failed.reason.as_deref(), failed.exit_code), (Some("out-of-memory"), Some(137)));
    let message = failed.message.unwrap_or_default();
    assert!(message.contains("\"tail\""), "{message}");
    assert_eq!(failed.out_of_memory.kills, 1);
    node.clear().await
}
