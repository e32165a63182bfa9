//! Central, node and command together, as a user has them.

use std::path::PathBuf;
use std::time::Duration;

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
        Ok(list.values().all(|p| *p == roost_proto::model::Phase::Failed).then_some(()))
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
