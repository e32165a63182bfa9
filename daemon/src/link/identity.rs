//! What makes this node this node: key, certificate, trust in central.
//!
//! All of it is one file that is replaced at once, so that key and
//! certificate can never be of two different renewals.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use roost_proto::id::NodeId;
use serde::{Deserialize, Serialize};

/// Name of the file.
const FILE_NAME: &str = "identity.json";
/// Version of its format.
const VERSION: u32 = 1;

/// What makes this node this node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    version: u32,
    /// Id that central gave.
    pub(super) node_id: NodeId,
    /// Private key, PKCS#8 in PEM.
    pub(super) key_pem: String,
    /// Client certificate chain in PEM.
    pub(super) certificate_pem: String,
    /// What the node trusts for central, in PEM.
    pub(super) ca_pem: String,
    /// Our clock when the certificate came, Unix time in milliseconds.
    pub(super) obtained_at_unix_ms: u64,
    /// End of the certificate, Unix time in milliseconds.
    pub(super) not_after_unix_ms: u64,
}

/// The parts of an identity, as enrolment yields them.
pub(super) struct NewIdentity {
    pub(super) node_id: NodeId,
    pub(super) key_pem: String,
    pub(super) certificate_pem: String,
    pub(super) ca_pem: String,
    pub(super) obtained_at_unix_ms: u64,
    pub(super) not_after_unix_ms: u64,
}

impl From<NewIdentity> for Identity {
    fn from(new: NewIdentity) -> Self {
        Self {
            version: VERSION,
            node_id: new.node_id,
            key_pem: new.key_pem,
            certificate_pem: new.certificate_pem,
            ca_pem: new.ca_pem,
            obtained_at_unix_ms: new.obtained_at_unix_ms,
            not_after_unix_ms: new.not_after_unix_ms,
        }
    }
}

impl Identity {
    /// The same node with other trust in central.
    pub(super) fn with_trust(&self, ca_pem: String) -> Self {
        Self { ca_pem, ..self.clone() }
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id)
            .field("not_after_unix_ms", &self.not_after_unix_ms)
            .finish_non_exhaustive()
    }
}

/// Why the identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A step on the file failed.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error("{} may be read by others (mode {mode:o}): set it to 600, and enrol anew if anyone did read it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The content is not what this version writes.
    #[error("{} cannot be understood: move it away and enrol the node anew", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A later version wrote it.
    #[error("{} has format {version}, this daemon reads {VERSION}: use the newer daemon again", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

/// The file of the identity.
#[derive(Debug)]
pub(super) struct IdentityStore {
    dir: PathBuf,
}

impl IdentityStore {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }

    /// The kept identity; `None` before the first enrolment.
    pub(super) fn load(&self) -> Result<Option<Identity>, IdentityError> {
        let path = self.path();
        let file = |operation| {
            let path = path.clone();
            move |source| IdentityError::File { operation, path, source }
        };
        let metadata = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(file("look at"))?,
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path, mode });
        }
        let text = std::fs::read(&path).map_err(file("read"))?;
        let identity: Identity =
            serde_json::from_slice(&text).map_err(|source| IdentityError::Format { path: path.clone(), source })?;
        if identity.version != VERSION {
            return Err(IdentityError::Version { path, version: identity.version });
        }
        Ok(Some(identity))
    }

    /// Replaces the kept identity: whole and durable, or not at all.
    pub(super) fn save(&self, identity: &Identity) -> Result<(), IdentityError> {
        let path = self.path();
        let text = serde_json::to_vec_pretty(identity)
            .map_err(|source| IdentityError::Format { path: path.clone(), source })?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|source| IdentityError::File { operation: "make", path: self.dir.clone(), source })?;
        replace(&self.dir, &path, &text).map_err(|source| IdentityError::File { operation: "write", path, source })
    }
}

/// The new file is on the disk before its name is, and its name before this
/// returns. Temporary files are made with mode 0600.
fn replace(dir: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        NewIdentity {
            node_id: NodeId::random(),
            key_pem: "key".into(),
            certificate_pem: "certificate".into(),
            ca_pem: "ca".into(),
            obtained_at_unix_ms: 1,
            not_after_unix_ms: 2,
        }
        .into()
    }

    fn store() -> (tempfile::TempDir, IdentityStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = IdentityStore::new(dir.path().join("identity"));
        (dir, store)
    }

    #[test]
    fn what_is_kept_comes_back_and_only_the_owner_can_read_it() {
        let (_dir, store) = store();
        assert_eq!(store.load().unwrap(), None);
        let identity = identity();
        store.save(&identity).unwrap();
        assert_eq!(store.load().unwrap(), Some(identity));
        assert_eq!(std::fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&store.dir).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let (_dir, store) = store();
        store.save(&identity()).unwrap();
        std::fs::set_permissions(store.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(store.load(), Err(IdentityError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_broken_or_newer_file_is_an_error_and_not_a_new_node() {
        let (_dir, store) = store();
        store.save(&identity()).unwrap();
        let newer = Identity { version: 2, ..identity() };
        store.save(&newer).unwrap();
        assert!(matches!(store.load(), Err(IdentityError::Version { version: 2, .. })));
        std::fs::write(store.path(), b"{\"version\":1").unwrap();
        assert!(matches!(store.load(), Err(IdentityError::Format { .. })));
    }

    #[test]
    fn the_format_of_version_1_stays_readable() {
        let (_dir, store) = store();
        store.save(&identity()).unwrap();
        let text = r#"{"version":1,"node_id":"node-0123456789abcdef","key_pem":"k","certificate_pem":"c",
            "ca_pem":"a","obtained_at_unix_ms":5,"not_after_unix_ms":9}"#;
        std::fs::write(store.path(), text).unwrap();
        let identity = store.load().unwrap().unwrap();
        assert_eq!((identity.node_id.as_str(), identity.not_after_unix_ms), ("node-0123456789abcdef", 9));
    }

    #[test]
    fn the_key_is_in_no_log() {
        let shown = format!("{:?}", Identity { key_pem: "SECRET".into(), ..identity() });
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}
