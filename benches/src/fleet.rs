//! `fleet`: one central under many simulated nodes with a hundred sandboxes
//! each: what it costs, and how the API answers meanwhile.
//!
//! Nodes enrol, connect and send heartbeats as real ones do, and start what
//! central tells them. Only the rows of the sandboxes are laid into the store
//! at once ([`seed`]): a million creations one after the other would take an
//! hour.

mod mix;
mod seed;

use std::time::Duration;

use roost_proto::model::Sandbox;
use roost_tests::Result;
use roost_tests::fleet::{FleetOptions, SimFleet};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::proc::{count, cpu_ms, mib, rss_bytes};
use crate::progress::{Progress, say};
use crate::report::Report;
use mix::Mix;

/// Nodes, unless the user says another number.
const NODES: usize = 10_000;
/// Sandboxes of each.
const SANDBOXES_PER_NODE: usize = 100;
/// Nodes that connect in a second: a tenth of a core each side.
const CONNECTS_PER_S: u32 = 200;
/// Share of the desktops that do something between two samples; the others
/// idle, and their usage does not move.
const BUSY: &str = "0.1";
/// How long the API is asked, quiet and while nodes reconnect.
const PHASE: Duration = Duration::from_secs(30);
/// Between two looks at how far the fleet is.
const LOOK: Duration = Duration::from_secs(2);
/// How long a fleet may take to have started everything.
const READY_LIMIT: Duration = Duration::from_secs(1800);

/// Runs the fleet; `n` is the number of nodes.
///
/// # Errors
/// When a part does not come up, or the API refuses a call.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let nodes = n.unwrap_or(NODES);
    let sandboxes = nodes * SANDBOXES_PER_NODE;
    say(report.bench(), &format!("enrolling {nodes} nodes"));
    let begun = Instant::now();
    let mut fleet = SimFleet::start(options(nodes)?).await?;
    let note = "one-time token, key, certificate, two TLS handshakes each, at the pace of the simulator";
    report.figure("enrol_per_s", count(nodes) / begun.elapsed().as_secs_f64(), "1/s", nodes, note)?;
    let model = model(&fleet).await?;
    fleet.stop_sim();
    fleet.central.stop();
    seed::fill(report.bench(), &fleet.database(), &model, SANDBOXES_PER_NODE)?;
    let restarted = Instant::now();
    fleet.restart_central().await?;
    fleet.restart_sim().await?;
    all_ready(report, &mut fleet, sandboxes, restarted).await?;

    let what = format!(
        "{nodes} nodes x {SANDBOXES_PER_NODE} sandboxes, usage of every tenth moves; rows laid into the store at once"
    );
    report.figure("nodes", count(nodes), "", nodes, &what)?;
    report.figure("sandboxes", count(sandboxes), "", sandboxes, &what)?;
    let sim_kib = count(usize::try_from(rss_bytes(fleet.sim.pid())? / 1024)?) / count(sandboxes);
    report.figure("sim_kib_per_sandbox", sim_kib, "KiB", sandboxes, "resident memory of roostd-sim, divided")?;
    measure(report, &fleet, "", &what).await?;

    say(report.bench(), "a tenth of the nodes reconnects");
    let (storm, quiet) = (format!("{what}; a tenth of the nodes reconnects meanwhile"), Instant::now());
    fleet.sim.obey("disconnect 0.1")?;
    measure(report, &fleet, "reconnect_", &storm).await?;
    fleet.all_connected().await?;
    say(report.bench(), &format!("all are back after at most {:.0} s", quiet.elapsed().as_secs_f64()));
    Ok(())
}

fn options(nodes: usize) -> Result<FleetOptions> {
    let sim = ["--start-ms", "0", "--busy", BUSY, "--connects-per-s", &CONNECTS_PER_S.to_string()];
    Ok(FleetOptions {
        nodes: u32::try_from(nodes)?,
        // Room for what the API mix makes beside them.
        sandboxes: u32::try_from(SANDBOXES_PER_NODE + 10)?,
        link: String::new(),
        sim: sim.map(Into::into).to_vec(),
    })
}

/// A sandbox that went through the API: what the seeded ones are copies of.
async fn model(fleet: &SimFleet) -> Result<Sandbox> {
    let mut rest = fleet.rest().await?;
    let made = rest.good(http::Method::POST, mix::SANDBOXES, Some(&json!({ "template": "fluxbox" }))).await?;
    let id = made["id"].as_str().ok_or("a sandbox without id")?.to_owned();
    fleet.rest().await?.watch(&id).await?.until("Ready").await?;
    Ok(serde_json::from_value(made)?)
}

/// Waits until nodes and central agree that everything is Ready.
async fn all_ready(report: &Report, fleet: &mut SimFleet, sandboxes: usize, begun: Instant) -> Result<()> {
    let progress = Progress::new(report.bench(), "starting sandboxes", sandboxes)?;
    let database = fleet.database();
    loop {
        let on_nodes = fleet.sim.obey("status")?["ready"].as_u64().unwrap_or_default();
        progress.reach(on_nodes);
        if on_nodes >= u64::try_from(sandboxes)? && seed::ready(&database)? >= on_nodes {
            break;
        }
        if begun.elapsed() > READY_LIMIT {
            return Err(format!("{on_nodes} of {sandboxes} sandboxes are Ready after {READY_LIMIT:?}").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let rate = count(sandboxes) / begun.elapsed().as_secs_f64();
    let note = "from the start of central and nodes: connected, desired state sent, started without a wait on the \
                node, Ready stored by central";
    report.figure("ready_per_s", rate, "1/s", sandboxes, note)
}

/// Asks the API for a while, and says what that and central itself took.
async fn measure(report: &Report, fleet: &SimFleet, prefix: &str, what: &str) -> Result<()> {
    let (cpu_before, begun) = (cpu_ms(fleet.central.pid())?, Instant::now());
    let mix = Mix::run(fleet, PHASE).await?;
    let cores = count(usize::try_from(cpu_ms(fleet.central.pid())? - cpu_before)?)
        / count(usize::try_from(begun.elapsed().as_millis())?);
    let note = format!("{what}; {}", Mix::NOTE);
    report.figure(&format!("{prefix}cpu_cores"), cores, "cores", mix.all.len(), &note)?;
    report.figure(&format!("{prefix}central_rss_mib"), mib(rss_bytes(fleet.central.pid())?), "MiB", 1, what)?;
    report.median_ms(&format!("{prefix}api_p50_ms"), &mix.all, &note)?;
    report.figure(&format!("{prefix}api_p99_ms"), mix.all.percentile_ms(99)?, "ms", mix.all.len(), &note)?;
    for (call, samples) in mix.by_call() {
        let metric = format!("{prefix}{call}_p99_ms");
        report.figure(&metric, samples.percentile_ms(99)?, "ms", samples.len(), what)?;
    }
    Ok(())
}

/// The id in an answer.
fn id_of(sandbox: &Value) -> Result<String> {
    Ok(sandbox["id"].as_str().ok_or("a sandbox without id")?.to_owned())
}
