//! Claims and pools on a real node: what is bound late is there, without a
//! restart, and a desktop goes to one claim alone.

use std::collections::BTreeSet;
use std::time::Duration;

use roost_proto::id::{ClaimId, SandboxId};
use roost_proto::model::{Binding, ClaimContract, Observed, Phase, PoolSpec, PoolUpdate, SandboxSpec, ScreenSize};
use roost_proto::node::{self as wire, claim_sandbox_request::From};
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, eventually};

/// How long a pool may take to fill.
const FILL_LIMIT: Duration = Duration::from_secs(60);
const POOL: &str = "desks";

/// A desktop whose entry point waits for a claim, notes what it was given and
/// answers 3.
fn waiting() -> Result<SandboxSpec> {
    let hook = r#"exec /run/roost/claim/await /bin/sh -c 'echo "$GREETING" >>/tmp/greeting; exit 3'"#;
    Ok(SandboxSpec {
        command: vec!["/bin/sh".into(), "-c".into(), hook.into()],
        claim: ClaimContract { hook: true, ..ClaimContract::default() },
        ..spec("bare")?
    })
}

fn pool(spec: SandboxSpec, min_ready: u32) -> Result<PoolSpec> {
    let update = PoolUpdate::OnReplenish;
    Ok(PoolSpec {
        name: POOL.parse()?,
        spec,
        min_ready,
        max: min_ready + 2,
        starts_at_once: 2,
        demand_window_ms: 0,
        update,
    })
}

async fn put(node: &TestNode, pool: PoolSpec) -> Result<()> {
    node.client.api.clone().put_pool(wire::PutPoolRequest { spec: Some(pool.into()) }).await?;
    Ok(())
}

async fn standing(node: &TestNode) -> Result<wire::Pool> {
    let pools = node.client.api.clone().list_pools(wire::ListPoolsRequest {}).await?.into_inner().pools;
    Ok(pools.into_iter().next().ok_or("the node has no pool")?)
}

async fn filled(node: &TestNode, ready: u32) -> Result<wire::Pool> {
    eventually("the pool is filled", FILL_LIMIT, || async {
        let pool = standing(node).await?;
        Ok((pool.ready == ready && pool.starting == 0).then_some(pool))
    })
    .await
}

fn claim(binding: Binding) -> wire::ClaimSandboxRequest {
    wire::ClaimSandboxRequest {
        from: Some(From::Pool(POOL.into())),
        binding: Some(binding.into()),
        ..wire::ClaimSandboxRequest::default()
    }
}

async fn send(node: &TestNode, claim: wire::ClaimSandboxRequest) -> Result<(SandboxId, Observed)> {
    let answer = node.client.api.clone().claim_sandbox(claim).await?.into_inner();
    let sandbox = answer.sandbox.ok_or("an answer without sandbox")?;
    let id = sandbox.desired.ok_or("a sandbox without wish")?.sandbox_id.parse()?;
    Ok((id, sandbox.observed.ok_or("a sandbox without state")?.try_into()?))
}

async fn sh(node: &TestNode, id: &SandboxId, script: &str) -> Result<String> {
    let result = node.client.exec(id, &["/bin/sh", "-c", script]).await?;
    assert_eq!(result.exit_code, 0, "{script}: {result:?}");
    Ok(result.stdout)
}

/// Every file below the daemon's root and its log, but the claims' own.
fn holds(node: &TestNode, needle: &str) -> Result<bool> {
    let script = format!(
        "grep -rIl --exclude-dir=claim --exclude-dir=rootfs --exclude-dir=upper -a '{needle}' '{}' 2>/dev/null | head -1",
        node.state().display()
    );
    Ok(!std::process::Command::new("sh").args(["-c", &script]).output()?.stdout.is_empty())
}

#[tokio::test]
async fn a_claim_gives_what_it_brings_to_what_runs_already() -> Result<()> {
    let node = TestNode::start().await?;
    put(&node, pool(waiting()?, 1)?).await?;
    filled(&node, 1).await?;
    let before: BTreeSet<String> = node.client.list().await?.into_keys().collect();
    let binding = Binding {
        env: [("GREETING".into(), "it's \"late\" $HOME".into())].into(),
        secrets: ["token".into()].into(),
        identity: [("agent".into(), "agt-7".into())].into(),
        hostname: Some("desk-7".into()),
        ..Binding::new(ClaimId::random())
    };
    let request = wire::ClaimSandboxRequest {
        name: "mine".into(),
        secrets: [("token".to_owned(), b"s3cr3t-0f-the-t3st".to_vec())].into(),
        files: vec![wire::BoundFile {
            path: "/home/agent/notes/a.txt".into(),
            content: b"hello".to_vec(),
            mode: 0o640,
        }],
        ..claim(binding)
    };
    let processes = {
        let id = before.first().ok_or("the pool is empty")?;
        node.cgroup(id).process_ids()
    };
    let (id, observed) = send(&node, request).await?;
    assert!(before.contains(id.as_str()), "it was there before");
    let state = observed.binding.ok_or("no binding is shown")?;
    assert_eq!((state.bound, state.hook_exit_code), (true, Some(3)));
    assert_eq!(sh(&node, &id, "cat /tmp/greeting").await?, "it's \"late\" $HOME\n");
    assert_eq!(
        sh(&node, &id, "cat /home/agent/notes/a.txt; stat -c %a:%u /home/agent/notes/a.txt").await?,
        "hello640:1000\n"
    );
    assert_eq!(sh(&node, &id, "cat /run/roost/claim/secrets/token").await?, "s3cr3t-0f-the-t3st");
    assert!(sh(&node, &id, "cat /run/roost/claim/claim.json").await?.contains("agt-7"));
    assert_eq!(sh(&node, &id, "hostname; cat /etc/hostname; grep -c desk-7 /etc/hosts").await?, "desk-7\ndesk-7\n1\n");
    let write = node.client.exec(&id, &["/bin/sh", "-c", "echo x >/run/roost/claim/env"]).await?;
    assert_ne!(write.exit_code, 0, "what a claim laid out is not the sandbox's to change");
    let after = node.cgroup(id.as_str()).process_ids();
    assert!(processes.iter().all(|pid| after.contains(pid)), "nothing was restarted: {processes:?} {after:?}");
    assert!(!holds(&node, "s3cr3t-0f-the-t3st")?, "a secret is in a file of the daemon's");
    assert!(holds(&node, id.as_str())?, "the search finds what is there");
    node.clear().await
}

/// Width and height of a picture, and whether its last row, where the bar is,
/// is like its first.
fn look_at(png: &[u8]) -> Result<((u32, u32), bool)> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("a picture too large")?];
    let info = reader.next_frame(&mut pixels)?;
    let rows = || pixels[..info.buffer_size()].chunks(info.line_size);
    Ok(((info.width, info.height), rows().next() == rows().last()))
}

/// Waits until the window manager's bar is at the bottom of a picture of this
/// size.
async fn shows_bar(node: &TestNode, id: &SandboxId, size: (u32, u32)) -> Result<()> {
    eventually("the bar is at the bottom", FILL_LIMIT, || async {
        let (shown, is_alike) = look_at(&node.client.screenshot(id).await?)?;
        assert_eq!(shown, size);
        Ok((!is_alike).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_claim_gives_the_screen_its_size_and_the_window_manager_follows() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&spec("fluxbox")?).await?;
    let sized = |width_px, height_px| {
        let screen = Some(ScreenSize { width_px, height_px });
        let binding = Binding { screen, ..Binding::new(ClaimId::random()) };
        wire::ClaimSandboxRequest { from: Some(From::SandboxId(id.to_string())), ..claim(binding) }
    };
    let refused = send(&node, sized(4000, 600)).await.unwrap_err().to_string();
    assert!(refused.contains("binding.screen") && refused.contains("1280x800"), "{refused}");
    shows_bar(&node, &id, (1280, 800)).await?;
    send(&node, sized(800, 600)).await?;
    // Were only the picture cut, the bar would be outside of it.
    shows_bar(&node, &id, (800, 600)).await?;
    node.clear().await
}

#[tokio::test]
async fn a_desktop_goes_to_one_claim_and_the_pool_fills_again() -> Result<()> {
    let node = TestNode::start().await?;
    put(&node, pool(waiting()?, 3)?).await?;
    filled(&node, 3).await?;
    let claims = (0..5).map(|_| send(&node, claim(Binding::new(ClaimId::random()))));
    let results = futures::future::join_all(claims).await;
    let ids: Vec<SandboxId> = results.iter().filter_map(|r| r.as_ref().ok()).map(|(id, _)| id.clone()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "one desktop for two claims");
    assert!(ids.len() >= 3, "what was ready was given: {results:?}");
    for refused in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(refused.to_string().contains("no desktop ready"), "{refused}");
    }
    let pool = filled(&node, 3).await?;
    assert_eq!((pool.hits, pool.misses), (ids.len() as u64, 5 - ids.len() as u64));
    // Released is deleted: nothing of it comes back to the pool.
    node.client.delete(&ids[0]).await?;
    assert_eq!(filled(&node, 3).await?.hits, ids.len() as u64);
    node.clear().await
}

#[tokio::test]
async fn the_same_claim_again_is_the_same_desktop_also_after_a_kill_and_a_lost_ledger() -> Result<()> {
    let mut node = TestNode::start().await?;
    put(&node, pool(waiting()?, 2)?).await?;
    filled(&node, 2).await?;
    let binding = Binding { env: [("GREETING".into(), "one".into())].into(), ..Binding::new(ClaimId::random()) };
    let (id, _) = send(&node, claim(binding.clone())).await?;
    assert_eq!(send(&node, claim(binding.clone())).await?.0, id);
    let other = Binding { env: [("GREETING".into(), "two".into())].into(), ..binding.clone() };
    let refused = send(&node, claim(other)).await.unwrap_err();
    assert!(refused.to_string().contains("another spec"), "{refused}");

    node.kill_daemon();
    node.restart().await?;
    let again = binding.clone();
    assert_eq!(send(&node, claim(binding)).await?.0, id);
    filled(&node, 2).await?;
    let (next, _) = send(&node, claim(Binding::new(ClaimId::random()))).await?;
    assert_ne!(next, id);

    node.kill_daemon();
    std::fs::remove_dir_all(node.state().join("ledger"))?;
    node.restart().await?;
    node.client.reaches(&id, Phase::Ready).await?;
    let (same, observed) = send(&node, claim(again)).await?;
    assert_eq!(same, id, "with all that it was given");
    assert_eq!(observed.binding.and_then(|b| b.hook_exit_code), Some(3), "as its hook answered then");
    put(&node, pool(waiting()?, 1)?).await?;
    let (third, _) = eventually("another one is ready", FILL_LIMIT, || async {
        Ok(send(&node, claim(Binding::new(ClaimId::random()))).await.ok())
    })
    .await?;
    assert!(third != id && third != next, "a claimed desktop was given away");
    assert_eq!(sh(&node, &id, "cat /tmp/greeting").await?, "one\n", "its hook ran once");
    node.clear().await
}

#[tokio::test]
async fn a_hook_that_is_silent_leaves_the_claim_standing_until_it_is_sent_again() -> Result<()> {
    let node = TestNode::start().await?;
    let mut spec = waiting()?;
    let late = "until [ -e /tmp/go ]; do sleep 0.05; done; exec /run/roost/claim/await /bin/true";
    spec.command = vec!["/bin/sh".into(), "-c".into(), late.into()];
    spec.claim.hook_timeout_ms = 300;
    let id = node.client.create_ready(&spec).await?;
    let request = || wire::ClaimSandboxRequest {
        from: Some(From::SandboxId(id.to_string())),
        ..wire::ClaimSandboxRequest::default()
    };
    let binding = Binding::new(ClaimId::random());
    let with = |binding: &Binding| wire::ClaimSandboxRequest { binding: Some(binding.clone().into()), ..request() };
    let error = send(&node, with(&binding)).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 300 ms"), "{error}");
    let observed = node.client.get(&id).await?;
    assert_eq!((observed.phase, observed.reason.as_deref()), (Phase::Ready, Some("claim-hook-timeout")));
    let refused = send(&node, with(&Binding::new(ClaimId::random()))).await.unwrap_err();
    assert!(refused.to_string().contains(id.as_str()), "{refused}");
    sh(&node, &id, "touch /tmp/go").await?;
    let state =
        eventually("the hook answers", FILL_LIMIT, || async { Ok(send(&node, with(&binding)).await.ok()) }).await?;
    assert_eq!(state.1.binding.and_then(|b| b.hook_exit_code), Some(0));
    assert_eq!(state.1.reason, None);
    node.clear().await
}

#[tokio::test]
async fn a_changed_pool_replaces_what_nobody_claimed_and_a_removed_one_takes_it_along() -> Result<()> {
    let node = TestNode::start().await?;
    put(&node, pool(waiting()?, 2)?).await?;
    filled(&node, 2).await?;
    let (claimed, _) = send(&node, claim(Binding::new(ClaimId::random()))).await?;
    filled(&node, 2).await?;
    let old: BTreeSet<String> = node.client.list().await?.into_keys().collect();
    let mut changed = waiting()?;
    changed.env.insert("NEWER".into(), "1".into());
    put(&node, pool(changed, 2)?).await?;
    eventually("all are of the newer kind", FILL_LIMIT, || async {
        let pool = standing(&node).await?;
        assert!(pool.ready >= 2, "a rolling change leaves fewer than the minimum");
        Ok((pool.outdated == 0 && pool.ready == 2).then_some(()))
    })
    .await?;
    let now: BTreeSet<String> = eventually("the old ones are gone", FILL_LIMIT, || async {
        let now: BTreeSet<String> = node.client.list().await?.into_keys().collect();
        Ok((now.len() == 3).then_some(now))
    })
    .await?;
    assert_eq!(now.intersection(&old).collect::<Vec<_>>(), [claimed.as_str()]);
    node.client.api.clone().remove_pool(wire::RemovePoolRequest { name: POOL.into() }).await?;
    eventually("only the claimed one is left", FILL_LIMIT, || async {
        let left: Vec<String> = node.client.list().await?.into_keys().collect();
        Ok((left == [claimed.to_string()]).then_some(()))
    })
    .await?;
    node.clear().await
}
