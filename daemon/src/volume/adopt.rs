//! The ledger's volumes against those that lie on the disk, at the start of
//! a daemon. Blocking.

use std::path::Path;

use super::{Homes, VolumeKey, VolumeRecord, record};
use crate::host;
use crate::reconcile::ledger::Change;

impl Homes {
    /// Fills the table: with the ledger's volumes, and with those beside whose
    /// data it says what they are. Returns what the ledger has to learn. What
    /// is neither is left as it is.
    pub(super) fn adopt(&self, kept: Vec<VolumeRecord>) -> Result<Vec<Change>, host::Error> {
        self.make_dirs()?;
        let mut changes = Vec::new();
        for record in kept {
            let key = record.key();
            if record.deleting {
                self.put_away(&key)?;
                changes.push(Change::RemoveVolume(key));
                continue;
            }
            let is_lost = !self.dir.volume(&key).path().is_dir();
            if is_lost {
                tracing::error!(volume = %key, "the directory of a volume is not there");
            }
            self.table.put(record, is_lost);
        }
        for tenant in dirs_in(self.dir.path())? {
            for volume in dirs_in(&tenant)? {
                changes.extend(self.adopt_unknown(&volume));
            }
        }
        Ok(changes)
    }

    /// A volume that the ledger does not hold, if that is what it is.
    fn adopt_unknown(&self, path: &Path) -> Option<Change> {
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let key = || {
            let (tenant, name) = (name(path.parent()?)?.parse().ok()?, name(path)?.parse().ok()?);
            Some(VolumeKey { tenant, name })
        };
        let unknown = |why: &str| {
            tracing::warn!(path = %path.display(), why, "no volume: it is left as it is");
            None
        };
        let Some(key) = key() else { return unknown("its path names none") };
        if self.table.get(&key).is_some() {
            return None;
        }
        match record::read(&self.dir.volume(&key).record()) {
            Ok(record) if record.key() == key => {
                tracing::warn!(volume = %key, "a volume that the ledger did not hold is adopted");
                self.table.put(record.clone(), false);
                Some(Change::PutVolume(Box::new(record)))
            }
            Ok(_) => unknown("its volume.json tells of another one"),
            Err(why) => unknown(&why),
        }
    }
}

/// Directories in a directory but hidden ones.
fn dirs_in(dir: &Path) -> Result<Vec<std::path::PathBuf>, host::Error> {
    let entries = std::fs::read_dir(dir).map_err(|e| host::Error::path("read", dir, e))?;
    let is_wanted = |entry: &std::fs::DirEntry| {
        entry.file_type().is_ok_and(|kind| kind.is_dir()) && !entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    Ok(entries.flatten().filter(is_wanted).map(|entry| entry.path()).collect())
}
