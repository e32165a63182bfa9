//! What is killed, and when.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use roost_tests::inside::processes;
use roost_tests::{Result, TestNode, traces};
use roostd::host::fault::POINTS;
use tokio::time::{Instant, sleep};

use crate::book::World;

/// How long a daemon has to come by an armed point before it is killed where
/// it stands.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a killed containerd stays away at most, in milliseconds.
const AWAY_MAX_MS: u64 = 800;
/// Points that only a node's first reconciliation passes.
const AT_START: [&str; 2] = ["adopt.", "reap."];
/// What may fail once without harm: a start that fails for good is Failed, and
/// is so by right.
const MAY_FAIL: [&str; 5] = ["stop.", "delete.", "claim.", "ledger.begun", "ledger.flushed"];

/// What was done and found.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) kills: u32,
    by_kind: BTreeMap<&'static str, u32>,
    by_point: BTreeMap<&'static str, u32>,
    /// Times until everything was as wanted, in milliseconds.
    pub(crate) converged_ms: Vec<u64>,
}

impl Tally {
    fn note(&mut self, kind: &'static str) {
        self.kills += 1;
        *self.by_kind.entry(kind).or_default() += 1;
    }

    /// What to tell people at the end.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("{} kills: ", self.kills);
        for (kind, count) in &self.by_kind {
            let _ = write!(text, "{kind} {count}, ");
        }
        let _ = writeln!(text, "{} of {} points hit", self.by_point.len(), POINTS.len());
        let missed: Vec<&str> = POINTS.into_iter().filter(|point| !self.by_point.contains_key(point)).collect();
        let _ = writeln!(text, "not hit: {}", missed.join(" "));
        let mut sorted = self.converged_ms.clone();
        sorted.sort_unstable();
        let at = |permille: usize| sorted.get((sorted.len() * permille / 1000).min(sorted.len().saturating_sub(1)));
        let _ = writeln!(text, "converged after ms: p50 {:?}, p90 {:?}, max {:?}", at(500), at(900), sorted.last());
        text
    }
}

/// Kills something, and brings back what has to be brought back.
pub(crate) async fn once(node: &mut TestNode, world: &World, rng: &mut StdRng, tally: &mut Tally) -> Result<()> {
    sleep(Duration::from_millis(rng.random_range(30..500))).await;
    match rng.random_range(0..100) {
        0..45 => at_point(node, world, rng, tally).await,
        45..60 => {
            node.kill_daemon();
            tally.note("roostd at any time");
            back(node, world, rng, tally).await
        }
        60..70 => {
            node.containerd.kill();
            tally.note("containerd");
            sleep(Duration::from_millis(rng.random_range(0..AWAY_MAX_MS))).await;
            node.containerd.restart().await
        }
        70..78 => {
            node.containerd.kill();
            node.kill_daemon();
            tally.note("containerd and roostd");
            if rng.random_bool(0.5) {
                shim(node, rng, tally)?;
            }
            node.containerd.restart().await?;
            back(node, world, rng, tally).await
        }
        78..86 => shim(node, rng, tally),
        86..94 => process(node, rng, "display", "Xvfb", tally),
        94..97 => process(node, rng, "workload", "workload", tally),
        _ => hiccup(node, rng, tally),
    }
}

/// Arms a point, and kills the daemon where it stands if it does not come by.
async fn at_point(node: &mut TestNode, world: &World, rng: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let points: Vec<&str> = POINTS.into_iter().filter(|p| !AT_START.iter().any(|start| p.starts_with(start))).collect();
    let Some(point) = points.choose(rng).copied() else { return Ok(()) };
    // Some points are passed all the time: not always at the first one.
    let before = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..4) };
    arm(node, &format!("{point} kill {before}\n"))?;
    let deadline = Instant::now() + PATIENCE;
    while node.daemon.is_running() && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
    let has_hit = !node.daemon.is_running();
    node.kill_daemon();
    tally.note(if has_hit { "roostd at a point" } else { "roostd at any time" });
    back(node, world, rng, tally).await
}

/// Starts the daemon again; one in four is killed at its start.
async fn back(node: &mut TestNode, world: &World, rng: &mut StdRng, tally: &mut Tally) -> Result<()> {
    disarm(node, tally)?;
    if rng.random_bool(0.25) {
        let points: Vec<&str> =
            POINTS.into_iter().filter(|p| AT_START.iter().any(|start| p.starts_with(start))).collect();
        if let Some(point) = points.choose(rng) {
            arm(node, &format!("{point} kill\n"))?;
            // It answers all the same where it does not come by.
            let answers = node.restart().await.is_ok();
            sleep(Duration::from_millis(200)).await;
            if !answers || !node.daemon.is_running() {
                tally.note("roostd at its start");
                node.kill_daemon();
            }
            let runs = node.daemon.is_running();
            disarm(node, tally)?;
            if runs {
                world.renew(node.client.clone());
                return Ok(());
            }
        }
    }
    node.restart().await?;
    world.renew(node.client.clone());
    Ok(())
}

/// Lets one step fail or take its time.
fn hiccup(node: &TestNode, rng: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let points: Vec<&str> = POINTS.into_iter().filter(|p| MAY_FAIL.iter().any(|may| p.starts_with(may))).collect();
    let Some(point) = points.choose(rng).copied() else { return Ok(()) };
    *tally.by_kind.entry("(no kill) hiccup").or_default() += 1;
    let action = if rng.random_bool(0.5) { "error".to_owned() } else { format!("delay={}", rng.random_range(50..800)) };
    arm(node, &format!("{point} {action}\n"))
}

pub(crate) fn arm(node: &TestNode, text: &str) -> Result<()> {
    // Whole or not at all: the daemon reads it at any time.
    let (file, new) = (node.state().join("fault"), node.state().join("fault.new"));
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, file)?)
}

/// Takes the orders back, and counts the points that were hit.
pub(crate) fn disarm(node: &TestNode, tally: &mut Tally) -> Result<()> {
    arm(node, "")?;
    let hit = node.state().join("fault.hit");
    let Ok(text) = std::fs::read_to_string(&hit) else { return Ok(()) };
    std::fs::remove_file(hit)?;
    for point in POINTS.into_iter().filter(|point| text.lines().any(|line| line == *point)) {
        *tally.by_point.entry(point).or_default() += 1;
    }
    Ok(())
}

/// Shims of a node, with their command lines.
pub(crate) fn shims(node: &TestNode) -> Vec<(u32, String)> {
    let socket = node.containerd.socket().display().to_string();
    traces::processes_with("containerd-shim").into_iter().filter(|(_, line)| line.contains(&socket)).collect()
}

fn shim(node: &TestNode, rng: &mut StdRng, tally: &mut Tally) -> Result<()> {
    if let Some((pid, _)) = shims(node).choose(rng) {
        // It may have ended meanwhile.
        let _gone = kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL);
        tally.note("a shim");
    }
    Ok(())
}

/// Kills the first process of some container.
fn process(node: &TestNode, rng: &mut StdRng, role: &str, what: &str, tally: &mut Tally) -> Result<()> {
    let ids: Vec<roost_proto::id::SandboxId> =
        traces::cgroups_below(&node.cgroup_parent()).iter().filter_map(|name| name.parse().ok()).collect();
    let Some(first) = ids.choose(rng).and_then(|id| processes(node, id, role).into_iter().next()) else {
        return Ok(());
    };
    let _gone = kill(Pid::from_raw(first.pid), Signal::SIGKILL);
    tally.note(if what == "Xvfb" { "an X server" } else { "a workload" });
    Ok(())
}
