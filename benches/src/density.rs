//! `density`: as many idle desktops at once as one machine holds, each with a
//! picture; what they and the daemon take; and a daemon that comes back to all
//! of them.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use roost_proto::id::SandboxId;
use roost_tests::{Result, TestNode};
use tokio::time::sleep;

use crate::node::{fill, with_node};
use crate::proc::{self, count, mib};
use crate::progress::{Progress, say};
use crate::report::Report;
use crate::screenshot::Picture;
use crate::{adopt, daemon_idle, memory};

/// Idle desktops.
const SANDBOXES: usize = 1000;
/// Rest after the last start.
const REST: Duration = Duration::from_secs(20);
/// Pictures that are asked for at once.
const AT_ONCE: usize = 4;

/// Fills a node, looks at every desktop, and kills the daemon once.
///
/// # Errors
/// When a desktop does not become Ready, shows nothing, or is not adopted.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(SANDBOXES);
    with_node(report.bench(), async |node| {
        let before_mib = mib(proc::available_bytes()?);
        let ids = fill(report.bench(), node, n).await?;
        say(report.bench(), "resting for 20 s");
        sleep(REST).await;
        let drop_mib = before_mib - mib(proc::available_bytes()?);
        report.figure("ready_sandboxes", count(ids.len()), "", n, "idle fluxbox desktops, all Ready at once")?;
        memory::print(report, n, &memory::usage(node, &ids)?, drop_mib)?;
        daemon_idle::watch(report, node, n, ("daemon_rss_mib", "daemon_cpu_pct")).await?;
        pictures(report, node, &ids).await?;
        adopt::kill_and_adopt(report, node, &ids).await
    })
    .await
}

/// Takes a picture of every desktop.
async fn pictures(report: &Report, node: &TestNode, ids: &[SandboxId]) -> Result<()> {
    let progress = Progress::new(report.bench(), "taking a picture of each", ids.len())?;
    let one = async |id: &SandboxId| {
        let picture = Picture::decode(&node.client.screenshot(id).await?)?;
        progress.step();
        if picture.is_blank() {
            return Err::<(), roost_tests::client::Error>(format!("{id} shows one colour only").into());
        }
        Ok(())
    };
    let shown: Vec<()> = futures::stream::iter(ids).map(one).buffer_unordered(AT_ONCE).try_collect().await?;
    report.figure("pictures", count(shown.len()), "", ids.len(), "one of each desktop, none of a single colour")
}
