//! What is known of a volume: in the ledger, and beside its data.

use std::fmt;
use std::path::Path;

use roost_proto::id::{TenantId, VolumeName};
use serde::{Deserialize, Serialize};

use crate::host::{Error, files};
use crate::reconcile::ledger::{DecodeRecordError, decode, encode};
use crate::storage::Kind;

/// Which volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// Who owns it.
    pub tenant: TenantId,
    /// Its name.
    pub name: VolumeName,
}

/// Names of other tenants stand behind the tenant's.
impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant == TenantId::local() {
            return write!(f, "{}", self.name);
        }
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// What bounds a volume, for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LimitedBy {
    /// A project of the file system that carries all volumes.
    ProjectQuota,
    /// A file system of its own.
    Loop,
}

impl From<Kind> for LimitedBy {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::ProjectQuota => Self::ProjectQuota,
            Kind::Loop => Self::Loop,
        }
    }
}

impl LimitedBy {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ProjectQuota => Kind::ProjectQuota.as_str(),
            Self::Loop => Kind::Loop.as_str(),
        }
    }
}

/// What a volume is: the content of its ledger record and of its
/// `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// Who owns it.
    pub tenant: TenantId,
    /// Its name.
    pub name: VolumeName,
    /// What it is to hold at most, in bytes.
    pub size_bytes: u64,
    pub(super) limited_by: LimitedBy,
    /// Number of its project; 0 where a file system of its own bounds it.
    pub(super) project: u32,
    /// Unix time, in milliseconds.
    pub created_at_unix_ms: u64,
    /// Whether it is being removed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleting: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl VolumeRecord {
    /// Which volume.
    #[must_use]
    pub fn key(&self) -> VolumeKey {
        VolumeKey { tenant: self.tenant.clone(), name: self.name.clone() }
    }
}

/// Reads the file beside the data.
pub(super) fn read(path: &Path) -> Result<VolumeRecord, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    decode(&bytes).map_err(|error: DecodeRecordError| crate::sandbox::failure::chain(&error))
}

/// Writes the file beside the data, durably.
pub(super) fn write(path: &Path, record: &VolumeRecord) -> Result<(), Error> {
    let bytes = encode(record).map_err(|e| Error::path("write", path, std::io::Error::other(e)))?;
    files::replace(path, &bytes, 0o600, (0, 0))?;
    sync(path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Makes a file, or the names in a directory, survive a power cut.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| Error::path("sync", path, e))
}

#[cfg(test)]
pub(super) fn example(name: &str) -> VolumeRecord {
    VolumeRecord {
        tenant: TenantId::local(),
        name: name.parse().unwrap(),
        size_bytes: 64 << 20,
        limited_by: LimitedBy::Loop,
        project: 0,
        created_at_unix_ms: 1,
        deleting: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_first_format_is_read() {
        let golden = include_bytes!("golden/volume-v1.json");
        let record: VolumeRecord = decode(golden).unwrap();
        assert_eq!(record.key().to_string(), "acme/home");
        assert_eq!((record.size_bytes, record.limited_by, record.project), (1 << 30, LimitedBy::ProjectQuota, 40_000));
    }

    #[test]
    fn what_was_written_beside_the_data_is_read_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume.json");
        write(&path, &example("home")).unwrap();
        assert_eq!(read(&path), Ok(example("home")));
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).unwrap_err().contains("not a record"));
    }
}
