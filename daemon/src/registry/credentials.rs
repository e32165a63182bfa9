//! Credentials of registries, from a file that only root may read.
//!
//! Two forms are read: docker's `config.json`, and TOML:
//!
//! ```toml
//! [registry."registry.example"]
//! username = "node"
//! password = "…"
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::error::RegistryError;

/// Largest file, in bytes: thousands of entries.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file of credentials is refused.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// Others could read it.
    #[error("users other than root may read it (owner {uid}, mode {mode:03o}): run chown root and chmod 600")]
    Exposed {
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Larger than any such file.
    #[error("it has more than 1 MiB")]
    TooLarge,
    /// Neither form. The text is not quoted: it holds secrets.
    #[error("it is neither docker's config.json nor TOML with [registry.\"host\"] sections")]
    Form,
    /// One entry cannot be used.
    #[error("the entry of {host} is not usable: give username and password, or docker's auth or identitytoken")]
    Entry {
        /// Whose.
        host: String,
    },
}

/// How the node proves who it is. Its secret is in no text of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Password {
        /// The user.
        username: String,
        /// The secret.
        password: String,
    },
    /// A token that is traded for short-lived ones.
    IdentityToken(String),
    /// A token that is sent as it is.
    Bearer(String),
}

impl Credential {
    /// Every form in which its secret may turn up in a text.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        match self {
            Self::Password { username, password } => {
                vec![password.clone(), STANDARD.encode(format!("{username}:{password}"))]
            }
            Self::IdentityToken(token) | Self::Bearer(token) => vec![token.clone()],
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Credentials by host.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    by_host: HashMap<String, Credential>,
}

impl Credentials {
    /// Reads a file; without one there are none.
    ///
    /// # Errors
    /// [`RegistryError::File`], with a [`CredentialsError`].
    pub async fn load(path: Option<&PathBuf>) -> Result<Self, RegistryError> {
        let Some(path) = path.cloned() else { return Ok(Self::default()) };
        let file = path.clone();
        let read = tokio::task::spawn_blocking(move || read(&file)).await;
        let read = read.unwrap_or_else(|error| Err(CredentialsError::Io(io::Error::other(error))));
        let parsed = read.and_then(|text| Self::parse(&text));
        parsed.map_err(|source| RegistryError::File { path, source: Box::new(source) })
    }

    /// Reads either form.
    ///
    /// # Errors
    /// [`CredentialsError::Form`] or [`CredentialsError::Entry`].
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let entries = if text.trim_start().starts_with('{') {
            serde_json::from_str::<DockerConfig>(text).map_err(|_| CredentialsError::Form)?.auths
        } else {
            toml::from_str::<TomlFile>(text).map_err(|_| CredentialsError::Form)?.registry
        };
        let entry = |(key, entry): (String, Entry)| {
            let host = host_of(&key);
            let credential = entry.credential().ok_or_else(|| CredentialsError::Entry { host: host.clone() })?;
            Ok((host, credential))
        };
        Ok(Self { by_host: entries.into_iter().map(entry).collect::<Result<_, CredentialsError>>()? })
    }

    /// The credential for a host, if there is one.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<&Credential> {
        self.by_host.get(host)
    }

    /// The secrets of all hosts, see [`Credential::secrets`].
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        self.by_host.values().flat_map(Credential::secrets).collect()
    }
}

fn read(path: &Path) -> Result<String, CredentialsError> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(CredentialsError::Io)?;
    let facts = file.metadata().map_err(CredentialsError::Io)?;
    if facts.uid() != 0 || facts.mode() & 0o077 != 0 {
        return Err(CredentialsError::Exposed { uid: facts.uid(), mode: facts.mode() & 0o777 });
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(CredentialsError::Io)?;
    if text.len() as u64 > MAX_FILE_BYTES { Err(CredentialsError::TooLarge) } else { Ok(text) }
}

/// Docker's keys are hosts or URLs; its own registry has an old name there.
fn host_of(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    if host == "index.docker.io" { "docker.io".into() } else { host.to_owned() }
}

/// Docker's file holds more than credentials, which is of no interest.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    #[serde(default)]
    registry: HashMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    #[serde(alias = "identity_token")]
    identitytoken: String,
    #[serde(alias = "registry_token")]
    registrytoken: String,
}

impl Entry {
    fn credential(self) -> Option<Credential> {
        if !self.registrytoken.is_empty() {
            return Some(Credential::Bearer(self.registrytoken));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credential::IdentityToken(self.identitytoken));
        }
        if !self.username.is_empty() {
            return Some(Credential::Password { username: self.username, password: self.password });
        }
        let decoded = String::from_utf8(STANDARD.decode(self.auth).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        Some(Credential::Password { username: username.to_owned(), password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }

    #[test]
    fn both_forms_give_the_same_credentials() {
        let docker = r#"{"auths":{"r.example":{"auth":"bm9kZTpzZWNyZXQ="},
            "https://index.docker.io/v1/":{"identitytoken":"t"}},"credsStore":"x"}"#;
        let docker = Credentials::parse(docker).unwrap();
        assert_eq!(docker.of_host("r.example"), Some(&password("node", "secret")));
        assert_eq!(docker.of_host("docker.io"), Some(&Credential::IdentityToken("t".into())));
        let toml = Credentials::parse("[registry.\"r.example\"]\nusername = \"node\"\npassword = \"secret\"").unwrap();
        assert_eq!(toml.of_host("r.example"), docker.of_host("r.example"));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        let broken = Credentials::parse("{\"auths\": {\"r.example\": {\"auth\": \"hunter2\"}}}").unwrap_err();
        assert!(broken.to_string().contains("r.example") && !broken.to_string().contains("hunter2"));
        let form = Credentials::parse("password hunter2").unwrap_err();
        assert!(matches!(form, CredentialsError::Form), "{form}");
        assert!(!format!("{:?}", password("node", "hunter2")).contains("hunter2"));
    }

    #[tokio::test]
    async fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, "{\"auths\":{}}").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Credentials::load(Some(&path)).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("644") || source.contains("owner"), "{source}");
    }
}
