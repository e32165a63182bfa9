//! What is played: one TOML file or flags, unknown fields refused.

use std::path::{Path, PathBuf};

use roost_proto::model::ImageRef;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::spread::Spread;
use crate::config::{ConfigError, LogConfig};

/// Most nodes of one process: each is one connection, and a process seldom
/// gets more descriptors than this.
const NODES_MAX: u32 = 50_000;
/// Most sandboxes of one node: it lists all of them in one heartbeat.
const SANDBOXES_MAX: u32 = 2_000;

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimConfig {
    /// Where the nodes report to.
    pub central: CentralConfig,
    /// How many nodes, and how they come.
    pub fleet: FleetConfig,
    /// What each node is.
    pub node: NodeConfig,
    /// How sandboxes start and stop.
    pub start: StartConfig,
    /// What goes wrong without being asked.
    pub mischief: MischiefConfig,
    /// The simulator's own log.
    pub log: LogConfig,
}

/// Where the nodes report to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CentralConfig {
    /// Address of central's NodeLink.
    pub address: String,
    /// File with one join string a line; each node that has no certificate yet
    /// uses the line of its own number.
    pub join_token_file: Option<PathBuf>,
}

/// How many nodes, and how they come.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// Nodes, 1 to 50 000.
    pub nodes: u32,
    /// Begin of every node's name; its number follows.
    pub name_prefix: String,
    /// Directory with the key and certificate of every node: with them a later
    /// run plays the same nodes.
    pub state_dir: PathBuf,
    /// Nodes that begin to connect in a second.
    pub connects_per_s: u32,
}

/// What each node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Most sandboxes at once, 1 to 2 000.
    pub sandboxes_max: u32,
    /// Processors that it reports.
    pub cpus: u32,
    /// Memory that it reports, in bytes.
    pub memory_bytes: u64,
    /// Images that it holds; sandboxes of others fail with `image-missing`.
    pub images: Vec<ImageRef>,
    /// Share of the running sandboxes whose usage moves from one sample to the
    /// next, 0 to 1.
    pub busy: f64,
}

/// How sandboxes start and stop.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartConfig {
    /// Time of a whole start, in milliseconds.
    pub time_ms: Spread,
    /// Time of a stop, in milliseconds.
    pub stop_ms: Spread,
    /// Share of the starts that fail, 0 to 1.
    pub fail: f64,
    /// Why they fail, each as often as the others.
    pub faults: Vec<Fault>,
}

/// What goes wrong without being asked, over the whole fleet.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MischiefConfig {
    /// Running workloads that end by themselves in a second.
    pub crashes_per_s: f64,
    /// Running workloads that the kernel kills for memory in a second.
    pub ooms_per_s: f64,
    /// Connections to central that break in a second.
    pub disconnects_per_s: f64,
    /// Daemons that are killed and started again in a second.
    pub restarts_per_s: f64,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            central: CentralConfig::default(),
            fleet: FleetConfig::default(),
            node: NodeConfig::default(),
            start: StartConfig::default(),
            mischief: MischiefConfig::default(),
            // Not every phase of every sandbox of every node.
            log: LogConfig { filter: "warn,roostd::sim=info,roostd_sim=info".into(), ..LogConfig::default() },
        }
    }
}

impl Default for CentralConfig {
    fn default() -> Self {
        Self { address: "https://127.0.0.1:7701".into(), join_token_file: None }
    }
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            nodes: 10,
            name_prefix: "sim".into(),
            state_dir: "/var/lib/roost/sim".into(),
            // Two TLS handshakes each: a tenth of a core on either side.
            connects_per_s: 100,
        }
    }
}

impl Default for NodeConfig {
    /// A GPU node that holds the shipped images.
    fn default() -> Self {
        let images = [Some(ImageRef::display_default()), "roost/desktop".parse().ok()];
        let images = images.into_iter().flatten().collect();
        Self { sandboxes_max: 100, cpus: 96, memory_bytes: 512 << 30, images, busy: 1.0 }
    }
}

impl Default for StartConfig {
    /// As measured on a real node, without failures.
    fn default() -> Self {
        Self {
            time_ms: Spread { mean_ms: 240, deviation_ms: 30 },
            stop_ms: Spread { mean_ms: 30, deviation_ms: 10 },
            fail: 0.0,
            faults: vec![Fault::ContainerFailed, Fault::DisplayFailed, Fault::WorkloadExited, Fault::StartTimeout],
        }
    }
}

impl SimConfig {
    /// Reads a file; the caller checks it after it has laid its flags over it.
    ///
    /// # Errors
    /// [`ConfigError::Io`] and [`ConfigError::Parse`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// Whether every value can work.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first that cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let require = |ok: bool, field: &'static str, problem: &str| {
            if ok { Ok(()) } else { Err(ConfigError::Invalid { field, problem: problem.to_owned() }) }
        };
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        let is_rate = |value: f64| value.is_finite() && value >= 0.0;
        let (fleet, node, start, mischief) = (&self.fleet, &self.node, &self.start, &self.mischief);
        require((1..=NODES_MAX).contains(&fleet.nodes), "fleet.nodes", "must be 1 to 50000")?;
        require(fleet.state_dir.is_absolute(), "fleet.state_dir", "must be an absolute path")?;
        require(fleet.connects_per_s >= 1, "fleet.connects_per_s", "must be at least 1")?;
        let max_ok = (1..=SANDBOXES_MAX).contains(&node.sandboxes_max);
        require(max_ok, "node.sandboxes_max", "must be 1 to 2000")?;
        require(node.cpus >= 1, "node.cpus", "must be at least 1")?;
        require(is_share(node.busy), "node.busy", "must be 0 to 1")?;
        require(is_share(start.fail), "start.fail", "must be 0 to 1")?;
        let faults_ok = start.fail == 0.0 || !start.faults.is_empty();
        require(faults_ok, "start.faults", "must name a fault while start.fail is not 0")?;
        require(is_rate(mischief.crashes_per_s), "mischief.crashes_per_s", "must not be negative")?;
        require(is_rate(mischief.ooms_per_s), "mischief.ooms_per_s", "must not be negative")?;
        require(is_rate(mischief.disconnects_per_s), "mischief.disconnects_per_s", "must not be negative")?;
        require(is_rate(mischief.restarts_per_s), "mischief.restarts_per_s", "must not be negative")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_configuration_is_right_and_says_the_defaults() {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/roostd-sim.toml");
        let config = SimConfig::read(Path::new(shipped)).unwrap();
        config.check().unwrap();
        assert_eq!(toml::to_string(&config).unwrap(), toml::to_string(&SimConfig::default()).unwrap());
    }

    #[test]
    fn unknown_fields_and_faults_are_refused() {
        assert!(toml::from_str::<SimConfig>("[fleet]\nnode = 1").is_err());
        assert!(toml::from_str::<SimConfig>("[start]\nfaults = [\"bad-luck\"]").is_err());
        assert!(toml::from_str::<SimConfig>("[start]\ntime_ms = \"fast\"").is_err());
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        for (text, expected) in [
            ("[fleet]\nnodes = 0", "fleet.nodes"),
            ("[fleet]\nstate_dir = \"x\"", "fleet.state_dir"),
            ("[node]\nbusy = 1.5", "node.busy"),
            ("[start]\nfail = 0.5\nfaults = []", "start.faults"),
            ("[mischief]\nooms_per_s = -1.0", "mischief.ooms_per_s"),
        ] {
            let config: SimConfig = toml::from_str(text).unwrap();
            assert!(matches!(config.check(), Err(ConfigError::Invalid { field, .. }) if field == expected), "{text}");
        }
    }
}
