//! Central, node and command together, as a user has them.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::WithCurrentSystemInfo;
use roost_proto::model::Phase;
use roost_tests::client::PHASE_LIMIT;
use roost_tests::node::spec;
use roost_tests::system::System;
use roost_tests::{Result, eventually};
use serde_json::Value;

/// How long a step that waits for processes may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_command_makes_a_desktop_and_takes_its_picture() -> Result<()> {
    let system = System::start().await?;
    let made = system.roost(&["sandbox", "create", "fluxbox", "--name", "one", "--wait", "-o", "json"])?.json()?;
    assert_eq!(made["observed"]["phase"], "Ready");
    let picture: PathBuf = system.node.root.join("one.png");
    system.roost(&["sandbox", "screenshot", "one", "-o", &picture.display().to_string()])?.success()?;
    let info = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&picture)?)).read_info()?;
    assert_eq!((info.info().width, info.info().height), (1280, 800));
    let shell = system.roost(&["sandbox", "exec", "one", "--", "/bin/sh", "-c", "echo $DISPLAY; exit 9"])?;
    assert_eq!((shell.stdout.trim(), shell.code), (":0", 9));
    let list = system.roost(&["sandbox", "ls", "-o", "name"])?;
    assert_eq!(list.stdout.trim(), "one");
    system.roost(&["sandbox", "rm", "one", "--wait"])?.success()?;
    assert_eq!(system.roost(&["sandbox", "get", "one"])?.code, 3, "not found has an exit code of its own");
    assert!(system.node.client.list().await?.is_empty(), "nothing is left on the node");
    Ok(())
}

#[tokio::test]
async fn refusals_say_what_to_do() -> Result<()> {
    let system = System::start().await?;
    for (args, code, words) in [
        (&["sandbox", "create", "nope"][..], 3, "template"),
        (&["sandbox", "rm", "nobody"], 3, "nobody"),
        (&["sandbox", "create", "fluxbox", "--name", "Not A Name"], 2, "sandbox name"),
        (&["sandbox", "create", "fluxbox", "-e", "DISPLAY=:1"], 2, "env.DISPLAY"),
    ] {
        let answer = system.roost(args)?;
        assert_eq!(answer.code, code, "{args:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(words), "{args:?}: {}", answer.stderr);
    }
    let template = system.node.root.join("t.toml");
    std::fs::write(&template, "name = \"t\"\nimage = \"nowhere/x\"\nprofile = \"small\"\n")?;
    system.roost(&["template", "apply", "-f", &template.display().to_string()])?.success()?;
    let answer = system.roost(&["sandbox", "create", "t"])?;
    assert!(answer.code != 0 && answer.stderr.contains("roost image import"), "{}", answer.stderr);
    Ok(())
}

#[tokio::test]
async fn a_node_works_on_while_central_is_away_and_catches_up() -> Result<()> {
    let mut system = System::start().await?;
    system.roost(&["sandbox", "create", "bare", "--name", "kept", "--wait"])?.success()?;
    let before = system.node.client.list().await?;
    system.central.kill();
    // What ends meanwhile is told afterwards.
    let sandbox = before.keys().next().ok_or("no sandbox")?.parse()?;
    let ended = system.node.client.exec(&sandbox, &["/bin/sh", "-c", "kill -TERM 1; exit 0"]).await;
    drop(ended);
    eventually("the node sees the end", LIMIT, || async {
        let list = system.node.client.list().await?;
        Ok(list.values().all(|p| *p == Phase::Failed).then_some(()))
    })
    .await?;
    system.restart_central().await?;
    eventually("central hears of it", LIMIT, || async {
        let answer = system.roost(&["sandbox", "get", "kept", "-o", "json"])?;
        let phase = answer.json().unwrap_or(Value::Null)["observed"]["phase"].clone();
        Ok((phase == "Failed").then_some(()))
    })
    .await?;
    // A wish made now reaches the node again.
    system.roost(&["sandbox", "start", "kept", "--wait"])?.success()?;
    system.roost(&["sandbox", "rm", "kept", "--wait"])?.success()
}

#[tokio::test]
async fn sandboxes_of_central_belong_to_central() -> Result<()> {
    let system = System::start().await?;
    let made = system.roost(&["sandbox", "create", "bare", "--wait", "-o", "json"])?.json()?;
    let id = made["id"].as_str().ok_or("no id")?.parse()?;
    let denied = system.node.client.api.clone().stop_sandbox(roost_tests::client::request(&id)).await.unwrap_err();
    assert!(denied.message().contains("central"), "{denied}");
    // A stop that central wants keeps files; the node restarts in between.
    system.roost(&["sandbox", "exec", id.as_str(), "--", "/bin/sh", "-c", "echo kept > ~/note"])?.success()?;
    system.roost(&["sandbox", "stop", id.as_str(), "--wait"])?.success()?;
    system.roost(&["sandbox", "start", id.as_str(), "--wait"])?.success()?;
    let note = system.roost(&["sandbox", "exec", id.as_str(), "--", "/bin/cat", "/home/agent/note"])?;
    assert_eq!(note.stdout, "kept\n");
    system.roost(&["sandbox", "rm", "--all", "--wait"])?.success()
}

/// Memory that a daemon may gain while nobody takes what it has to say: its
/// queues are a few messages, and the state of a sandbox some kilobytes.
const MEMORY_GAIN_MAX_BYTES: u64 = 32 << 20;

fn memory_bytes(pid: u32) -> Result<u64> {
    Ok(procfs::process::Process::new(i32::try_from(pid)?)?.stat()?.rss_bytes().get())
}

#[tokio::test]
async fn a_central_that_hangs_holds_up_nothing_on_the_node() -> Result<()> {
    let mut system = System::start().await?;
    let central = Pid::from_raw(i32::try_from(system.central.pid())?);
    let spec = spec("bare")?;
    let first = system.node.client.create_ready(&spec).await?;
    let before = memory_bytes(system.node.daemon.pid())?;
    // Central keeps its connections and answers nothing.
    kill(central, Signal::SIGSTOP)?;
    for _ in 0..4 {
        let churned = system.node.client.create_ready(&spec).await?;
        system.node.client.delete(&churned).await?;
    }
    let second = system.node.client.create_ready(&spec).await?;
    assert_eq!(system.node.client.exec(&first, &["/bin/echo", "alive"]).await?.stdout, "alive\n");
    assert!(!system.node.client.screenshot(&second).await?.is_empty());
    let gained = memory_bytes(system.node.daemon.pid())?.saturating_sub(before);
    assert!(gained < MEMORY_GAIN_MAX_BYTES, "the daemon gained {gained} bytes");

    // A daemon that starts meanwhile adopts what runs and serves.
    system.node.kill_daemon();
    system.node.restart().await?;
    for id in [&first, &second] {
        system.node.client.reaches(id, Phase::Ready).await?;
    }
    let third = system.node.client.create_ready(&spec).await?;

    kill(central, Signal::SIGCONT)?;
    eventually("central hears the node again and places there", PHASE_LIMIT, || async {
        let made = system.roost(&["sandbox", "create", "bare", "--wait"])?;
        Ok((made.code == 0).then_some(()))
    })
    .await?;
    for id in [&first, &second, &third] {
        system.node.client.delete(id).await?;
    }
    Ok(())
}
