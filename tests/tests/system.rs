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

/// A template whose entry point runs a hook with what a claim gives it; the
/// hook's status is the claim's variable STATUS.
fn waiting_template(system: &System) -> Result<String> {
    let bare = system.roost(&["template", "get", "bare", "-o", "json"])?.json()?;
    let hook = r#"exec /run/roost/claim/await /bin/sh -c 'echo "$TASK" >/tmp/task; exit "$STATUS"'"#;
    let mut template = bare;
    template["name"] = "waiting".into();
    template["command"] = serde_json::json!(["/bin/sh", "-c", hook]);
    template["claim"] = serde_json::json!({"hook": true, "hook_timeout_ms": 10_000});
    let path = system.node.root.join("waiting.json");
    std::fs::write(&path, template.to_string())?;
    Ok(path.display().to_string())
}

async fn ready(system: &System, list: &[&str], count: u64) -> Result<()> {
    eventually("the pool is filled", LIMIT, || async {
        let pools = system.roost(list)?.json()?;
        // A node's list has central's pools beside its own.
        let ready = |pool: &serde_json::Value| {
            pool["nodes"][0]["standing"]["ready"].as_u64().or_else(|| pool["ready"].as_u64())
        };
        Ok(pools.as_array().into_iter().flatten().any(|pool| ready(pool) == Some(count)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_pool_of_central_fills_and_its_desktops_are_claimed_with_what_they_are_given() -> Result<()> {
    let mut system = System::start().await?;
    let template = waiting_template(&system)?;
    system.roost(&["template", "apply", "-f", &template])?.success()?;
    system.roost(&["pool", "set", "desks", "--template", "waiting", "--min-ready", "1"])?.success()?;
    ready(&system, &["pool", "ls", "-o", "json"], 1).await?;
    let standing = system.roost(&["pool", "get", "desks", "-o", "json"])?.json()?["nodes"][0]["standing"].clone();
    assert_eq!((&standing["in_step"], &standing["problem"]), (&true.into(), &Value::Null), "put there again and again");
    let before: Vec<String> = system.node.client.list().await?.into_keys().collect();

    let secret = system.node.root.join("secret");
    std::fs::write(&secret, "s3cr3t")?;
    let (file, secret) = (format!("{template}:/home/agent/in:0640"), format!("key=@{}", secret.display()));
    let claim = [
        "sandbox",
        "claim",
        "desks",
        "--name",
        "mine",
        "-e",
        "TASK=42",
        "-e",
        "STATUS=5",
        "--file",
        &file,
        "--secret",
        &secret,
        "--hostname",
        "desk-7",
        "--claim-id",
        "clm-0123456789abcdef",
        "-o",
        "json",
    ];
    let claimed = system.roost(&claim)?;
    assert_eq!(claimed.code, 8, "the hook ended with 5: {}", claimed.stderr);
    let answer: Value = serde_json::from_str(&claimed.stdout)?;
    assert_eq!((answer["hook_exit_code"].clone(), answer["cold"].clone()), (5.into(), false.into()));
    let id = answer["sandbox"]["id"].as_str().ok_or("no id")?.to_owned();
    assert_eq!(before, std::slice::from_ref(&id), "a desktop that was there before");
    let inside = system.roost(&[
        "sandbox",
        "exec",
        "mine",
        "--",
        "/bin/sh",
        "-c",
        "cat /tmp/task /run/roost/claim/secrets/key; hostname; stat -c %a /home/agent/in",
    ])?;
    assert_eq!(inside.stdout, "42\ns3cr3tdesk-7\n640\n", "{}", inside.stderr);

    // Neither a central that is killed nor a node that starts anew loses it.
    system.central.kill();
    system.restart_central().await?;
    system.node.kill_daemon();
    system.node.restart().await?;
    system.node_is_online().await?;
    let again = system.roost(&claim)?;
    assert_eq!(serde_json::from_str::<Value>(&again.stdout)?["sandbox"]["id"], id.as_str(), "{}", again.stderr);
    assert_eq!(system.roost(&["sandbox", "exec", "mine", "--", "/bin/true"])?.code, 0);

    system.roost(&["pool", "rm", "desks"])?.success()?;
    eventually("only the claimed desktop is left", LIMIT, || async {
        let left: Vec<String> = system.node.client.list().await?.into_keys().collect();
        Ok((left == [id.clone()]).then_some(()))
    })
    .await?;
    system.roost(&["sandbox", "rm", "mine", "--wait"])?.success()?;
    assert!(system.node.client.list().await?.is_empty(), "nothing is left on the node");
    Ok(())
}

#[tokio::test]
async fn an_empty_pool_is_said_to_be_cold_and_a_node_has_pools_of_its_own() -> Result<()> {
    let system = System::start().await?;
    let template = waiting_template(&system)?;
    system.roost(&["template", "apply", "-f", &template])?.success()?;
    system.roost(&["pool", "set", "none", "--template", "waiting", "--min-ready", "0"])?.success()?;
    let cold = system.roost(&["sandbox", "claim", "none", "--name", "cold", "-e", "STATUS=0", "-o", "json"])?.json()?;
    assert_eq!((cold["cold"].clone(), cold["hook_exit_code"].clone()), (true.into(), 0.into()));

    let profile = system.node.root.join("small.json");
    let small = system.roost(&["profile", "get", "small", "-o", "json"])?;
    std::fs::write(&profile, small.stdout)?;
    let (socket, profile) = (system.node.root.join("roostd.sock").display().to_string(), profile.display().to_string());
    let set = ["pool", "set", "mine", "--socket", &socket, "--min-ready", "1", "--template-file", &template];
    system.roost(&[&set[..], &["--profile-file", &profile]].concat())?.success()?;
    ready(&system, &["pool", "ls", "--socket", &socket, "-o", "json"], 1).await?;
    let claimed = system.roost(&["sandbox", "claim", "mine", "--socket", &socket, "-e", "STATUS=0"])?;
    assert!(claimed.code == 0 && claimed.stdout.contains("hook ended with 0"), "{}{}", claimed.stdout, claimed.stderr);
    // What is the node's own stays: central looks at it and leaves it alone.
    system.roost(&["pool", "rm", "none"])?.success()?;
    ready(&system, &["pool", "ls", "--socket", &socket, "-o", "json"], 1).await?;
    system.roost(&["pool", "rm", "mine", "--socket", &socket])?.success()?;
    for id in system.node.client.list().await?.into_keys() {
        let id = id.parse()?;
        // Those of central are central's to delete.
        drop(system.node.client.delete(&id).await);
    }
    system.roost(&["sandbox", "rm", "cold", "--wait"])?.success()
}
