//! `cold-start`: how long one sandbox takes from the call to Ready, with its
//! image on the node, and where the time goes.

use std::collections::BTreeMap;
use std::time::Duration;

use roost_proto::model::{Phase, SandboxSpec, Stage};
use roost_tests::node::spec;
use roost_tests::{NodeClient, Result};
use tokio::time::Instant;

use crate::node::{delete, with_node};
use crate::progress::Progress;
use crate::report::{Report, Samples};

/// Starts of `fluxbox` that count.
const STARTS: usize = 60;
/// Starts of `desktop` that count: each takes a browser.
const DESKTOP_STARTS: usize = 10;
/// Starts before those: they fill the page cache.
const WARM_UP: usize = 3;

/// Durations of starts of one template.
#[derive(Debug, Default)]
struct ColdStarts {
    ready: Samples,
    accept: Samples,
    delete: Samples,
    stages: BTreeMap<Stage, Samples>,
}

impl ColdStarts {
    /// Starts one sandbox, waits until it is Ready, and deletes it.
    async fn once(&mut self, client: &NodeClient, spec: &SandboxSpec) -> Result<()> {
        let asked = Instant::now();
        let id = client.create(spec).await?;
        self.accept.push(asked.elapsed());
        let observed = client.reaches(&id, Phase::Ready).await?;
        self.ready.push(asked.elapsed());
        for timing in &observed.stages {
            self.stages.entry(timing.stage).or_default().push(Duration::from_micros(timing.duration_us));
        }
        let deleted = Instant::now();
        delete(client, &id).await?;
        self.delete.push(deleted.elapsed());
        Ok(())
    }
}

/// Starts `n` sandboxes of a template, one after the other.
async fn measure(bench: &str, client: &NodeClient, template: &str, n: usize) -> Result<ColdStarts> {
    let spec = spec(template)?;
    let progress = Progress::new(bench, &format!("starting {template}"), WARM_UP + n)?;
    let mut starts = ColdStarts::default();
    for index in 0..WARM_UP + n {
        if index == WARM_UP {
            starts = ColdStarts::default();
        }
        starts.once(client, &spec).await?;
        progress.step();
    }
    Ok(starts)
}

/// Measures starts of `fluxbox`, then of `platform`, then of `desktop`.
///
/// # Errors
/// When a sandbox does not become Ready or does not go.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let (n, desktops) = (n.unwrap_or(STARTS), n.map_or(DESKTOP_STARTS, |n| n.min(DESKTOP_STARTS)));
    with_node(report.bench(), async |node| {
        let fluxbox = measure(report.bench(), &node.client, "fluxbox", n).await?;
        print_fluxbox(report, &fluxbox)?;
        let platform = measure(report.bench(), &node.client, "platform", n).await?;
        let note = "template platform: Ready with Roost's own window manager, xterm starts beside it";
        report.median_ms("platform_p50_ms", &platform.ready, note)?;
        let desktop = measure(report.bench(), &node.client, "desktop", desktops).await?;
        let note = format!(
            "template desktop: Ready with the window manager, xterm and Chromium start behind it; \
             one after the other, the first {WARM_UP} left out"
        );
        report.median_ms("desktop_p50_ms", &desktop.ready, &note)
    })
    .await
}

fn print_fluxbox(report: &Report, starts: &ColdStarts) -> Result<()> {
    let note = format!("template fluxbox, one after the other, the first {WARM_UP} left out as warm-up");
    report.median_ms("p50_ms", &starts.ready, &note)?;
    report.figure("p99_ms", starts.ready.percentile_ms(99)?, "ms", starts.ready.len(), &note)?;
    report.median_ms("accept_p50_ms", &starts.accept, "the create call alone")?;
    for (stage, samples) in &starts.stages {
        report.median_ms(&format!("{stage}_p50_ms"), samples, "stage of the start, as the node times it")?;
    }
    report.median_ms("delete_p50_ms", &starts.delete, "delete call until nothing is left")
}
