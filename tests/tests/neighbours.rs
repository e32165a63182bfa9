//! What one sandbox does to itself, the others do not feel.
//!
//! Each test lets one sandbox misbehave while another is looked at: its
//! picture, its processes and what the kernel counted for it. The numbers are
//! printed.

use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Phase, Resources, SandboxSpec};
use roost_tests::node::spec;
use roost_tests::{Cgroup, Result, TestNode, eventually};

const MIB: u64 = 1 << 20;
/// How long an attack may take to hit its limit.
const HIT_LIMIT: Duration = Duration::from_secs(60);
/// Least part of the CPU that both use which a sandbox gets beside a hog with
/// the same request; half would be exact.
const LEAST_SHARE: f64 = 0.35;

fn small() -> Result<SandboxSpec> {
    let mut spec = spec("bare")?;
    spec.resources = Resources {
        cpu_request_millis: 100,
        memory_request_bytes: 64 * MIB,
        memory_limit_bytes: 256 * MIB,
        shm_bytes: 64 * MIB,
        pids_limit: 100,
        ..spec.resources
    };
    Ok(spec)
}

/// Starts a script in a sandbox that goes on alone; the attack may be so quick
/// that its own start fails.
async fn attack(node: &TestNode, id: &SandboxId, script: &str) {
    let script = format!("setsid sh -c '{script}' >/dev/null 2>&1 </dev/null &");
    if let Err(error) = node.client.exec(id, &["/bin/sh", "-c", &script]).await {
        println!("the attack ended with: {error}");
    }
}

/// A sandbox that must not feel anything.
struct Neighbour {
    id: SandboxId,
    cgroup: Cgroup,
    processes: Vec<u32>,
    memory_bytes: u64,
}

impl Neighbour {
    async fn start(node: &TestNode) -> Result<Self> {
        let id = node.client.create_ready(&small()?).await?;
        node.client.screenshot(&id).await?;
        let cgroup = node.cgroup(id.as_str());
        let (processes, memory_bytes) = (cgroup.process_ids(), cgroup.memory_bytes()?);
        Ok(Self { id, cgroup, processes, memory_bytes })
    }

    /// Works as before, with the same processes and no more memory.
    async fn is_well(&self, node: &TestNode) -> Result<()> {
        let png = node.client.screenshot(&self.id).await?;
        assert!(png.starts_with(b"\x89PNG"), "its picture is there");
        assert_eq!(node.client.exec(&self.id, &["/bin/echo", "well"]).await?.stdout, "well\n");
        eventually("only its own processes are left", HIT_LIMIT, || async {
            Ok((self.cgroup.process_ids() == self.processes).then_some(()))
        })
        .await?;
        let (memory, kills) = (self.cgroup.memory_bytes()?, self.cgroup.oom_kills()?);
        println!(
            "neighbour: {} processes, {} MiB before, {} MiB after, {kills} killed",
            self.processes.len(),
            self.memory_bytes / MIB,
            memory / MIB
        );
        assert_eq!(kills, 0);
        assert!(memory < self.memory_bytes + 32 * MIB, "{memory} after {}", self.memory_bytes);
        assert_eq!(node.client.get(&self.id).await?.phase, Phase::Ready);
        Ok(())
    }
}

#[tokio::test]
async fn a_fork_bomb_ends_at_its_own_limit() -> Result<()> {
    let node = TestNode::start().await?;
    let neighbour = Neighbour::start(&node).await?;
    let bomb = node.client.create_ready(&small()?).await?;
    let cgroup = node.cgroup(bomb.as_str());
    // Its children last: a shell that cannot fork ends, and a bomb of shells
    // alone would go out again.
    attack(&node, &bomb, "while :; do sleep 600 & done").await;
    eventually("the bomb is at its limit", HIT_LIMIT, || async { Ok((cgroup.pids()? >= 95).then_some(())) }).await?;
    neighbour.is_well(&node).await?;
    println!("bomb: {} of {} processes", cgroup.pids()?, cgroup.pids_limit()?);
    assert!(cgroup.pids()? <= 100);
    node.client.delete(&bomb).await?;
    assert_eq!(cgroup.process_ids(), Vec::<u32>::new(), "the whole bomb is gone");
    node.clear().await
}

#[tokio::test]
async fn a_memory_hog_is_killed_in_its_own_sandbox() -> Result<()> {
    let node = TestNode::start().await?;
    let neighbour = Neighbour::start(&node).await?;
    let hog = node.client.create_ready(&small()?).await?;
    let cgroup = node.cgroup(hog.as_str());
    attack(&node, &hog, "head -c 2000000000 /dev/zero | tail -c 2000000000").await;
    eventually("the hog is killed", HIT_LIMIT, || async { Ok((cgroup.oom_kills()? > 0).then_some(())) }).await?;
    neighbour.is_well(&node).await?;
    println!("hog: peak {} of {} MiB", cgroup.memory_peak_bytes()? / MIB, cgroup.memory_limit_bytes()? / MIB);
    // The mark of the peak counts a charge that is refused a moment later.
    assert!(cgroup.memory_peak_bytes()? <= 257 * MIB);
    node.clear().await
}

#[tokio::test]
async fn a_filler_of_shared_memory_stops_at_its_size() -> Result<()> {
    let node = TestNode::start().await?;
    let neighbour = Neighbour::start(&node).await?;
    let filler = node.client.create_ready(&small()?).await?;
    let script = "head -c 1000000000 /dev/zero > /dev/shm/fill";
    let filled = node.client.exec(&filler, &["/bin/sh", "-c", script]).await?;
    assert_ne!(filled.exit_code, 0);
    assert!(filled.stderr.contains("No space left"), "{}", filled.stderr);
    neighbour.is_well(&node).await?;
    let charged = node.cgroup(filler.as_str()).memory_bytes()?;
    println!("filler: {} MiB charged for 64 MiB of /dev/shm", charged / MIB);
    assert!((64 * MIB..256 * MIB).contains(&charged), "it pays for what it fills: {charged}");
    node.clear().await
}

/// Most CPU that either could use is used by both: what the kernel then gives
/// each is its share.
#[tokio::test]
async fn a_cpu_hog_leaves_others_their_share() -> Result<()> {
    let node = TestNode::start().await?;
    let neighbour = Neighbour::start(&node).await?;
    let hog = node.client.create_ready(&small()?).await?;
    let spin = "for i in 1 2 3 4 5 6 7 8; do sh -c \"while :; do :; done\" & done; wait";
    attack(&node, &hog, spin).await;
    neighbour.is_well(&node).await?;
    attack(&node, &neighbour.id, spin).await;
    let used = |of: &Cgroup| of.cpu_us();
    let hog = node.cgroup(hog.as_str());
    let begin = (used(&neighbour.cgroup)?, used(&hog)?);
    // Until enough was used for a judgement, however long that takes.
    let (own, other) = eventually("both used CPU", Duration::from_secs(120), || async {
        let (own, other) = (used(&neighbour.cgroup)? - begin.0, used(&hog)? - begin.1);
        Ok((own + other > 6_000_000).then_some((own, other)))
    })
    .await?;
    let share = own as f64 / (own + other) as f64;
    println!("shares of {} ms CPU: neighbour {share:.2}, hog {:.2}", (own + other) / 1000, 1.0 - share);
    assert!(share >= LEAST_SHARE, "{share}");
    node.clear().await
}

/// What is reserved on the disk of the tests, and how much more must be free
/// for a new sandbox, in MiB.
const RESERVE_MIB: u64 = 200;
const MARGIN_MIB: u64 = 200;

fn is_short(status: &roost_proto::model::NodeStatus) -> bool {
    status.conditions.iter().any(|c| c.kind == "DiskPressure" && c.is_true)
}

async fn small_disk() -> Result<TestNode> {
    let sections = format!(
        "[reserved]\ndisk_bytes = {}\n[pressure]\ndisk_bytes = {}\ninodes = 100\n",
        RESERVE_MIB * MIB,
        MARGIN_MIB * MIB
    );
    TestNode::start_on_small_disk(1500, &sections).await
}

fn free_mib(node: &TestNode) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(&node.state())?;
    Ok(stat.blocks_available() * stat.fragment_size() / MIB)
}

#[tokio::test]
async fn a_disk_filler_is_stopped_before_the_reserve_is_gone() -> Result<()> {
    let node = small_disk().await?;
    assert!(!is_short(&node.client.node().await?));
    let neighbour = Neighbour::start(&node).await?;
    // Large, and before: it is not the one that fills the disk now.
    let large = node.client.create_ready(&small()?).await?;
    node.client.exec(&large, &["/bin/sh", "-c", "head -c 400000000 /dev/zero > ~/large; sync"]).await?;
    let filler = node.client.create_ready(&small()?).await?;
    // Slow enough that the test sees each step.
    attack(&node, &filler, "i=0; while head -c 8000000 /dev/zero > ~/fill-$i; do i=$((i+1)); sleep 0.1; done").await;

    let short = || async { Ok(is_short(&node.client.node().await?).then_some(())) };
    eventually("the node is short of disk", HIT_LIMIT, short).await?;
    let refused = node.client.create(&small()?).await.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("DiskPressure"), "{refused}");
    let failed = || async {
        let observed = node.client.get(&filler).await?;
        Ok((observed.phase == Phase::Failed).then_some(observed))
    };
    let observed = eventually("the filler is stopped", HIT_LIMIT, failed).await?;
    println!("filler: {}; {} MiB are left", observed.message.clone().unwrap_or_default(), free_mib(&node)?);
    assert_eq!(observed.reason.as_deref(), Some("disk-pressure"));
    neighbour.is_well(&node).await?;
    assert_eq!(node.client.get(&large).await?.phase, Phase::Ready, "what was there before is not blamed");

    let left = free_mib(&node)?;
    println!("{left} of {RESERVE_MIB} MiB of the reserve are left");
    assert!(left > RESERVE_MIB / 2, "most of the reserve is kept");
    assert!(is_short(&node.client.node().await?), "its files are kept, so the disk stays short");
    node.client.delete(&filler).await?;
    let clear = || async { Ok((!is_short(&node.client.node().await?)).then_some(())) };
    eventually("the pressure ends with its files", HIT_LIMIT, clear).await?;
    let next = node.client.create_ready(&small()?).await?;
    assert_eq!(node.client.get(&next).await?.phase, Phase::Ready);
    node.clear().await
}

#[tokio::test]
async fn a_filler_that_removes_its_file_while_it_writes_is_found_and_stopped() -> Result<()> {
    let node = small_disk().await?;
    let neighbour = Neighbour::start(&node).await?;
    let filler = node.client.create_ready(&small()?).await?;
    let before = free_mib(&node)?;
    // Nothing of it has a name, and the process that holds it goes on.
    let script = "exec 3>~/hidden; rm ~/hidden; while head -c 8000000 /dev/zero >&3; do sleep 0.1; done; sleep 600";
    attack(&node, &filler, script).await;
    let failed = || async {
        let observed = node.client.get(&filler).await?;
        Ok((observed.phase == Phase::Failed).then_some(observed))
    };
    let observed = eventually("the hidden filler is stopped", HIT_LIMIT, failed).await?;
    println!("hidden filler: {}", observed.message.clone().unwrap_or_default());
    assert_eq!(observed.reason.as_deref(), Some("disk-pressure"));
    neighbour.is_well(&node).await?;
    let freed = || async { Ok((free_mib(&node)? > before.saturating_sub(64)).then_some(())) };
    eventually("the room comes back with its end", HIT_LIMIT, freed).await?;
    node.clear().await
}
