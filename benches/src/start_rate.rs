//! `start-rate`: how many cold starts a node sustains, and what one costs.

use futures::{StreamExt, TryStreamExt};
use roost_tests::node::spec;
use roost_tests::{NodeClient, Result};
use tokio::time::Instant;

use crate::node::{delete, with_node};
use crate::proc::{cores, count, machine_cpu_ms};
use crate::progress::Progress;
use crate::report::Report;

/// Sandboxes that are started.
const STARTS: usize = 100;
/// Starts under way at once.
const AT_ONCE: usize = 8;

/// Starts sandboxes as fast as the node takes them; they stay until the end.
///
/// # Errors
/// When one of them does not become Ready.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(STARTS);
    with_node(report.bench(), async |node| {
        let spec = spec("fluxbox")?;
        // The first start fills the page cache.
        delete(&node.client, &node.client.create_ready(&spec).await?).await?;
        let progress = Progress::new(report.bench(), "starting sandboxes", n)?;
        let start = async |client: &NodeClient| {
            client.create_ready(&spec).await?;
            progress.step();
            Ok::<_, roost_tests::client::Error>(())
        };
        let (begun, cpu_before_ms) = (Instant::now(), machine_cpu_ms()?);
        let starts = futures::stream::iter(0..n).map(|_| start(&node.client)).buffer_unordered(AT_ONCE);
        starts.try_collect::<()>().await?;
        let (took, cpu_ms) = (begun.elapsed(), machine_cpu_ms()? - cpu_before_ms);
        drop(progress);
        let note = format!("template fluxbox, {AT_ONCE} at once, none deleted meanwhile");
        report.figure("starts_per_s", count(n) / took.as_secs_f64(), "1/s", n, &note)?;
        let cpu_ms_per_start = count(usize::try_from(cpu_ms)?) / count(n);
        let note = "CPU of the whole machine, idle time left out: a quiet machine is needed";
        report.figure("cpu_ms_per_start", cpu_ms_per_start, "ms", n, note)?;
        let ceiling = count(cores()?) * 1000.0 / cpu_ms_per_start;
        report.figure("ceiling_per_s", ceiling, "1/s", n, "starts_per_s if every core were busy all the time")
    })
    .await
}
