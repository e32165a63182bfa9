//! `warm-claim` and `claim-rate`: how long a desktop that is ready takes to
//! become somebody's, with everything that is bound late.

mod central;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use roost_proto::id::{ClaimId, SandboxId};
use roost_proto::model::{Binding, ClaimContract, PoolSpec, PoolUpdate, SandboxSpec, VolumeMount};
use roost_proto::node::{self as wire, claim_sandbox_request::From};
use roost_tests::node::spec;
use roost_tests::{Result, TestNode, eventually};
use tokio::time::Instant;

use crate::node::with_node;
use crate::progress::Progress;
use crate::report::{Report, Samples};

/// Claims of `warm-claim`.
const CLAIMS: usize = 200;
/// Desktops that stand ready for `warm-claim`.
const READY: u32 = 20;
/// Desktops of `claim-rate`, all claimed in one go.
const BURST: usize = 100;
/// Claims under way at once in `claim-rate`.
const AT_ONCE: usize = 8;
/// How long a pool may take to fill.
const FILL_LIMIT: Duration = Duration::from_secs(300);
const POOL: &str = "bench";
/// Size of the volume that each claim of `warm-claim` brings.
const VOLUME_BYTES: u64 = 64 << 20;
const NOTE: &str = "fluxbox desktop, Ready before; binds 3 variables, a file, a secret, identity and host name, and \
                    waits for the exit status of a hook that runs /bin/true";

/// A desktop whose entry point waits for its claim.
fn waiting() -> Result<SandboxSpec> {
    let spec = spec("fluxbox")?;
    let entry = "/usr/lib/roost/session & exec /run/roost/claim/await /bin/true";
    Ok(SandboxSpec {
        command: ["/usr/bin/tini", "--", "/bin/sh", "-c", entry].map(Into::into).to_vec(),
        claim: ClaimContract { hook: true, ..ClaimContract::default() },
        ..spec
    })
}

/// A claim, with the volume of this name.
fn claim(volume: Option<&str>) -> Result<wire::ClaimSandboxRequest> {
    let claim_id = ClaimId::random();
    let binding = Binding {
        env: [("USER_ID", "42"), ("TASK", "book a flight"), ("LANGUAGE", "nb")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        secrets: ["token".to_owned()].into(),
        identity: [("agent".to_owned(), "agt-1".to_owned())].into(),
        hostname: Some("desk".into()),
        volumes: volume.map(mount).transpose()?.into_iter().collect(),
        ..Binding::new(claim_id)
    };
    Ok(wire::ClaimSandboxRequest {
        from: Some(From::Pool(POOL.into())),
        binding: Some(binding.into()),
        secrets: [("token".to_owned(), vec![b'x'; 64])].into(),
        files: vec![wire::BoundFile { path: "/home/agent/task.json".into(), content: vec![b'{'; 1024], mode: 0o600 }],
        ..wire::ClaimSandboxRequest::default()
    })
}

async fn put(node: &TestNode, ready: u32) -> Result<()> {
    let pool = PoolSpec {
        name: POOL.parse()?,
        spec: waiting()?,
        min_ready: ready,
        max: ready,
        starts_at_once: 4,
        demand_window_ms: 0,
        update: PoolUpdate::OnReplenish,
    };
    node.client.api.clone().put_pool(wire::PutPoolRequest { spec: Some(pool.into()) }).await?;
    Ok(())
}

async fn filled(node: &TestNode, ready: u32) -> Result<()> {
    eventually("the pool is filled", FILL_LIMIT, || async {
        let pools = node.client.api.clone().list_pools(wire::ListPoolsRequest {}).await?.into_inner().pools;
        Ok(pools.iter().any(|pool| pool.ready >= ready && pool.starting == 0).then_some(()))
    })
    .await
}

fn mount(volume: &str) -> Result<VolumeMount> {
    Ok(VolumeMount { name: volume.parse()?, path: "/home/agent/work".into(), read_only: false })
}

/// Makes a volume for a claim to bring.
async fn make_volume(node: &TestNode, name: &str) -> Result<()> {
    let request = wire::CreateVolumeRequest { name: name.into(), size_bytes: VOLUME_BYTES, ..Default::default() };
    node.client.volumes.clone().create_volume(request).await?;
    Ok(())
}

async fn remove_volume(node: &TestNode, name: &str) -> Result<()> {
    let request = wire::DeleteVolumeRequest { name: name.into(), ..Default::default() };
    node.client.volumes.clone().delete_volume(request).await?;
    Ok(())
}

/// Claims one; its id and the times of the parts.
async fn take(node: &TestNode, volume: Option<&str>) -> Result<(SandboxId, Vec<wire::BindStep>)> {
    let answer = node.client.api.clone().claim_sandbox(claim(volume)?).await?.into_inner();
    let desired = answer.sandbox.and_then(|sandbox| sandbox.desired).ok_or("an answer without sandbox")?;
    Ok((desired.sandbox_id.parse()?, answer.steps))
}

/// Claims one after the other from a pool that is full each time.
///
/// # Errors
/// When a claim is refused.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(CLAIMS);
    with_node(report.bench(), async |node| {
        put(node, READY).await?;
        let progress = Progress::new(report.bench(), "claiming desktops", n)?;
        let mut whole = Samples::default();
        let mut steps: BTreeMap<String, Samples> = BTreeMap::new();
        while whole.len() < n {
            filled(node, READY).await?;
            let mut taken = Vec::new();
            for _ in 0..(n - whole.len()).min(READY as usize / 2) {
                let volume = format!("home-{}", whole.len());
                make_volume(node, &volume).await?;
                let asked = Instant::now();
                let (id, parts) = take(node, Some(&volume)).await?;
                whole.push(asked.elapsed());
                for step in parts {
                    steps.entry(step.name).or_default().push(Duration::from_micros(step.duration_us));
                }
                taken.push((id, volume));
                progress.step();
            }
            for (id, volume) in taken {
                node.client.delete(&id).await?;
                remove_volume(node, &volume).await?;
            }
        }
        let note = format!("{NOTE}, and a volume of its own; the pool refills meanwhile, two starts at once");
        report.median_ms("node_p50_ms", &whole, &note)?;
        report.figure("node_p99_ms", whole.percentile_ms(99)?, "ms", whole.len(), &note)?;
        for (name, samples) in &steps {
            report.median_ms(
                &format!("{name}_p50_ms"),
                samples,
                "of it; the rest is the answer's way and its record",
            )?;
        }
        Ok(())
    })
    .await?;
    central::run(report, n).await
}

/// Claims a full pool in one go.
///
/// # Errors
/// When a claim is refused.
pub(crate) async fn rate(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(BURST);
    with_node(report.bench(), async |node| {
        let ready = u32::try_from(n)?;
        put(node, ready).await?;
        filled(node, ready).await?;
        let progress = Progress::new(report.bench(), "claiming desktops", n)?;
        let one = async || {
            let (id, _) = take(node, None).await?;
            progress.step();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(id)
        };
        let begun = Instant::now();
        let ids: Vec<SandboxId> =
            futures::stream::iter(0..n).map(|_| one()).buffer_unordered(AT_ONCE).try_collect().await?;
        let took = begun.elapsed();
        drop(progress);
        if ids.iter().collect::<std::collections::BTreeSet<_>>().len() != n {
            return Err("a desktop was given to two claims".into());
        }
        let note = format!("{NOTE}; from a full pool that refills meanwhile, {AT_ONCE} at once");
        let per_s = n as f64 / took.as_secs_f64();
        report.figure("claims_per_s", per_s, "1/s", n, &note)?;
        Ok(())
    })
    .await
}
