//! The daemon dies once at every point that has a name, and what that
//! interrupted is carried out by the next one.

use std::collections::BTreeSet;
use std::time::Duration;

use roost_proto::id::{ClaimId, SandboxId};
use roost_proto::model::{Phase, PoolSpec, PoolUpdate};
use roost_proto::node as wire;
use roost_tests::client::{PHASE_LIMIT, request};
use roost_tests::inside::{murder, processes};
use roost_tests::{Result, TestNode, eventually};
use roostd::host::fault::POINTS;

use crate::check::{Traces, nothing_is_left};
use crate::kills::arm;
use crate::people::{POOL, binding, plain, waiting};

/// A node, and the points at which its daemons have died.
struct Mortal {
    node: TestNode,
    died_at: BTreeSet<&'static str>,
}

impl Mortal {
    async fn start() -> Result<Self> {
        Ok(Self { node: TestNode::start().await?, died_at: BTreeSet::new() })
    }

    /// The daemon is to die at its next pass of a point.
    fn at(&self, point: &str) -> Result<()> {
        arm(&self.node, &format!("{point} kill\n"))
    }

    /// Waits for its death and starts the next one.
    async fn dies(&mut self, point: &'static str) -> Result<()> {
        let daemon = &mut self.node.daemon;
        eventually(&format!("the daemon dies at {point}"), PHASE_LIMIT, || {
            let is_gone = !daemon.is_running();
            async move { Ok(is_gone.then_some(())) }
        })
        .await?;
        arm(&self.node, "")?;
        self.node.restart().await?;
        self.died_at.insert(point);
        Ok(())
    }

    async fn is(&self, id: &SandboxId, phase: Phase) -> Result<()> {
        eventually(&format!("{id} is {phase}"), PHASE_LIMIT, || async {
            Ok((self.node.client.get(id).await?.phase == phase).then_some(()))
        })
        .await
    }

    async fn is_gone(&self, id: &SandboxId) -> Result<()> {
        eventually(&format!("{id} is gone"), PHASE_LIMIT, || async {
            let phase = self.node.client.list().await?.get(id.as_str()).copied();
            Ok(phase.is_none_or(|phase| phase == Phase::Gone).then_some(()))
        })
        .await
    }
}

fn points(what: &[&str]) -> Vec<&'static str> {
    POINTS.into_iter().filter(|point| what.iter().any(|prefix| point.starts_with(prefix))).collect()
}

fn create(id: &SandboxId) -> Result<wire::CreateSandboxRequest> {
    let spec = plain(true)?;
    Ok(wire::CreateSandboxRequest { sandbox_id: id.to_string(), spec: Some(spec.into()), name: String::new() })
}

/// Makes a sandbox whose daemon dies at `point`; whoever asked asks again.
async fn made(mortal: &mut Mortal, point: &'static str) -> Result<SandboxId> {
    let id = SandboxId::random();
    mortal.at(point)?;
    let answered = mortal.node.client.api.clone().create_sandbox(create(&id)?).await.is_ok();
    mortal.dies(point).await?;
    if answered {
        mortal.node.client.get(&id).await.map_err(|e| format!("acknowledged and lost at {point}: {e}"))?;
    }
    mortal.node.client.api.clone().create_sandbox(create(&id)?).await?;
    mortal.is(&id, Phase::Ready).await?;
    Ok(id)
}

#[tokio::test]
async fn a_daemon_that_dies_at_any_point_of_a_life_is_followed_by_one_that_goes_on() -> Result<()> {
    let mut mortal = Mortal::start().await?;
    let first = mortal.node.client.create_ready(&plain(true)?).await?;
    mortal.node.client.delete(&first).await?;
    let before = Traces::take(&mortal.node);
    let mut ends = points(&["stop.", "delete.", "request."]);
    for point in points(&["create.", "ledger."]) {
        let id = made(&mut mortal, point).await?;
        let Some(end) = ends.pop() else {
            mortal.node.client.delete(&id).await?;
            continue;
        };
        mortal.at(end)?;
        let mut api = mortal.node.client.api.clone();
        if matches!(end, "stop.kept" | "request.durable") {
            drop(api.stop_sandbox(request(&id)).await);
            mortal.dies(end).await?;
            mortal.is(&id, Phase::Stopped).await?;
            mortal.node.client.delete(&id).await?;
        } else {
            drop(api.delete_sandbox(request(&id)).await);
            mortal.dies(end).await?;
        }
        mortal.is_gone(&id).await?;
    }
    assert!(ends.is_empty(), "not tried: {ends:?}");
    again(&mut mortal).await?;
    starts(&mut mortal).await?;
    let missing: Vec<&str> = POINTS
        .into_iter()
        .filter(|p| !p.starts_with("claim.") && !p.starts_with("pool.") && !mortal.died_at.contains(p))
        .collect();
    assert_eq!(missing, Vec::<&str>::new(), "nobody died there");
    mortal.node.clear().await?;
    nothing_is_left(&mortal.node, &before).await
}

/// A workload that is made again.
async fn again(mortal: &mut Mortal) -> Result<()> {
    let id = mortal.node.client.create_ready(&plain(false)?).await?;
    for point in points(&["backoff.", "again."]) {
        mortal.at(point)?;
        let first = processes(&mortal.node, &id, "workload").into_iter().next().ok_or("no workload")?;
        murder(first.pid)?;
        mortal.dies(point).await?;
        mortal.is(&id, Phase::Ready).await?;
        let png = mortal.node.client.screenshot(&id).await.map_err(|e| format!("after {point}: {e}"))?;
        assert!(png.starts_with(b"\x89PNG"));
    }
    mortal.node.client.delete(&id).await
}

/// A daemon that begins, with one sandbox that runs and one that nobody owns.
async fn starts(mortal: &mut Mortal) -> Result<()> {
    let id = mortal.node.client.create_ready(&plain(false)?).await?;
    let processes = mortal.node.cgroup(id.as_str()).process_ids();
    for point in points(&["adopt.", "reap."]) {
        mortal.node.kill_daemon();
        let orphan = SandboxId::random();
        let dir = mortal.node.state().join("sandboxes").join(orphan.as_str());
        std::fs::create_dir_all(dir.join("upper/x"))?;
        mortal.at(point)?;
        // It may answer before it comes by.
        drop(mortal.node.restart().await);
        mortal.dies(point).await?;
        mortal.is(&id, Phase::Ready).await?;
        eventually("the orphan is reaped", PHASE_LIMIT, || async { Ok((!dir.exists()).then_some(())) }).await?;
        assert_eq!(mortal.node.cgroup(id.as_str()).process_ids(), processes, "{point}: it was disturbed");
    }
    mortal.node.client.delete(&id).await
}

async fn put_pool(node: &TestNode) -> Result<()> {
    let spec = PoolSpec {
        name: POOL.parse()?,
        spec: waiting()?,
        min_ready: 1,
        max: 2,
        starts_at_once: 1,
        demand_window_ms: 0,
        update: PoolUpdate::OnReplenish,
    };
    node.client.api.clone().put_pool(wire::PutPoolRequest { spec: Some(spec.into()) }).await?;
    Ok(())
}

async fn pool_is_full(node: &TestNode) -> Result<()> {
    eventually("the pool is full", PHASE_LIMIT, || async {
        let pools = node.client.api.clone().list_pools(wire::ListPoolsRequest {}).await?.into_inner().pools;
        Ok(pools.first().is_some_and(|pool| pool.ready == 1 && pool.starting == 0).then_some(()))
    })
    .await
}

/// Sends a claim until it is bound.
async fn claimed(node: &TestNode, claim_id: &ClaimId) -> Result<SandboxId> {
    let sent = eventually("the claim is bound", PHASE_LIMIT, || async {
        Ok(node.client.api.clone().claim_sandbox(binding(claim_id)).await.ok())
    });
    let desired = sent.await?.into_inner().sandbox.and_then(|sandbox| sandbox.desired);
    Ok(desired.ok_or("an answer without sandbox")?.sandbox_id.parse()?)
}

async fn sh(node: &TestNode, id: &SandboxId, script: &str) -> Result<String> {
    Ok(node.client.exec(id, &["/bin/sh", "-c", script]).await?.stdout)
}

#[tokio::test]
async fn a_claim_is_bound_whole_and_once_wherever_the_daemon_dies() -> Result<()> {
    let mut mortal = Mortal::start().await?;
    mortal.at("pool.put")?;
    drop(put_pool(&mortal.node).await);
    mortal.dies("pool.put").await?;
    pool_is_full(&mortal.node).await?;
    let before = mortal.node.client.list().await?.len();
    assert_eq!(before, 1, "a pool that was durable before its answer is there");
    for point in points(&["claim."]) {
        pool_is_full(&mortal.node).await?;
        let claim_id = ClaimId::random();
        mortal.at(point)?;
        drop(mortal.node.client.api.clone().claim_sandbox(binding(&claim_id)).await);
        mortal.dies(point).await?;
        let id = claimed(&mortal.node, &claim_id).await.map_err(|e| format!("{point}: {e}"))?;
        assert_eq!(claimed(&mortal.node, &claim_id).await?, id, "{point}: the same claim again is another desktop");
        let told = sh(&mortal.node, &id, "sort -u ~/tokens; cat ~/claim").await?;
        assert_eq!(told, format!("{claim_id}\nclaimed"), "{point}: what the claim brought");
        mortal.node.client.delete(&id).await?;
    }
    // The wish must not be heard before the content that came with it.
    pool_is_full(&mortal.node).await?;
    arm(&mortal.node, "claim.told delay=400\n")?;
    let claim_id = ClaimId::random();
    let id = claimed(&mortal.node, &claim_id).await?;
    assert_eq!(sh(&mortal.node, &id, "cat ~/tokens ~/claim").await?, format!("{claim_id}\nclaimed"), "bound once");
    mortal.at("pool.removed")?;
    let name = wire::RemovePoolRequest { name: POOL.into() };
    drop(mortal.node.client.api.clone().remove_pool(name).await);
    mortal.dies("pool.removed").await?;
    eventually("only the claimed one is left", PHASE_LIMIT, || async {
        let left = mortal.node.client.list().await?;
        Ok((left.into_keys().collect::<Vec<_>>() == [id.to_string()]).then_some(()))
    })
    .await?;
    let missing: Vec<&str> = points(&["claim.", "pool."]).into_iter().filter(|p| !mortal.died_at.contains(p)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "nobody died there");
    mortal.node.clear().await
}

#[tokio::test]
async fn what_a_killed_containerd_forgot_does_not_stay() -> Result<()> {
    let node = TestNode::start().await?;
    let id = node.client.create_ready(&plain(false)?).await?;
    node.client.api.clone().stop_sandbox(request(&id)).await?;
    node.client.reaches(&id, Phase::Stopped).await?;
    // As a shim that containerd had started when it was killed.
    let script =
        ["-c", "sleep 600; :", "containerd-shim-runc-v2", "-namespace", "roost", "-id", &format!("{id}-display")];
    let program = node.root.join("containerd-shim-runc-v2");
    std::fs::copy("/bin/sh", &program)?;
    let mut shim = std::process::Command::new(&program).args(script).spawn()?;
    let state = node.root.join("runc/roost").join(format!("{id}-display"));
    std::fs::create_dir_all(&state)?;

    node.client.delete(&id).await?;
    let ended = eventually("the shim is killed", Duration::from_secs(10), || {
        let ended = shim.try_wait();
        async move { Ok(ended?.map(|status| status.code())) }
    });
    assert_eq!(ended.await?, None, "by a signal");
    assert!(!state.exists(), "the runtime's state of it is removed");
    node.clear().await
}

#[tokio::test]
async fn a_workload_that_ended_unseen_comes_back_with_its_screen() -> Result<()> {
    let mut node = TestNode::start().await?;
    let id = node.client.create_ready(&plain(false)?).await?;
    node.kill_daemon();
    murder(processes(&node, &id, "workload").into_iter().next().ok_or("no workload")?.pid)?;
    node.restart().await?;
    eventually("it is Ready again", PHASE_LIMIT, || async {
        let observed = node.client.get(&id).await?;
        Ok((observed.phase == Phase::Ready && observed.restarts == 1).then_some(()))
    })
    .await?;
    assert!(node.client.screenshot(&id).await?.starts_with(b"\x89PNG"));
    node.clear().await
}

#[tokio::test]
async fn a_shim_that_is_killed_during_a_start_does_not_fail_it() -> Result<()> {
    let node = TestNode::start().await?;
    for point in ["create.display_task", "create.workload_task"] {
        arm(&node, &format!("{point} delay=1500\n"))?;
        let id = node.client.create(&plain(false)?).await?;
        let shim = eventually("a shim is there", PHASE_LIMIT, || async {
            let all = crate::kills::shims(&node);
            Ok(all.into_iter().find(|(_, line)| line.contains(id.as_str())).map(|(pid, _)| pid))
        });
        murder(i32::try_from(shim.await?)?)?;
        node.client.reaches(&id, Phase::Ready).await.map_err(|e| format!("{point}: {e}"))?;
        node.client.delete(&id).await?;
    }
    node.clear().await
}
