//! Images of a real node: pulled by a start, kept while they are used.

#[path = "images/registry.rs"]
mod registry;

use std::time::Duration;

use registry::{Registry, workload};
use roost_proto::model::{ImageInfo, Phase, PullPolicy, SandboxSpec, Stage};
use roost_proto::node as wire;
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, eventually};

/// Longest wait for something that should be at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bare screen beside a workload that sleeps, from an image of the registry.
fn sleeping(image: &str, pull_policy: PullPolicy) -> Result<SandboxSpec> {
    let command = ["/bin/sleep", "1000"].map(String::from).to_vec();
    Ok(SandboxSpec { image: image.parse()?, pull_policy, command, ..spec("bare")? })
}

/// A node that pulls from a registry by plain HTTP; `fields` are of `images`.
async fn node_of(registry: &Registry, fields: &str) -> Result<TestNode> {
    let mut node = TestNode::start().await?;
    let host = &registry.host;
    node.configure(&format!(
        "[images]\nattempts = 2\n{fields}\n[[images.registries]]\nhost = \"{host}\"\ninsecure = true\n"
    ));
    node.kill_daemon();
    node.restart().await?;
    Ok(node)
}

async fn images(node: &TestNode) -> Result<Vec<ImageInfo>> {
    let answer = node.client.api.clone().list_images(wire::ListImagesRequest {}).await?.into_inner();
    Ok(answer.images.into_iter().map(ImageInfo::try_from).collect::<std::result::Result<_, _>>()?)
}

async fn names(node: &TestNode) -> Result<Vec<String>> {
    Ok(images(node).await?.into_iter().map(|image| image.reference.to_string()).collect())
}

async fn pull(node: &TestNode, reference: &str, pin: bool) -> Result<()> {
    let request = wire::PullImageRequest { reference: reference.into(), policy: 0, pin };
    let mut progress = node.client.api.clone().pull_image(request).await?.into_inner();
    while progress.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn a_start_pulls_what_the_node_does_not_have_as_a_stage_of_its_own() -> Result<()> {
    let registry = Registry::start().await?;
    registry.push("app", "1", &workload("A=1")?).await?;
    let node = node_of(&registry, "").await?;
    let image = format!("{}/app:1", registry.host);
    let id = node.client.create_ready(&sleeping(&image, PullPolicy::IfNotPresent)?).await?;
    let stages: Vec<Stage> = node.client.get(&id).await?.stages.iter().map(|timing| timing.stage).collect();
    assert_eq!(stages[..3], [Stage::Ledger, Stage::Image, Stage::Namespaces]);
    let used = images(&node).await?.into_iter().find(|i| i.reference.as_str() == image).ok_or("not listed")?;
    assert_eq!(used.in_use_by, 1);

    let again = node.client.create_ready(&sleeping(&image, PullPolicy::IfNotPresent)?).await?;
    let stages = node.client.get(&again).await?.stages;
    assert!(stages.iter().all(|timing| timing.stage != Stage::Image), "it is on the node: {stages:?}");
    node.clear().await
}

#[tokio::test]
async fn a_start_that_may_not_or_cannot_pull_fails_with_the_reason() -> Result<()> {
    let registry = Registry::start().await?;
    let node = node_of(&registry, "").await?;
    let image = format!("{}/none:1", registry.host);
    for (policy, reason, word) in [
        (PullPolicy::Never, "image-missing", "roost image pull"),
        (PullPolicy::Always, "image-pull-failed", "has no manifest"),
    ] {
        let id = node.client.create(&sleeping(&image, policy)?).await?;
        let failed = eventually("the start fails", PATIENCE, || async {
            let observed = node.client.get(&id).await?;
            Ok((observed.phase == Phase::Failed).then_some(observed))
        });
        let observed = failed.await?;
        assert_eq!(observed.reason.as_deref(), Some(reason));
        let message = observed.message.unwrap_or_default();
        assert!(message.contains(word), "{message}");
    }
    node.clear().await
}

#[tokio::test]
async fn a_replaced_image_keeps_its_layers_and_environment_where_it_runs() -> Result<()> {
    let registry = Registry::start().await?;
    registry.push("app", "1", &workload("A=old")?).await?;
    let node = node_of(&registry, "").await?;
    let image = format!("{}/app:1", registry.host);
    let id = node.client.create_ready(&sleeping(&image, PullPolicy::Always)?).await?;
    registry.push("app", "1", &workload("A=new")?).await?;
    pull(&node, &image, false).await?;
    let newer = node.client.create_ready(&sleeping(&image, PullPolicy::Never)?).await?;
    let env = async |id| Ok::<_, roost_tests::client::Error>(node.client.exec(id, &["/bin/env"]).await?.stdout);
    assert!(env(&id).await?.contains("A=old"), "as it was started");
    assert!(env(&newer).await?.contains("A=new"));

    let client = roostd::containerd::Client::connect(&node.containerd.socket(), "roost")?;
    let views = async || Ok::<_, roost_tests::client::Error>(client.list_views("overlayfs").await?.len());
    assert_eq!(views().await?, 3, "display, old and new");
    node.client.delete(&id).await?;
    pull(&node, &format!("{}/app:1", registry.host), false).await?;
    registry.push("other", "1", &workload("A=other")?).await?;
    pull(&node, &format!("{}/other:1", registry.host), false).await?;
    let swept = eventually("the old layers go", PATIENCE, || async { Ok((views().await? == 2).then_some(())) });
    swept.await?;
    node.clear().await
}

#[tokio::test]
async fn pruning_and_collection_take_only_what_nobody_uses_or_pinned() -> Result<()> {
    let registry = Registry::start().await?;
    for name in ["used", "pinned", "kept", "unused", "older"] {
        registry.push(name, "1", &workload(&format!("NAME={name}"))?).await?;
    }
    let host = registry.host.clone();
    let mut node = node_of(&registry, &format!("keep = [\"{host}/kept:1\"]")).await?;
    let full = |name: &str| format!("{host}/{name}:1");
    node.client.create_ready(&sleeping(&full("used"), PullPolicy::IfNotPresent)?).await?;
    pull(&node, &full("pinned"), true).await?;
    pull(&node, &full("unused"), false).await?;

    let prune = async |dry_run| {
        let request = wire::PruneImagesRequest { dry_run, unused_for_ms: 0 };
        let answer = node.client.api.clone().prune_images(request).await?.into_inner();
        Ok::<Vec<String>, roost_tests::client::Error>(answer.removed.into_iter().map(|i| i.reference).collect())
    };
    // The desktop image of the test node is in nobody's use either.
    let gone = vec![full("unused"), "roost/desktop:latest".to_owned()];
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(prune(true).await?), gone);
    assert!(names(&node).await?.contains(&full("unused")), "a dry run removes nothing");
    assert_eq!(sorted(prune(false).await?), gone);

    pull(&node, &full("kept"), false).await?;
    pull(&node, &full("older"), false).await?;
    // Fuller than nothing at all: whatever may go goes.
    let gc = "[images.gc]\nhigh_percent = 1\nlow_percent = 0\nmin_unused_s = 0\nperiod_s = 1\n";
    node.configure(gc);
    node.kill_daemon();
    node.restart().await?;
    let left = [full("kept"), full("pinned"), full("used"), "roost/display:latest".to_owned()];
    let collected = eventually("the unused image goes", PATIENCE, || async {
        Ok((!names(&node).await?.contains(&full("older"))).then_some(()))
    });
    collected.await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sorted(names(&node).await?), left);
    node.clear().await
}

/// The `roost` command at the socket of a node: whether it succeeded, and what
/// it said.
fn roost(node: &TestNode, verb: &str, args: &[&str]) -> Result<(bool, String)> {
    let socket = node.root.join("roostd.sock").display().to_string();
    let mut command = std::process::Command::new(roost_tests::node::binary("roost")?);
    let output = command.args(["image", verb, "--node-socket", &socket]).args(args).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

#[tokio::test]
async fn without_central_the_command_imports_lists_prunes_and_removes_at_the_socket() -> Result<()> {
    let registry = Registry::start().await?;
    registry.push("app", "1", &workload("A=1")?).await?;
    let node = node_of(&registry, "").await?;
    let image = format!("{}/app:1", registry.host);
    pull(&node, &image, false).await?;
    let archive = node.root.join("app.tar").display().to_string();
    let run = |verb: &str, args: &[&str]| roost(&node, verb, args);
    assert!(run("export", &[&image, "-o", &archive])?.0);

    let (ok, said) = run("import", &[&archive, "--reference", "my/copy:1"])?;
    assert!(ok && said.contains("my/copy:1 imported on this node"), "{said}");
    assert!(names(&node).await?.contains(&"my/copy:1".to_owned()));
    let bytes = std::fs::read(&archive)?;
    std::fs::write(&archive, &bytes[..bytes.len() / 2])?;
    let (ok, said) = run("import", &[&archive, "--reference", "my/half:1"])?;
    assert!(!ok && said.contains("cut off"), "{said}");
    assert!(!names(&node).await?.contains(&"my/half:1".to_owned()));

    let (ok, said) = run("prune", &["--dry-run"])?;
    assert!(ok && said.contains("my/copy:1") && said.contains("dry run"), "{said}");
    let (ok, said) = run("rm", &["my/copy:1"])?;
    assert!(ok && said.contains("my/copy:1 removed from this node"), "{said}");
    assert!(!names(&node).await?.contains(&"my/copy:1".to_owned()));
    let (ok, said) = run("rm", &["my/copy:1"])?;
    assert!(!ok && said.contains("is not on this node"), "{said}");
    node.clear().await
}
