//! The commands beside a running central, as people and scripts run them.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use roost_tests::fleet::SimFleet;
use roost_tests::node::binary;
use roost_tests::{Result, eventually};
use serde_json::Value;

use super::{central, done, options, roost};

/// How long a renewal may take.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

fn certificates(fleet: &SimFleet) -> Result<Vec<Value>> {
    let nodes: Value = serde_json::from_str(&roost(fleet, &["node", "ls", "-o", "json"])?.stdout)?;
    let nodes = nodes.get("items").unwrap_or(&nodes);
    Ok(nodes.as_array().into_iter().flatten().map(|node| node["certificate"].clone()).collect())
}

#[tokio::test]
async fn the_ca_is_rotated_beside_a_running_central_and_no_node_is_lost() -> Result<()> {
    let mut fleet = SimFleet::start(options(3, 2, "")).await?;
    let status =
        |fleet: &SimFleet| -> Result<Value> { Ok(serde_json::from_str(&done(fleet, &["ca", "status", "--json"])?)?) };
    let old = status(&fleet)?["present"]["key_id"].clone();
    let early = central(&fleet, &["ca", "retire"])?;
    assert!(early.code == 1 && early.stderr.contains("no rotation"), "{early:?}");
    let begun = done(&fleet, &["ca", "rotate"])?;
    assert!(begun.contains("next"), "{begun}");
    let again = central(&fleet, &["ca", "rotate"])?;
    assert!(again.code == 1 && again.stderr.contains("under way"), "{again:?}");
    eventually("every node has a certificate of the next CA", LIMIT, || {
        let behind = status(&fleet).map(|status| status["behind"].as_array().is_some_and(Vec::is_empty));
        async move { Ok(behind?.then_some(())) }
    })
    .await?;
    done(&fleet, &["ca", "retire"])?;
    let after = status(&fleet)?;
    assert!(after["next"].is_null() && after["present"]["key_id"] != old, "{after}");
    // Whoever has only the old CA is out; the nodes are not.
    fleet.central.kill();
    fleet.restart_central().await?;
    fleet.all_connected().await
}

#[tokio::test]
async fn a_node_renews_when_it_is_told_to() -> Result<()> {
    let fleet = SimFleet::start(options(2, 2, "")).await?;
    eventually("both certificates are known", LIMIT, || {
        let known = certificates(&fleet).map(|all| all.len() == 2 && all.iter().all(|one| !one.is_null()));
        async move { Ok(known?.then_some(())) }
    })
    .await?;
    // A certificate ends on a whole second: a new one within the same looks alike.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let before = certificates(&fleet)?;
    let rotated = roost(&fleet, &["node", "rotate", "sim-00000", "--wait"])?;
    assert_eq!(rotated.code, 0, "{rotated:?}");
    let after = certificates(&fleet)?;
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1], "the other one was not asked");
    Ok(())
}

#[tokio::test]
async fn the_commands_on_the_database_work_as_processes_and_say_what_is_wrong() -> Result<()> {
    let mut fleet = SimFleet::start(options(1, 2, "")).await?;
    let export = fleet.root.join("export");
    let export = export.to_str().ok_or("a path that is no text")?;
    assert!(done(&fleet, &["store", "export", "--out", export])?.contains("rows of schema"));
    assert_eq!(std::fs::metadata(export)?.permissions().mode() & 0o777, 0o600);
    let again = central(&fleet, &["store", "export", "--out", export])?;
    assert!(again.code == 1 && again.stderr.contains("cannot create"), "{again:?}");
    let served = central(&fleet, &["store", "import", "--in", export])?;
    assert!(served.code == 1 && served.stderr.contains("stop every replica"), "{served:?}");
    assert!(done(&fleet, &["store", "check"])?.contains("ok"));
    let report: Value = serde_json::from_str(&done(&fleet, &["store", "check", "-o", "json"])?)?;
    assert!(report["rules"].as_array().is_some_and(|rules| rules.len() > 5), "{report}");
    fleet.central.kill();
    let full = central(&fleet, &["store", "import", "--in", export])?;
    assert!(full.code == 1 && full.stderr.contains("holds nodes"), "{full:?}");
    assert!(done(&fleet, &["store", "mark-restored"])?.contains("1 nodes"));
    std::fs::remove_dir_all(fleet.root.join("central"))?;
    std::fs::create_dir(fleet.root.join("central"))?;
    let imported = done(&fleet, &["store", "import", "--in", export])?;
    assert!(imported.contains("read back and compared"), "{imported}");
    Ok(())
}

#[tokio::test]
async fn a_backup_that_is_killed_in_the_middle_leaves_nothing_under_its_name() -> Result<()> {
    let fleet = SimFleet::start(options(1, 2, "")).await?;
    let target = fleet.root.join("kept");
    for after_ms in [1, 5, 20, 40] {
        let mut child = Command::new(binary("roost-central")?)
            .args(["backup", "--out"])
            .arg(&target)
            .arg("--config")
            .arg(fleet.root.join("central.toml"))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(after_ms));
        child.kill()?;
        child.wait()?;
        if target.exists() {
            // It was quicker: then it is whole.
            let config = fleet.root.join("other.toml");
            let text = format!("state_dir = \"{}\"\n", fleet.root.join(&format!("other-{after_ms}")).display());
            std::fs::write(&config, text)?;
            let ran = super::central_with(&config, &["restore", "--in", &target.display().to_string()])?;
            assert_eq!(ran.code, 0, "{ran:?}");
            std::fs::remove_file(&target)?;
        }
    }
    // A backup goes on as if nothing had been, and through a pipe as well.
    done(&fleet, &["backup", "--out", &target.display().to_string()])?;
    let piped = Command::new(binary("roost-central")?)
        .args(["backup", "--out", "-", "--config"])
        .arg(fleet.root.join("central.toml"))
        .output()?;
    assert!(piped.status.success() && piped.stdout.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "no zstd");
    Ok(())
}
