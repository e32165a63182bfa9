//! A backup, a life after it, a restore: nothing that runs is lost.

use std::collections::BTreeSet;

use http::Method;
use roost_tests::fleet::SimFleet;
use roost_tests::{Result, eventually};
use serde_json::{Value, json};

use super::postgres::Server;
use super::{central, done, options, roost};

/// How long the fleet may take to come to rest.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

async fn create(fleet: &SimFleet, name: &str) -> Result<String> {
    let body = json!({ "template": "fluxbox", "name": name });
    let made = fleet.rest().await?.good(Method::POST, "/api/v1/sandboxes", Some(&body)).await?;
    Ok(made["id"].as_str().ok_or("a sandbox without id")?.to_owned())
}

async fn all_ready(fleet: &SimFleet, count: usize) -> Result<Vec<Value>> {
    eventually("all are Ready", LIMIT, || async {
        let list = fleet.rest().await?.list("/api/v1/sandboxes").await?;
        let is_done = list.len() == count && list.iter().all(|s| s["observed"]["phase"] == "Ready");
        Ok(is_done.then_some(list))
    })
    .await
}

/// Three sandboxes, a backup, three more; then the state of the backup, with
/// the database in `store`.
async fn lose_an_hour(store: &str, later_store: &str) -> Result<(SimFleet, BTreeSet<String>)> {
    let mut fleet = SimFleet::start(options(2, 10, store)).await?;
    for name in ["a", "b", "c"] {
        create(&fleet, name).await?;
    }
    all_ready(&fleet, 3).await?;
    let backup = fleet.root.join("backup");
    let backup = backup.to_str().ok_or("a path that is no text")?;
    done(&fleet, &["backup", "--out", backup])?;
    let mut later = BTreeSet::new();
    for name in ["d", "e", "f"] {
        later.insert(create(&fleet, name).await?);
    }
    all_ready(&fleet, 6).await?;
    let served = central(&fleet, &["restore", "--in", backup])?;
    assert_eq!(served.code, 1, "a restore under a running central: {served:?}");
    all_ready(&fleet, 6).await?;

    fleet.central.kill();
    std::fs::rename(fleet.root.join("central"), fleet.root.join("central.old"))?;
    fleet.set_link(&options(2, 10, later_store).link)?;
    done(&fleet, &["restore", "--in", backup])?;
    fleet.restart_central().await?;
    fleet.all_connected().await?;
    Ok((fleet, later))
}

async fn orphans(fleet: &SimFleet, count: usize) -> Result<Vec<Value>> {
    eventually("the orphans are found", LIMIT, || async {
        let list = fleet.rest().await?.list("/api/v1/orphans").await?;
        Ok((list.len() == count).then_some(list))
    })
    .await
}

#[tokio::test]
async fn sandboxes_that_were_made_since_the_backup_run_on_and_are_adopted() -> Result<()> {
    let (mut fleet, later) = lose_an_hour("", "").await?;
    let found = orphans(&fleet, 3).await?;
    let ids: BTreeSet<_> = found.iter().filter_map(|o| o["sandbox"]["id"].as_str()).map(String::from).collect();
    assert_eq!(ids, later);
    assert_eq!(fleet.sim.obey("status")?["ready"], 6, "something was deleted on its node");
    // Names are free until the adoption, and whoever took one keeps it.
    create(&fleet, "d").await?;
    let nodes = roost(&fleet, &["node", "ls"])?;
    assert!(nodes.stdout.contains("OrphanedSandboxes"), "{nodes:?}");
    let listed = roost(&fleet, &["node", "orphans", "ls"])?;
    assert!(later.iter().all(|id| listed.stdout.contains(id)), "{listed:?}");
    let taken = roost(&fleet, &["node", "orphans", "adopt", "d"])?;
    assert!(taken.code != 0 && taken.stderr.contains("exists"), "{taken:?}");
    let renamed = roost(&fleet, &["node", "orphans", "adopt", "d", "--name", "d-2"])?;
    assert_eq!(renamed.code, 0, "{renamed:?}");
    assert_eq!(roost(&fleet, &["node", "orphans", "adopt", "--all"])?.code, 0);
    let list = all_ready(&fleet, 7).await?;
    let names: BTreeSet<_> = list.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["a", "b", "c", "d", "d-2", "e", "f"]));
    assert!(list.iter().all(|s| s["observed"]["starts"] == 1), "something was started again: {list:?}");
    done(&fleet, &["store", "check"])?;
    // They are sandboxes like any other.
    let gone = roost(&fleet, &["sandbox", "rm", "e", "--wait"])?;
    assert_eq!(gone.code, 0, "{gone:?}");
    assert_eq!(fleet.sim.obey("status")?["ready"], 6);
    Ok(())
}

#[tokio::test]
async fn a_backup_of_sqlite_is_restored_into_postgresql_and_orphans_can_be_removed() -> Result<()> {
    let server = Server::start();
    let store = format!("[store]\nurl = \"{}\"\n", server.database());
    let (mut fleet, _) = lose_an_hour("", &store).await?;
    orphans(&fleet, 3).await?;
    let removed = roost(&fleet, &["node", "orphans", "rm", "--all", "--yes"])?;
    assert_eq!(removed.code, 0, "{removed:?}");
    all_ready(&fleet, 3).await?;
    assert_eq!(fleet.sim.obey("status")?["ready"], 3);
    done(&fleet, &["store", "check"])?;
    Ok(())
}
