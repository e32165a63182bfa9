//! The daemon's configuration: one TOML file, unknown fields refused.

mod checkpoints;
mod pressure;
mod storage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use roost_proto::model::ImageRef;
use serde::{Deserialize, Serialize};

use crate::logging::LogFormat;
pub use checkpoints::{CheckpointsConfig, S3Config};
pub use pressure::PressureConfig;
pub use storage::{LimitBy, StorageConfig};

mod images;

pub use images::{GcConfig, ImagesConfig, ProxyConfig, RegistryConfig, SignatureConfig};

/// Smallest first id of a sandbox: below it lie the host's own users.
const MIN_FIRST_ID: u32 = 65_536;
/// Longest root directory, in bytes: the names of pinned namespaces and
/// sockets below it must fit into what the kernel takes.
const MAX_ROOT_LEN: usize = 128;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or a field is unknown or of another type.
    #[error("the configuration {} is not right", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value cannot work.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name under which central lists the node; empty = the host name.
    pub name: String,
    /// Directory of everything that the daemon keeps and mounts.
    pub root: PathBuf,
    /// Directory of runc's state: on a tmpfs, so that it goes with a reboot as
    /// the containers do.
    pub runc_state: PathBuf,
    /// The containerd that runs the containers.
    pub containerd: ContainerdConfig,
    /// How many sandboxes, with which ids.
    pub sandboxes: SandboxesConfig,
    /// What of the machine is not for sandboxes.
    pub reserved: ReservedConfig,
    /// Registries, limits and garbage collection of images.
    pub images: ImagesConfig,
    /// When the node counts as short of something.
    pub pressure: PressureConfig,
    /// How disk limits are enforced.
    pub storage: StorageConfig,
    /// Where volumes are saved, and how often.
    pub checkpoints: CheckpointsConfig,
    /// The unix socket.
    pub api: ApiConfig,
    /// Metrics and probes.
    pub admin: AdminConfig,
    /// Central; absent = the node works alone.
    pub central: Option<CentralConfig>,
    /// The daemon's own log.
    pub log: LogConfig,
}

/// Which containerd.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerdConfig {
    /// Its socket.
    pub socket: PathBuf,
    /// containerd namespace of this daemon alone.
    pub namespace: String,
    /// Snapshotter for images; it must give directories.
    pub snapshotter: String,
    /// The OCI runtime that the runc shim calls, `runc` or `crun`: a name in
    /// containerd's search path, or an absolute path.
    pub runtime_binary: String,
}

/// Sandboxes of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxesConfig {
    /// Most sandboxes at once.
    pub max: usize,
    /// First id of the ranges; each sandbox gets 65 536 ids. Daemons on one
    /// machine need ranges that do not overlap.
    pub first_id: u32,
    /// Parent cgroup of all sandboxes.
    pub cgroup_parent: String,
    /// Roost's own image for the display containers.
    pub display_image: ImageRef,
    /// The same with Mesa, for templates with `display.glx = true`.
    pub display_glx_image: ImageRef,
    /// Kept output per container, in bytes; as much again is kept of what
    /// came before.
    pub log_max_bytes: u64,
    /// Largest image archive, in bytes.
    pub archive_max_bytes: u64,
}

/// What is not for sandboxes: they cannot request it, and the kernel does not
/// let all of them together use it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReservedConfig {
    /// CPU for everything else, in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory for everything else, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads for everything else, of those that the kernel
    /// allows.
    pub pids: u32,
    /// Disk that stays free, in bytes: below it, the sandbox that writes most
    /// is stopped.
    pub disk_bytes: u64,
}

/// The unix socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Its path.
    pub socket: PathBuf,
    /// Group that owns it; absent = the daemon's own.
    pub group_gid: Option<u32>,
    /// Users that may connect, besides root.
    pub allowed_uids: Vec<u32>,
    /// Groups whose members may connect.
    pub allowed_gids: Vec<u32>,
}

/// Metrics and probes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address of `/metrics`, `/live` and `/ready`.
    pub listen: SocketAddr,
}

/// Where central is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CentralConfig {
    /// Address of its NodeLink, e.g. `https://central.example:7701`.
    pub address: String,
    /// File with the join token; read only while the node has no certificate.
    #[serde(default)]
    pub join_token_file: Option<PathBuf>,
    /// Whether a new enrolment may delete the sandboxes of an earlier one.
    #[serde(default)]
    pub abandon_sandboxes: bool,
}

/// The daemon's own log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A tracing filter, e.g. `info,roostd::sandbox=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            root: "/var/lib/roost".into(),
            runc_state: "/run/roost/runc".into(),
            containerd: ContainerdConfig::default(),
            sandboxes: SandboxesConfig::default(),
            reserved: ReservedConfig::default(),
            images: ImagesConfig::default(),
            pressure: PressureConfig::default(),
            storage: StorageConfig::default(),
            checkpoints: CheckpointsConfig::default(),
            api: ApiConfig::default(),
            admin: AdminConfig::default(),
            central: None,
            log: LogConfig::default(),
        }
    }
}

impl Default for ContainerdConfig {
    fn default() -> Self {
        Self {
            socket: "/run/containerd/containerd.sock".into(),
            namespace: "roost".into(),
            snapshotter: crate::containerd::image::DEFAULT_SNAPSHOTTER.into(),
            runtime_binary: "runc".into(),
        }
    }
}

impl Default for SandboxesConfig {
    fn default() -> Self {
        Self {
            max: 2000,
            first_id: 1 << 20,
            cgroup_parent: "roost".into(),
            display_image: ImageRef::display_default(),
            display_glx_image: ImageRef::display_glx_default(),
            log_max_bytes: 8 << 20,
            archive_max_bytes: 64 << 30,
        }
    }
}

impl Default for ReservedConfig {
    fn default() -> Self {
        Self { cpu_millis: 100, memory_bytes: 1 << 30, pids: 2048, disk_bytes: 2 << 30 }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            socket: "/run/roost/roostd.sock".into(),
            group_gid: None,
            allowed_uids: Vec::new(),
            allowed_gids: Vec::new(),
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7703)) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info".into() }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let require = |ok: bool, field: &'static str, problem: &str| {
            if ok { Ok(()) } else { Err(ConfigError::Invalid { field, problem: problem.to_owned() }) }
        };
        let root_ok = self.root.is_absolute() && self.root.as_os_str().len() <= MAX_ROOT_LEN;
        require(root_ok, "root", "must be an absolute path of at most 128 bytes")?;
        let root_plain = self.root.to_str().is_some_and(|r| !r.contains([':', ',', '\\']));
        require(root_plain, "root", "must not contain \":\", \",\" or \"\\\": overlayfs takes paths as a list")?;
        require(self.runc_state.is_absolute(), "runc_state", "must be an absolute path")?;
        require(self.containerd.socket.is_absolute(), "containerd.socket", "must be an absolute path")?;
        let runtime = self.containerd.runtime_binary.as_str();
        let runtime_ok = !runtime.is_empty() && (runtime.starts_with('/') || !runtime.contains(['/', ' ']));
        require(runtime_ok, "containerd.runtime_binary", "must be a name such as \"runc\", or an absolute path")?;
        require(self.api.socket.is_absolute(), "api.socket", "must be an absolute path")?;
        self.images.check()?;
        self.checkpoints.check()?;
        require(self.sandboxes.max >= 1, "sandboxes.max", "must be at least 1")?;
        require(self.sandboxes.first_id >= MIN_FIRST_ID, "sandboxes.first_id", "must be at least 65536")?;
        let parent = self.sandboxes.cgroup_parent.trim_matches('/');
        let parent_ok = !parent.is_empty() && !parent.split('/').any(|p| p.is_empty() || p == ".." || p == ".");
        require(parent_ok, "sandboxes.cgroup_parent", "must be a path such as \"roost\" or \"roost/node\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roostd.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn the_shipped_configuration_is_right() {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/roostd.toml");
        Config::load(Path::new(shipped)).unwrap();
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(load("").unwrap().root, Path::new("/var/lib/roost"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(matches!(load("rooot = \"/x\""), Err(ConfigError::Parse { .. })));
        assert!(matches!(load("[api]\nport = 1"), Err(ConfigError::Parse { .. })));
        assert!(matches!(load("[storage]\nlimit_by = \"zfs\""), Err(ConfigError::Parse { .. })));
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        for (text, expected) in [
            ("root = \"relative\"", "root"),
            ("root = \"/a:b\"", "root"),
            ("[containerd]\nruntime_binary = \"\"", "containerd.runtime_binary"),
            ("[containerd]\nruntime_binary = \"bin/crun\"", "containerd.runtime_binary"),
            ("[sandboxes]\nmax = 0", "sandboxes.max"),
            ("[checkpoints]\nkeep = 0", "checkpoints.keep"),
            ("[checkpoints]\ndirectory = \"x\"", "checkpoints.directory"),
            ("[checkpoints]\ndirectory = \"/x\"\n[checkpoints.s3]\nbucket = \"b\"", "checkpoints.directory"),
            ("[checkpoints.s3]\nbucket = \"\"", "checkpoints.s3.bucket"),
            ("[sandboxes]\nfirst_id = 0", "sandboxes.first_id"),
            ("[sandboxes]\ncgroup_parent = \"a/../b\"", "sandboxes.cgroup_parent"),
        ] {
            match load(text) {
                Err(ConfigError::Invalid { field, .. }) => assert_eq!(field, expected),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
