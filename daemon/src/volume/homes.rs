//! Opening volumes and giving them to sandboxes. Blocking.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::id::{SandboxId, TenantId};
use roost_proto::model::VolumeMount;

use super::dirs::VolumeDir;
use super::record::LimitedBy;
use super::{HoldError, VolumeKey, VolumeRecord, VolumeTable, VolumesDir};
use crate::host::attach::{Container, Given, attach};
use crate::host::{self, files, mount};
use crate::storage::{Kind, Storage};

/// Why a sandbox cannot be given its volumes.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It may not have it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The host refused a step.
    #[error("volume {volume} cannot be attached")]
    Host {
        /// Which.
        volume: VolumeKey,
        /// Why.
        #[source]
        source: host::Error,
    },
}

/// The volumes of the node as files and mounts; cheap to clone.
#[derive(Debug, Clone)]
pub struct Homes {
    pub(super) dir: VolumesDir,
    pub(super) storage: Storage,
    /// Who has what.
    pub table: VolumeTable,
}

/// Nothing is kept under these locks that a panic could break.
pub(super) fn locked(gate: &Arc<Mutex<()>>) -> MutexGuard<'_, ()> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Homes {
    /// Volumes below `dir`.
    #[must_use]
    pub fn new(dir: VolumesDir, storage: Storage, table: VolumeTable) -> Self {
        Self { dir, storage, table }
    }

    /// Gives a sandbox volumes that it holds; those that it has already stay.
    /// May be called again. About a millisecond each, and 10 ms where a file
    /// system has to be mounted.
    ///
    /// # Errors
    /// See [`AttachError`]; those before are attached.
    pub fn attach(
        &self,
        id: &SandboxId,
        tenant: &TenantId,
        mounts: &[VolumeMount],
        container: &Container,
        user: (u32, u32),
    ) -> Result<(), AttachError> {
        for wanted in mounts {
            let volume = VolumeKey { tenant: tenant.clone(), name: wanted.name.clone() };
            let gate = self.table.gate(&volume).ok_or_else(|| HoldError::Missing(volume.clone()))?;
            let _alone = locked(&gate);
            let record = self.table.open(id, &volume)?;
            let given = self.open(&record, user).and_then(|home| {
                let given = Given { source: home, target: wanted.path.clone().into(), read_only: wanted.read_only };
                attach(container, &[given])
            });
            given.map_err(|source| AttachError::Host { volume, source })?;
        }
        Ok(())
    }

    /// Opens a volume and returns what sandboxes see of it. A home that is
    /// still empty becomes the user's.
    fn open(&self, record: &VolumeRecord, user: (u32, u32)) -> Result<PathBuf, host::Error> {
        let dir = self.dir.volume(&record.key());
        self.open_place(&dir, record)?;
        let home = dir.home();
        files::adopt_empty_dir(&home, user)?;
        Ok(home)
    }

    /// Mounts what has to be mounted. Nothing is made here: what is missing is
    /// a loss, and an empty home in its place would hide that.
    pub(super) fn open_place(&self, dir: &VolumeDir, record: &VolumeRecord) -> Result<(), host::Error> {
        let place = dir.place();
        match record.limited_by {
            LimitedBy::Loop if !place.image.exists() => {
                return Err(host::Error::Unfit(format!("{} is not there: bring it back", place.image.display())));
            }
            LimitedBy::ProjectQuota if self.storage.kind() != Kind::ProjectQuota => {
                return Err(host::Error::Unfit(format!(
                    "it was made with project quota, which {} does not enforce now: mount its file system with prjquota",
                    self.dir.path().display()
                )));
            }
            _ => self.storage.open(&place, record.project, record.size_bytes)?,
        }
        let home = dir.home();
        if home.is_dir() {
            return Ok(());
        }
        Err(host::Error::Unfit(format!("{} is not there: bring it back", home.display())))
    }

    /// Notes that no process of a sandbox is left, and closes what nobody
    /// uses any more.
    ///
    /// # Errors
    /// What the kernel refuses; call again later.
    pub fn detach(&self, id: &SandboxId) -> Result<(), host::Error> {
        self.table.close(id).iter().try_for_each(|key| self.close_unless_used(key))
    }

    /// Closes a volume that nobody uses.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn close_unless_used(&self, key: &VolumeKey) -> Result<(), host::Error> {
        let Some(gate) = self.table.gate(key) else { return Ok(()) };
        let _alone = locked(&gate);
        if self.table.get(key).is_some_and(|standing| standing.is_open) {
            return Ok(());
        }
        self.storage.close(&self.dir.volume(key).place())
    }

    /// Closes what an earlier daemon opened and nobody uses.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn close_unused(&self) -> Result<(), host::Error> {
        for standing in self.table.list() {
            self.close_unless_used(&standing.record.key())?;
        }
        Ok(())
    }

    /// Makes the directories above all volumes.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn make_dirs(&self) -> Result<(), host::Error> {
        // Ids on disk are those of inside: the host's own users of the same
        // numbers must not get in.
        [self.dir.path().to_path_buf(), self.dir.new_ones(), self.dir.removed()]
            .iter()
            .try_for_each(|dir| files::create_dir(dir, 0o700))
    }

    /// Removes what is left of volumes that were being made or removed.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn sweep(&self) -> Result<(), host::Error> {
        for parent in [self.dir.new_ones(), self.dir.removed()] {
            let entries = std::fs::read_dir(&parent).map_err(|e| host::Error::path("read", &parent, e))?;
            for entry in entries.flatten() {
                self.destroy(&VolumeDir::new(entry.path()))?;
            }
        }
        Ok(())
    }

    /// Removes a volume that is nowhere any more.
    fn destroy(&self, dir: &VolumeDir) -> Result<(), host::Error> {
        let place = dir.place();
        mount::unmount(&place.dir)?;
        if place.dir.exists() {
            self.storage.release(&place)?;
        }
        files::remove_tree(dir.path())
    }
}
