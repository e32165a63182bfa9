//! `daemon-idle`: what the daemon costs while its sandboxes do nothing.

use std::time::Duration;

use roost_tests::{Result, TestNode};
use tokio::time::{Instant, sleep};

use crate::node::{fill, with_node};
use crate::proc::{count, cpu_ms, mib, rss_bytes};
use crate::progress::say;
use crate::report::Report;

/// Idle sandboxes.
const SANDBOXES: usize = 50;
/// Rest after the last start.
const REST: Duration = Duration::from_secs(5);
/// How long it is watched.
const WINDOW: Duration = Duration::from_secs(20);

/// Watches the daemon beside idle sandboxes.
///
/// # Errors
/// When a sandbox does not become Ready, or the daemon ends.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(SANDBOXES);
    with_node(report.bench(), async |node| {
        fill(report.bench(), node, n).await?;
        sleep(REST).await;
        watch(report, node, n, ("rss_mib", "cpu_pct")).await
    })
    .await
}

/// Watches the daemon beside `n` idle sandboxes; the names are those of its
/// memory and of its CPU time.
///
/// # Errors
/// When it ends.
pub(crate) async fn watch(report: &Report, node: &TestNode, n: usize, (rss, cpu): (&str, &str)) -> Result<()> {
    say(report.bench(), "watching the daemon for 20 s");
    let pid = node.daemon.pid();
    let (begun, before_ms) = (Instant::now(), cpu_ms(pid)?);
    sleep(WINDOW).await;
    let used_ms = count(usize::try_from(cpu_ms(pid)? - before_ms)?);
    let cpu_pct = used_ms / (begun.elapsed().as_secs_f64() * 1000.0) * 100.0;
    let note = format!("roostd with {n} idle fluxbox sandboxes and no central, over 20 s");
    report.figure(rss, mib(rss_bytes(pid)?), "MiB", n, &note)?;
    report.figure(cpu, cpu_pct, "% of a core", n, &note)
}
