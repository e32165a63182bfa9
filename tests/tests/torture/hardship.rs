//! What is short, slow or too much, one at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use roost_proto::id::{ClaimId, SandboxId};
use roost_proto::model::{Binding, Phase, PoolSpec, PoolUpdate, SandboxSpec};
use roost_proto::node::{self as wire, claim_sandbox_request::From};
use roost_tests::client::{PHASE_LIMIT, request};
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, eventually, within};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::people::{POOL, plain};

const MIB: u64 = 1 << 20;
/// How long containerd hangs.
const HANG: Duration = Duration::from_secs(60);
/// A read of what the daemon knows itself does not wait for anybody.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// What a flood writes, in MiB.
const FLOOD_MIB: u64 = 1024;
/// Desktops of the pool that the storm is about, and how many want one.
const POOL_READY: u32 = 10;
const STORM: u32 = 100;

async fn is(node: &TestNode, id: &SandboxId, phase: Phase) -> Result<()> {
    eventually(&format!("{id} is {phase}"), PHASE_LIMIT, || async {
        Ok((node.client.get(id).await?.phase == phase).then_some(()))
    })
    .await
}

/// The kernel's figure of a process's memory, in bytes.
fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse::<u64>()? * 1024)
}

/// Bytes of the files below a directory, as they take room.
fn disk_bytes(dir: &std::path::Path) -> Result<u64> {
    let output = std::process::Command::new("du").args(["-s", "-B1"]).arg(dir).output()?;
    Ok(String::from_utf8(output.stdout)?.split_whitespace().next().ok_or("no number")?.parse()?)
}

#[tokio::test]
async fn a_containerd_that_hangs_for_a_minute_stops_no_read_and_is_caught_up_with() -> Result<()> {
    let node = TestNode::start().await?;
    let stays = node.client.create_ready(&plain(false)?).await?;
    let [goes, stops] =
        [node.client.create_ready(&plain(false)?).await?, node.client.create_ready(&plain(false)?).await?];
    node.containerd.freeze();
    // Wanted meanwhile: taken at once, carried out when somebody answers.
    let late = node.client.create(&plain(false)?).await?;
    node.client.api.clone().delete_sandbox(request(&goes)).await?;
    node.client.api.clone().stop_sandbox(request(&stops)).await?;
    let end = Instant::now() + HANG;
    while Instant::now() < end {
        let reads = async {
            assert_eq!(node.client.get(&stays).await?.phase, Phase::Ready);
            node.client.list().await?;
            node.client.node().await?;
            assert!(node.client.screenshot(&stays).await?.starts_with(b"\x89PNG"));
            Ok(())
        };
        within("reads while containerd hangs", READ_LIMIT, reads).await?;
        sleep(Duration::from_secs(2)).await;
    }
    let seen = node.client.node().await?;
    let ready = seen.conditions.iter().find(|condition| condition.kind == "ContainerdReady");
    println!("after {HANG:?}: {ready:?}");
    node.containerd.thaw();
    let begun = Instant::now();
    is(&node, &late, Phase::Ready).await?;
    is(&node, &stops, Phase::Stopped).await?;
    eventually("the deleted one is gone", PHASE_LIMIT, || async {
        let phase = node.client.list().await?.get(goes.as_str()).copied();
        Ok(phase.is_none_or(|phase| phase == Phase::Gone).then_some(()))
    })
    .await?;
    println!("caught up after {} ms", begun.elapsed().as_millis());
    assert_eq!(node.client.exec(&stays, &["/bin/echo", "well"]).await?.stdout, "well\n");
    node.clear().await
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_on_disk_and_in_memory() -> Result<()> {
    let node = TestNode::start().await?;
    let flood = format!("head -c {} /dev/zero | tr '\\0' x; echo; echo the end; exec sleep infinity", FLOOD_MIB * MIB);
    let command = ["/bin/sh", "-c", &flood].map(str::to_owned).to_vec();
    let before = resident_bytes(node.daemon.pid())?;
    let id = node.client.create_ready(&SandboxSpec { command, ..plain(false)? }).await?;
    let logs = node.state().join("logs").join(id.as_str());
    let most = std::cell::Cell::new(0);
    eventually("the flood is over", PHASE_LIMIT * 3, || {
        let now = disk_bytes(&logs);
        let (most, node, id) = (&most, &node, &id);
        async move {
            most.set(most.get().max(now?));
            Ok(node.client.output(id).await?.contains("the end").then_some(()))
        }
    })
    .await?;
    eventually("the logs are rotated", PHASE_LIMIT, || async { Ok((disk_bytes(&logs)? < 40 * MIB).then_some(())) })
        .await?;
    let after = resident_bytes(node.daemon.pid())?;
    println!(
        "{FLOOD_MIB} MiB of output: {} MiB of logs at most, {} MiB kept",
        most.get() / MIB,
        disk_bytes(&logs)? / MIB
    );
    println!("roostd: {} MiB before, {} MiB after", before / MIB, after / MIB);
    assert!(after < before + 64 * MIB, "the daemon holds what it has seen: {before} and then {after}");
    assert_eq!(node.client.get(&id).await?.phase, Phase::Ready);
    node.clear().await
}

#[tokio::test]
async fn a_storm_of_claims_gives_each_desktop_once_and_a_clear_word_to_the_rest() -> Result<()> {
    let node = TestNode::start().await?;
    let pool = PoolSpec {
        name: POOL.parse()?,
        spec: plain(false)?,
        min_ready: POOL_READY,
        max: POOL_READY,
        starts_at_once: 2,
        demand_window_ms: 0,
        update: PoolUpdate::OnReplenish,
    };
    node.client.api.clone().put_pool(wire::PutPoolRequest { spec: Some(pool.into()) }).await?;
    eventually("the pool is full", PHASE_LIMIT * 2, || async {
        let pools = node.client.api.clone().list_pools(wire::ListPoolsRequest {}).await?.into_inner().pools;
        Ok(pools.first().is_some_and(|pool| pool.ready == POOL_READY).then_some(()))
    })
    .await?;
    let claims = (0..STORM).map(|_| {
        let mut api = node.client.api.clone();
        let claim = wire::ClaimSandboxRequest {
            from: Some(From::Pool(POOL.into())),
            binding: Some(Binding::new(ClaimId::random()).into()),
            ..wire::ClaimSandboxRequest::default()
        };
        async move { api.claim_sandbox(claim).await }
    });
    let answers = futures::future::join_all(claims).await;
    let mut given = Vec::new();
    for answer in answers {
        match answer {
            Ok(answer) => {
                let desired = answer.into_inner().sandbox.and_then(|sandbox| sandbox.desired);
                given.push(desired.ok_or("an answer without sandbox")?.sandbox_id);
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().contains("no desktop ready"), "{status}");
            }
        }
    }
    let once: BTreeSet<&String> = given.iter().collect();
    assert_eq!(once.len(), given.len(), "one desktop for two");
    assert!(given.len() >= POOL_READY as usize, "what was ready was given: {}", given.len());
    println!("{} of {STORM} claims got one of {POOL_READY} desktops", given.len());
    node.clear().await
}

#[tokio::test]
async fn a_daemon_whose_disk_is_full_refuses_and_goes_on_when_there_is_room() -> Result<()> {
    // Without a reserve nothing holds back before the disk is full.
    let sections = "[reserved]\ndisk_bytes = 1048576\n[pressure]\ndisk_bytes = 1048576\ninodes = 1\n";
    let node = TestNode::start_on_small_disk(256, sections).await?;
    let stays = node.client.create_ready(&spec("bare")?).await?;
    let goes = node.client.create_ready(&spec("bare")?).await?;
    let filler = node.state().join("filler");
    let filled = std::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}", filler.display()))
        .output()?;
    assert!(String::from_utf8_lossy(&filled.stderr).contains("No space left"), "{filled:?}");
    // A second time: what a full disk still had.
    drop(std::process::Command::new("sh").args(["-c", &format!("cat /dev/zero >>{}", filler.display())]).output()?);
    let refused = node.client.create(&spec("bare")?).await.map(drop).unwrap_err().to_string();
    println!("refused: {refused}");
    let ended = async {
        let status = node.client.api.clone().stop_sandbox(request(&goes)).await.map(drop).unwrap_err();
        println!("refused: {status}");
        Ok(())
    };
    within("an answer on a full disk", READ_LIMIT, ended).await?;
    assert_eq!(node.client.get(&stays).await?.phase, Phase::Ready);
    assert_eq!(node.client.exec(&stays, &["/bin/echo", "well"]).await?.stdout, "well\n");

    std::fs::remove_file(&filler)?;
    eventually("it takes requests again", PHASE_LIMIT, || async {
        Ok(node.client.api.clone().stop_sandbox(request(&goes)).await.ok().map(drop))
    })
    .await?;
    is(&node, &goes, Phase::Stopped).await?;
    let next = eventually("it takes new ones again", PHASE_LIMIT, || async {
        Ok(node.client.create(&spec("bare")?).await.ok())
    });
    let next = next.await?;
    is(&node, &next, Phase::Ready).await?;
    node.clear().await
}
