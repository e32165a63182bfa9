//! `checkpoint`: saving a home of 1 GiB, saving it again, and restoring it.

use std::time::Duration;

use roost_proto::model::{Checkpoint, SandboxSpec, VolumeMount};
use roost_proto::node as wire;
use roost_tests::node::spec;
use roost_tests::{Result, TestNode};
use tokio::time::Instant;

use crate::node::with_node;
use crate::progress::Progress;
use crate::report::Report;

/// Size of the home, in mebibytes.
const HOME_MIB: usize = 1024;
/// Size of each of its files, in mebibytes.
const FILE_MIB: usize = 16;
const MIB: u64 = 1 << 20;

/// Time of a call, and what it returned.
async fn timed<T>(call: impl Future<Output = Result<T>>) -> Result<(Duration, T)> {
    let asked = Instant::now();
    let answer = call.await?;
    Ok((asked.elapsed(), answer))
}

async fn save(node: &TestNode) -> Result<Checkpoint> {
    let request = wire::VolumeRequest { name: "home".into(), ..wire::VolumeRequest::default() };
    Ok(node.client.volumes.clone().checkpoint_volume(request).await?.into_inner().try_into()?)
}

/// Saves a home twice while its sandbox runs, and restores it.
///
/// # Errors
/// When the node refuses a step.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let mib = n.unwrap_or(HOME_MIB).div_ceil(FILE_MIB) * FILE_MIB;
    with_node(report.bench(), async |node| {
        let mut volumes = node.client.volumes.clone();
        let size_bytes = (mib as u64 * 2 + 256) * MIB;
        let name = || "home".to_owned();
        volumes.create_volume(wire::CreateVolumeRequest { name: name(), size_bytes, ..Default::default() }).await?;
        let mount = VolumeMount { name: "home".parse()?, path: "/home/agent".into(), read_only: false };
        let id = node.client.create_ready(&SandboxSpec { volumes: vec![mount], ..spec("bare")? }).await?;
        let progress = Progress::new(report.bench(), "filling, saving, saving again, restoring", 4)?;
        let files = mib / FILE_MIB;
        let fill = format!("for i in $(seq {files}); do head -c {FILE_MIB}M /dev/urandom >~/$i; done; sync; sleep 2");
        node.client.exec(&id, &["/bin/sh", "-c", &fill]).await?;
        progress.step();
        let note = format!("{mib} MiB of random bytes in files of {FILE_MIB} MiB, into a directory on the same disk");
        let speed = |took: Duration| mib as f64 / took.as_secs_f64();
        let (took, full) = timed(save(node)).await?;
        report.figure("full_mib_per_s", speed(took), "MiB/s", 1, &note)?;
        progress.step();
        let (took, again) = timed(save(node)).await?;
        let ratio = again.moved_bytes as f64 / again.content_bytes.max(1) as f64;
        report.figure("incremental_ratio", ratio, "1", 1, "moved of all, when nothing changed")?;
        report.figure("incremental_ms", took.as_secs_f64() * 1e3, "ms", 1, &note)?;
        let frozen_ms = full.frozen_us.max(again.frozen_us) as f64 / 1e3;
        report.figure("frozen_ms", frozen_ms, "ms", 2, "the longer of both: the sandbox stood still")?;
        progress.step();
        let request = wire::RestoreVolumeRequest { name: "copy".into(), from: name(), ..Default::default() };
        let (took, _) = timed(async { Ok(volumes.restore_volume(request).await?) }).await?;
        report.figure("restore_mib_per_s", speed(took), "MiB/s", 1, &note)?;
        progress.step();
        Ok(())
    })
    .await
}
