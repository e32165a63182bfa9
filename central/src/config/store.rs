//! `[store]`: which database, and how it is reached.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::config::Host;

use crate::store::Database;
use crate::store::postgres::{PostgresConfig, SslMode};
use crate::store::sqlite::SqliteConfig;

/// Parameters that a URL may not carry, and the field that says the same.
const FIELDS_OF: [(&str, &str); 4] = [
    ("sslmode", "store.sslmode"),
    ("connect_timeout", "store.connect_timeout_ms"),
    ("options", "store.statement_timeout_ms"),
    ("password", "store.password_file"),
];

/// Where central keeps its state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `sqlite:/path/of/file` or `postgres://user@host:port/database`; absent =
    /// `central.db` in `state_dir`.
    pub url: Option<String>,
    /// File with the password for PostgreSQL; absent = none is needed.
    pub password_file: Option<PathBuf>,
    /// Encryption of the connection to PostgreSQL; absent = `disable` over a
    /// unix socket or loopback, `verify-full` beyond.
    pub sslmode: Option<SslMode>,
    /// Certificates in PEM that the server's is checked with; absent = those
    /// of the system.
    pub ca_file: Option<PathBuf>,
    /// Connections to PostgreSQL, beside the one of the change feed.
    pub pool_size: usize,
    /// Time for a new connection to PostgreSQL, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time for one statement; with SQLite how long one waits for another
    /// process that writes. In milliseconds.
    pub statement_timeout_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: None,
            password_file: None,
            sslmode: None,
            ca_file: None,
            // Each carries about a thousand short transactions per second.
            pool_size: 8,
            connect_timeout_ms: 5_000,
            statement_timeout_ms: 5_000,
        }
    }
}

/// A field of `[store]` and what is wrong with it.
pub(super) type Fault = (&'static str, String);

impl StoreConfig {
    /// The database that is meant.
    ///
    /// # Errors
    /// The field that breaks a rule, and how to mend it.
    pub(super) fn database(&self, state_dir: &Path) -> Result<Database, Fault> {
        if !(1..=256).contains(&self.pool_size) {
            return Err(("store.pool_size", "must be 1 to 256".into()));
        }
        if !(100..=600_000).contains(&self.connect_timeout_ms) {
            return Err(("store.connect_timeout_ms", "must be 100 to 600000".into()));
        }
        if !(100..=600_000).contains(&self.statement_timeout_ms) {
            return Err(("store.statement_timeout_ms", "must be 100 to 600000".into()));
        }
        let Some(url) = &self.url else { return self.sqlite(state_dir.join("central.db")) };
        if let Some(path) = url.strip_prefix("sqlite:") {
            if !path.starts_with('/') || path.starts_with("//") {
                return Err((
                    "store.url",
                    "must be sqlite: and an absolute path, e.g. sqlite:/var/lib/roost/central.db".into(),
                ));
            }
            return self.sqlite(path.into());
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return self.postgres(url);
        }
        Err(("store.url", "must begin with sqlite: or postgres://".into()))
    }

    fn sqlite(&self, path: PathBuf) -> Result<Database, Fault> {
        let only_postgres = [
            ("store.password_file", self.password_file.is_some()),
            ("store.ca_file", self.ca_file.is_some()),
            ("store.sslmode", self.sslmode.is_some()),
        ];
        if let Some((field, _)) = only_postgres.into_iter().find(|(_, is_set)| *is_set) {
            return Err((field, "is for PostgreSQL: leave it out with SQLite".into()));
        }
        Ok(Database::Sqlite(SqliteConfig { path, busy_timeout: Duration::from_millis(self.statement_timeout_ms) }))
    }

    fn postgres(&self, url: &str) -> Result<Database, Fault> {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for (parameter, field) in FIELDS_OF {
            if query.split('&').any(|pair| pair.split('=').next() == Some(parameter)) {
                return Err(("store.url", format!("must not carry {parameter}: set {field} instead")));
            }
        }
        let parsed: tokio_postgres::Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let detail = crate::log::chain(&error);
            ("store.url", format!("must be like postgres://user@host:5432/database ({detail})"))
        })?;
        if parsed.get_password().is_some() {
            return Err(("store.url", "must not carry a password: put it into the file store.password_file".into()));
        }
        let is_near = parsed.get_hosts().iter().all(is_near);
        let sslmode = self.sslmode.unwrap_or(if is_near { SslMode::Disable } else { SslMode::VerifyFull });
        if sslmode == SslMode::Disable && self.ca_file.is_some() {
            return Err(("store.ca_file", "is of no use with store.sslmode = \"disable\"".into()));
        }
        Ok(Database::Postgres(PostgresConfig {
            url: url.into(),
            password_file: self.password_file.clone(),
            sslmode,
            ca_file: self.ca_file.clone(),
            pool_size: self.pool_size,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            statement_timeout: Duration::from_millis(self.statement_timeout_ms),
        }))
    }
}

/// A unix socket, or this host.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(text: &str) -> Result<Database, Fault> {
        toml::from_str::<StoreConfig>(text).unwrap().database(Path::new("/state"))
    }

    fn fault(text: &str) -> String {
        let (field, problem) = database(text).unwrap_err();
        format!("{field} {problem}")
    }

    fn sslmode(text: &str) -> SslMode {
        let Ok(Database::Postgres(config)) = database(text) else { panic!("no PostgreSQL: {text}") };
        config.sslmode
    }

    #[test]
    fn without_a_url_it_is_a_file_in_the_state_directory() {
        let Ok(Database::Sqlite(config)) = database("") else { panic!("no SQLite") };
        assert_eq!(config.path, Path::new("/state/central.db"));
        assert_eq!(database("url = \"sqlite:/x/y.db\"").unwrap().to_string(), "sqlite:/x/y.db");
    }

    #[test]
    fn beyond_this_host_the_connection_is_encrypted_unless_said_otherwise() {
        assert_eq!(sslmode("url = \"postgres://r@db.example/roost\""), SslMode::VerifyFull);
        assert_eq!(sslmode("url = \"postgres://r@127.0.0.1:5433/roost\""), SslMode::Disable);
        assert_eq!(sslmode("url = \"postgres://r@%2Frun%2Fpostgresql/roost\""), SslMode::Disable);
        assert_eq!(sslmode("url = \"postgres://r@db.example/roost\"\nsslmode = \"prefer\""), SslMode::Prefer);
    }

    #[test]
    fn secrets_and_settings_have_their_own_fields_and_the_error_names_them() {
        assert!(fault("url = \"postgres://r:secret@db/roost\"").contains("store.password_file"));
        assert!(fault("url = \"postgres://r@db/roost?sslmode=disable\"").contains("set store.sslmode"));
        assert!(fault("url = \"postgres://r@db/roost?nonsense=1\"").contains("store.url"));
        assert!(fault("url = \"mysql://r@db/roost\"").contains("sqlite: or postgres://"));
        assert!(fault("url = \"sqlite:central.db\"").contains("absolute"));
        assert!(fault("password_file = \"/x\"").contains("PostgreSQL"));
        assert!(fault("pool_size = 0").contains("1 to 256"));
        assert!(!fault("url = \"postgres://r:secret@db/roost\"").contains("secret"));
    }
}
