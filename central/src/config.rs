//! The one configuration file of central.
//!
//! Strict TOML: unknown fields are refused, every path, socket and port can be
//! moved. `deploy/config/central.toml` shows every field with its default.

mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::Database;
pub use store::StoreConfig;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: does it exist and may this user read it?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or has an unknown or mistyped field.
    #[error("cannot parse the configuration {}: {detail}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, field and reason, as the parser words them.
        detail: String,
    },
    /// A value breaks a rule.
    #[error("configuration {}: {field}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field at fault.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file it was read from, for messages.
    #[serde(skip)]
    path: PathBuf,
    /// Directory of what central keeps itself: its CA, and the database unless
    /// `[store]` says otherwise. Mode 0700.
    pub state_dir: PathBuf,
    /// How this replica is called where several share a database; absent = the
    /// host's name.
    #[serde(default)]
    pub replica: Option<String>,
    /// Where the state is kept that replicas of central share.
    #[serde(default)]
    pub store: StoreConfig,
    /// Directory with `templates/*.toml` and `profiles/*.toml` that are
    /// created at start where they do not exist; absent = none.
    #[serde(default)]
    pub seed_dir: Option<PathBuf>,
    /// File that receives the first admin token, mode 0600; absent = it is
    /// printed once on standard output.
    #[serde(default)]
    pub admin_token_file: Option<PathBuf>,
    /// What is written to the log.
    #[serde(default)]
    pub log: LogConfig,
    /// REST and gRPC for people and programs.
    #[serde(default)]
    pub api: ApiConfig,
    /// The door for nodes.
    #[serde(default)]
    pub link: LinkConfig,
    /// Liveness, readiness and metrics.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Where new sandboxes go.
    #[serde(default)]
    pub placement: PlacementConfig,
    /// Time that open requests get at shutdown, in milliseconds.
    #[serde(default = "default_shutdown_grace_ms")]
    pub shutdown_grace_ms: u64,
}

/// Ten seconds: a little more than the slowest ordinary request.
fn default_shutdown_grace_ms() -> u64 {
    10_000
}

/// What is written to the log (standard error).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A tracing filter, e.g. `info,roost_central::link=debug`.
    pub filter: String,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

/// REST and gRPC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Where it listens; port 0 = any free one.
    pub listen: SocketAddr,
    /// Certificate chain in PEM; set together with `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM; set together with `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// Whether plain HTTP may listen beyond loopback: only behind a proxy
    /// that speaks TLS, as tokens travel in clear.
    pub allow_plaintext: bool,
    /// Largest request body in bytes, image archives excepted.
    pub body_max_bytes: usize,
    /// Largest image archive in bytes.
    pub image_max_bytes: u64,
    /// Time until the head of an answer must be ready, in milliseconds.
    pub request_timeout_ms: u64,
    /// Requests that are worked on at once; more are refused as overloaded.
    pub requests_max: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            tls_cert: None,
            tls_key: None,
            allow_plaintext: false,
            body_max_bytes: 64 << 10,
            image_max_bytes: 16 << 30,
            request_timeout_ms: 30_000,
            requests_max: 1024,
        }
    }
}

/// NodeLink.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkConfig {
    /// Where it listens, always with TLS; port 0 = any free one.
    pub listen: SocketAddr,
    /// Life of a node's certificate in seconds; nodes renew at half of it.
    pub certificate_validity_s: u64,
    /// Period in which a node sends a heartbeat without change, in milliseconds.
    pub heartbeat_period_ms: u32,
    /// Silence after which a node is Stale, in seconds: nothing new goes there.
    pub stale_after_s: u64,
    /// Silence after which a node is Offline, in seconds.
    pub offline_after_s: u64,
    /// Enrolments, renewals and openings of sessions that are worked on at
    /// once; more are told when to come again.
    pub entries_max: usize,
    /// TLS handshakes at once; further connections wait to be accepted.
    pub handshakes_max: usize,
    /// Life of central's own certificate for this listener, in seconds; it is
    /// replaced at half of it, without a restart.
    pub server_certificate_validity_s: u64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7701)),
            certificate_validity_s: 24 * 3600,
            heartbeat_period_ms: 10_000,
            stale_after_s: 45,
            offline_after_s: 120,
            entries_max: 64,
            handshakes_max: 64,
            server_certificate_validity_s: 90 * 24 * 3600,
        }
    }
}

impl LinkConfig {
    /// Silence after which a node is Stale.
    #[must_use]
    pub fn stale_after(&self) -> Duration {
        Duration::from_secs(self.stale_after_s)
    }

    /// Silence after which a node is Offline.
    #[must_use]
    pub fn offline_after(&self) -> Duration {
        Duration::from_secs(self.offline_after_s)
    }
}

/// `/live`, `/ready`, `/metrics`: plain HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where it listens; port 0 = any free one.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7702)) }
    }
}

/// Where new sandboxes go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementConfig {
    /// `spread` (the emptiest node that fits) or `best-fit` (the fullest).
    pub strategy: crate::place::Strategy,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// See [`ConfigError`]; the text names file, field and fix.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a configuration; `path` is for messages only.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), detail: error.to_string() })?;
        config.path = path.to_owned();
        config.check(path)?;
        Ok(config)
    }

    /// How this replica is called.
    #[must_use]
    pub fn replica_name(&self) -> String {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        self.replica.clone().unwrap_or_else(host)
    }

    /// The database of the section `[store]`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], which a parsed configuration does not give.
    pub fn database(&self) -> Result<Database, ConfigError> {
        let invalid = |(field, problem)| ConfigError::Invalid { path: self.path.clone(), field, problem };
        self.store.database(&self.state_dir).map_err(invalid)
    }

    /// Directory of the CA's key and certificate.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.state_dir.join("ca")
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let require = |ok: bool, field: &'static str, problem: &str| {
            if ok {
                Ok(())
            } else {
                Err(ConfigError::Invalid { path: path.to_owned(), field, problem: problem.into() })
            }
        };
        require(self.state_dir.is_absolute(), "state_dir", "must be an absolute path")?;
        let is_word = |name: &String| {
            (1..=253).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let problem = "must be 1 to 253 letters, digits, \"-\", \".\" and \"_\"";
        require(self.replica.as_ref().is_none_or(is_word), "replica", problem)?;
        self.database()?;
        let (api, link) = (&self.api, &self.link);
        require(
            api.tls_cert.is_some() == api.tls_key.is_some(),
            "api.tls_cert",
            "set api.tls_cert and api.tls_key together, or neither",
        )?;
        require(
            api.tls_cert.is_some() || api.allow_plaintext || api.listen.ip().is_loopback(),
            "api.listen",
            "plain HTTP is refused beyond loopback: set api.tls_cert and api.tls_key, or api.allow_plaintext = true behind a TLS proxy",
        )?;
        require(api.body_max_bytes >= 1024, "api.body_max_bytes", "must be at least 1024")?;
        require(api.request_timeout_ms >= 100, "api.request_timeout_ms", "must be at least 100")?;
        require(api.requests_max >= 1, "api.requests_max", "must be at least 1")?;
        require(link.certificate_validity_s >= 60, "link.certificate_validity_s", "must be at least 60")?;
        require(link.entries_max >= 1, "link.entries_max", "must be at least 1")?;
        require(link.handshakes_max >= 1, "link.handshakes_max", "must be at least 1")?;
        require(
            (60..=315_360_000).contains(&link.server_certificate_validity_s),
            "link.server_certificate_validity_s",
            "must be 60 to 315360000 (ten years)",
        )?;
        require(
            (100..=60_000).contains(&link.heartbeat_period_ms),
            "link.heartbeat_period_ms",
            "must be 100 to 60000",
        )?;
        require(
            Duration::from_millis(link.heartbeat_period_ms.into()) < link.stale_after(),
            "link.stale_after_s",
            "must be longer than link.heartbeat_period_ms",
        )?;
        require(
            link.stale_after_s < link.offline_after_s,
            "link.offline_after_s",
            "must be longer than link.stale_after_s",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("test.toml"))
    }

    #[test]
    fn the_shipped_example_parses_and_shows_the_defaults() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/central.toml"));
        let shipped = Config::load(path).unwrap();
        let plain = parse("state_dir = \"/var/lib/roost/central\"").unwrap();
        assert_eq!(shipped.state_dir, plain.state_dir);
        assert_eq!(format!("{:?}", shipped.store), format!("{:?}", plain.store));
        assert_eq!(format!("{:?}", shipped.api), format!("{:?}", plain.api));
        assert_eq!(format!("{:?}", shipped.link), format!("{:?}", plain.link));
        assert_eq!(format!("{:?}", shipped.admin), format!("{:?}", plain.admin));
        assert_eq!(format!("{:?}", shipped.placement), format!("{:?}", plain.placement));
        assert_eq!(shipped.shutdown_grace_ms, plain.shutdown_grace_ms);
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = parse("state_dir = \"/x\"\n[api]\nlistne = 1").unwrap_err();
        assert!(error.to_string().contains("listne"), "{error}");
    }

    #[test]
    fn plain_http_beyond_loopback_needs_a_word() {
        let open = "state_dir = \"/x\"\n[api]\nlisten = \"0.0.0.0:1\"\n";
        assert!(parse(open).unwrap_err().to_string().contains("api.allow_plaintext"));
        assert!(parse(&format!("{open}allow_plaintext = true")).is_ok());
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let error = parse("state_dir = \"/x\"\n[api]\ntls_cert = \"/c\"").unwrap_err();
        assert!(error.to_string().contains("together"), "{error}");
    }
}
