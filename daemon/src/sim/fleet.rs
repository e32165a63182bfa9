//! All nodes of a simulator.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::config::{MischiefConfig, SimConfig};
use super::node::{Shared, SimNode, SimNodeError};
use crate::link::{JoinString, ParseJoinStringError};
use crate::metrics::Metrics;
use crate::sandbox::failure::chain;
use crate::tasks::Tasks;

/// Exit code of a program that crashes by itself.
const CRASH_CODE: i32 = 1;
/// Exit code of a process that the kernel killed: 128 + SIGKILL.
const OOM_CODE: i32 = 137;
/// Between two looks at what is to go wrong.
const MISCHIEF_PERIOD: Duration = Duration::from_millis(100);
/// In this time the load of every node changes once, as a real node's status
/// does.
const BREATH: Duration = Duration::from_secs(10);
/// Nodes whose load changes together: a hundred turns a breath.
const BREATH_PARTS: usize = 100;
/// Nodes that are stopped at the same time.
const STOPS_AT_ONCE: usize = 256;

/// Why a fleet does not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The file of join strings cannot be read.
    #[error("central.join_token_file: cannot read {}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of it is no join string.
    #[error("central.join_token_file: line {line} of {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: ParseJoinStringError,
    },
    /// A node does not start.
    #[error("the fleet does not start")]
    Node(#[from] SimNodeError),
}

/// What goes wrong on one node.
type Act = fn(&SimNode);

/// How a fleet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FleetStatus {
    /// Nodes that are played.
    pub nodes: usize,
    /// Nodes that central hears.
    pub connected: usize,
    /// Sandboxes on all nodes.
    pub sandboxes: usize,
    /// Of them those that are Ready.
    pub ready: usize,
}

/// All nodes of a simulator; cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    nodes: Arc<[SimNode]>,
    config: Arc<SimConfig>,
    tasks: Tasks,
    shutdown: CancellationToken,
}

impl Fleet {
    /// A fleet whose nodes are all switched off.
    #[must_use]
    pub fn new(config: SimConfig, shutdown: CancellationToken) -> Self {
        let tasks = Tasks::default();
        let shared = Shared {
            start: Arc::new(config.start.clone()),
            node: Arc::new(config.node.clone()),
            metrics: Metrics::new(tasks.clone()),
            config: Arc::new(config),
        };
        let nodes = (0..shared.config.fleet.nodes).map(|number| SimNode::new(number, shared.clone())).collect();
        Self { nodes, config: shared.config, tasks, shutdown }
    }

    /// Switches all nodes on, at the configured pace; `step` hears of each.
    /// Ends early with the shutdown. Then things may go wrong as configured.
    ///
    /// # Errors
    /// See [`FleetError`].
    pub async fn start(&self, step: impl Fn()) -> Result<(), FleetError> {
        let mut joins = read_tokens(self.config.central.join_token_file.as_deref())?.into_iter();
        let mut pace = tokio::time::interval(Duration::from_secs(1) / self.config.fleet.connects_per_s);
        for node in &*self.nodes {
            // Cancel-safe: nothing but the time is waited for.
            tokio::select! {
                _ = pace.tick() => {}
                () = self.shutdown.cancelled() => return Ok(()),
            }
            node.start(joins.next())?;
            step();
        }
        let (fleet, mischief) = (self.clone(), self.config.mischief);
        self.tasks.spawn("breath", async move { fleet.breathe().await });
        let fleet = self.clone();
        self.tasks.spawn("mischief", async move { fleet.misbehave(mischief).await });
        Ok(())
    }

    /// Switches all nodes off; what runs on them is forgotten with the fleet.
    pub async fn stop(&self) {
        self.shutdown.cancel();
        futures::stream::iter(&*self.nodes).for_each_concurrent(STOPS_AT_ONCE, SimNode::stop).await;
    }

    /// How the fleet does.
    #[must_use]
    pub fn status(&self) -> FleetStatus {
        let none = FleetStatus { nodes: self.nodes.len(), connected: 0, sandboxes: 0, ready: 0 };
        self.nodes.iter().fold(none, |sum, node| {
            let (sandboxes, ready) = node.sandboxes();
            FleetStatus {
                connected: sum.connected + usize::from(node.is_connected()),
                sandboxes: sum.sandboxes + sandboxes,
                ready: sum.ready + ready,
                ..sum
            }
        })
    }

    /// What keeps a node from central, of one that is not connected.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.nodes.iter().find_map(SimNode::problem)
    }

    /// Carries a command out; how many nodes or sandboxes it met.
    ///
    /// # Errors
    /// See [`FleetError`].
    pub async fn obey(&self, command: Command) -> Result<usize, FleetError> {
        match command {
            Command::Status => Ok(self.nodes.len()),
            Command::Disconnect(share) => {
                let met: Vec<&SimNode> = self.some(share).collect();
                met.iter().for_each(|node| node.disconnect());
                Ok(met.len())
            }
            Command::Restart(share) => {
                let met: Vec<&SimNode> = self.some(share).collect();
                for node in &met {
                    node.restart().await?;
                }
                Ok(met.len())
            }
            Command::Crash(count) => Ok(self.end_some(count, CRASH_CODE)),
            Command::Oom(count) => Ok(self.end_some(count, OOM_CODE)),
        }
    }

    /// About this share of the nodes, spread over all of them.
    fn some(&self, share: f64) -> impl Iterator<Item = &SimNode> {
        let mut sum = rand::random::<f64>();
        self.nodes.iter().filter(move |_| {
            sum += share;
            let is_met = sum >= 1.0;
            sum -= f64::from(u8::from(is_met));
            is_met
        })
    }

    /// Ends so many workloads by chance; fewer when fewer are found running.
    fn end_some(&self, count: u32, exit_code: i32) -> usize {
        (0..count).filter(|_| self.any().is_some_and(|node| node.end_one(exit_code))).count()
    }

    fn any(&self) -> Option<&SimNode> {
        self.nodes.get((rand::random::<f64>() * self.nodes.len() as f64) as usize)
    }

    /// Changes the load of all nodes, a part at a time, until the shutdown.
    async fn breathe(&self) {
        let part = self.nodes.len().div_ceil(BREATH_PARTS);
        let mut ticks = tokio::time::interval(BREATH / u32::try_from(BREATH_PARTS).unwrap_or(1));
        loop {
            for nodes in self.nodes.chunks(part) {
                // Cancel-safe: a tick.
                tokio::select! {
                    _ = ticks.tick() => nodes.iter().for_each(SimNode::breathe),
                    () = self.shutdown.cancelled() => return,
                }
            }
        }
    }

    /// Lets things go wrong at their rates until the shutdown.
    async fn misbehave(&self, rates: MischiefConfig) {
        // A node without a running workload has nothing to lose this time.
        let kinds: [(f64, Act); 3] = [
            (rates.crashes_per_s, |node| _ = node.end_one(CRASH_CODE)),
            (rates.ooms_per_s, |node| _ = node.end_one(OOM_CODE)),
            (rates.disconnects_per_s, SimNode::disconnect),
        ];
        let mut due = [0.0; 4];
        let mut ticks = tokio::time::interval(MISCHIEF_PERIOD);
        loop {
            // Cancel-safe: a tick.
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shutdown.cancelled() => return,
            }
            for ((rate, act), due) in kinds.iter().zip(&mut due) {
                for _ in 0..turns(due, *rate) {
                    if let Some(node) = self.any() {
                        act(node);
                    }
                }
            }
            for _ in 0..turns(&mut due[3], rates.restarts_per_s) {
                let Some(node) = self.any() else { continue };
                if let Err(error) = node.restart().await {
                    tracing::error!(error = %chain(&error), "simulated node did not come back");
                }
            }
        }
    }
}

/// How often something of this rate is to happen in one more period.
fn turns(due: &mut f64, rate_per_s: f64) -> u32 {
    *due += rate_per_s * MISCHIEF_PERIOD.as_secs_f64();
    let whole = due.floor();
    *due -= whole;
    whole as u32
}

fn read_tokens(path: Option<&Path>) -> Result<Vec<JoinString>, FleetError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).map_err(|source| FleetError::Tokens { path: path.to_owned(), source })?;
    let read = |(index, line): (usize, &str)| {
        line.parse().map_err(|source| FleetError::Token { path: path.to_owned(), line: index + 1, source })
    };
    text.lines().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(nodes: u32) -> Fleet {
        let mut config = SimConfig::default();
        config.fleet.nodes = nodes;
        Fleet::new(config, CancellationToken::new())
    }

    #[test]
    fn a_share_of_the_nodes_is_that_many_of_them() {
        let fleet = fleet(100);
        assert_eq!(fleet.some(0.0).count(), 0);
        assert_eq!(fleet.some(1.0).count(), 100);
        assert!((9..=11).contains(&fleet.some(0.1).count()));
    }

    #[test]
    fn a_rate_below_one_a_period_is_kept_over_many() {
        let mut due = 0.0;
        let happened: u32 = (0..1000).map(|_| turns(&mut due, 2.5)).sum();
        assert!((249..=250).contains(&happened), "{happened}");
    }

    #[test]
    fn a_line_that_is_no_join_string_is_named_by_its_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = format!("rjt_a.{}", "00".repeat(32));
        std::fs::write(file.path(), format!("{good}\nnonsense\n")).unwrap();
        assert!(matches!(read_tokens(Some(file.path())), Err(FleetError::Token { line: 2, .. })));
        std::fs::write(file.path(), &good).unwrap();
        assert_eq!(read_tokens(Some(file.path())).unwrap().len(), 1);
        assert!(read_tokens(None).unwrap().is_empty());
    }
}
