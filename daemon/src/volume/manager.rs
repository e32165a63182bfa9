//! Making, resizing and removing volumes.
//!
//! Requests are taken one after the other, carried out to their end though
//! their caller goes away, and durable before they are acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::convert::InvalidMessage;
use roost_proto::id::TenantId;
use roost_proto::model::{Volume, check_volume_size};

use super::checkpoint::{CheckpointError, Checkpoints, Reading};
use super::dirs::VolumeDir;
use super::record::{self, LimitedBy};
use super::table::Standing;
use super::{HoldError, Homes, VolumeKey, VolumeRecord};
use crate::host::{self, blocking, files};
use crate::reconcile::ledger::{Change, Ledger, LedgerError};
use crate::sandbox::failure::chain;
use crate::sandbox::publisher::unix_ms;
use crate::storage::Kind;
use crate::tasks::{TaskName, Tasks};

/// Numbers of projects for volumes: those of sandboxes are their first ids,
/// which are higher, and people count from 1.
const PROJECTS: std::ops::Range<u32> = 32_768..65_536;
/// Sizes are whole mebibytes.
const GRAIN_BYTES: u64 = 1 << 20;
/// First and longest wait before what is left of a volume is removed again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why a request about a volume is refused.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It is not there, or somebody has it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The name exists with another size.
    #[error("volume {volume} exists with {size_bytes} bytes: `roost volume resize` changes its size")]
    Conflict {
        /// Which.
        volume: VolumeKey,
        /// The size that it has.
        size_bytes: u64,
    },
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(InvalidMessage),
    /// Something that is no volume lies in its place.
    #[error("{} is there already and is no volume of this node: move it away, or choose another name", .0.display())]
    Occupied(PathBuf),
    /// A volume never shrinks.
    #[error("volume {volume} has {size_bytes} bytes and can only grow: make a smaller one and copy the files")]
    Shrink {
        /// Which.
        volume: VolumeKey,
        /// The size that it has.
        size_bytes: u64,
    },
    /// The host refused a step.
    #[error("the host refused a step")]
    Host(#[from] host::Error),
    /// The request could not be made durable.
    #[error("the ledger could not keep the request")]
    Ledger(#[from] LedgerError),
    /// A checkpoint.
    #[error("the checkpoint cannot be taken or used")]
    Checkpoint(#[from] CheckpointError),
    /// The daemon shuts down.
    #[error("the daemon is shutting down")]
    Ended,
}

/// What is in a new volume.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing.
    Nothing,
    /// What a checkpoint saved.
    Checkpoint(Reading),
}

/// The volumes of the node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Volumes {
    pub(super) homes: Homes,
    pub(super) ledger: Ledger,
    pub(super) tasks: Tasks,
    pub(super) checkpoints: Checkpoints,
    /// Held from the decision on a request until it is carried out.
    pub(super) lane: Arc<tokio::sync::Mutex<()>>,
}

pub(super) fn whole_mebibytes(size_bytes: u64) -> Result<u64, VolumeError> {
    check_volume_size(size_bytes).map_err(|error| VolumeError::Invalid(InvalidMessage(vec![error])))?;
    Ok(size_bytes.div_ceil(GRAIN_BYTES) * GRAIN_BYTES)
}

impl Volumes {
    /// The volumes that the ledger holds and those that lie beside it, and the
    /// removal of what an earlier daemon left.
    ///
    /// # Errors
    /// When the directory or the ledger cannot be used.
    pub async fn start(
        homes: Homes,
        ledger: Ledger,
        kept: Vec<VolumeRecord>,
        tasks: Tasks,
        checkpoints: Checkpoints,
    ) -> Result<Self, VolumeError> {
        let adopting = homes.clone();
        let changes = blocking(move || adopting.adopt(kept)).await?;
        if !changes.is_empty() {
            ledger.commit(changes).await?;
        }
        let volumes = Self { homes, ledger, tasks, checkpoints, lane: Arc::default() };
        volumes.sweep();
        Ok(volumes)
    }

    /// Removes in the background what nobody knows as a volume any more.
    pub(super) fn sweep(&self) {
        let homes = self.homes.clone();
        self.tasks.spawn("volume-removal", async move {
            let mut retry = RETRY.0;
            loop {
                let sweeping = homes.clone();
                let Err(error) = blocking(move || sweeping.sweep()).await else { return };
                if matches!(error, host::Error::Cancelled) {
                    return;
                }
                tracing::warn!(error = %chain(&error), "what is left of a volume cannot be removed yet");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        });
    }

    /// What opens and attaches.
    #[must_use]
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    pub(super) async fn whole<T: Send + 'static>(
        &self,
        key: &VolumeKey,
        request: impl Future<Output = Result<T, VolumeError>> + Send + 'static,
    ) -> Result<T, VolumeError> {
        self.tasks.spawn(TaskName::of("volume", key), request).await.map_err(|_| VolumeError::Ended)?
    }

    /// Makes a volume; the same again returns it.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn create(&self, key: VolumeKey, size_bytes: u64) -> Result<Volume, VolumeError> {
        let size_bytes = whole_mebibytes(size_bytes)?;
        let (volumes, subject) = (self.clone(), key.clone());
        self.whole(&subject, async move {
            let _alone = volumes.lane.lock().await;
            volumes.create_now(key, size_bytes, Content::Nothing).await
        })
        .await
    }

    /// Makes a volume with what is to be in it; the lane is held.
    pub(super) async fn create_now(
        &self,
        key: VolumeKey,
        size_bytes: u64,
        content: Content,
    ) -> Result<Volume, VolumeError> {
        if let Some(standing) = self.homes.table.get(&key) {
            if standing.record.deleting {
                return Err(HoldError::Deleting(key).into());
            }
            return match standing.record.size_bytes {
                same if same == size_bytes && matches!(content, Content::Nothing) => self.show(standing).await,
                size_bytes => Err(VolumeError::Conflict { volume: key, size_bytes }),
            };
        }
        let path = self.homes.dir.volume(&key).path().to_path_buf();
        if path.symlink_metadata().is_ok() {
            return Err(VolumeError::Occupied(path));
        }
        let record = VolumeRecord {
            tenant: key.tenant.clone(),
            name: key.name.clone(),
            size_bytes,
            limited_by: self.homes.storage.kind().into(),
            project: 0,
            created_at_unix_ms: unix_ms(),
            deleting: false,
        };
        let homes = self.homes.clone();
        let record = tokio::task::spawn_blocking(move || homes.make(record, content));
        let record = record.await.map_err(|_| VolumeError::Ended)??;
        if let Err(error) = self.ledger.commit(vec![Change::PutVolume(Box::new(record))]).await {
            // Without an answer it is nobody's; the next daemon would adopt it.
            let homes = self.homes.clone();
            blocking(move || homes.put_away(&key)).await?;
            self.sweep();
            return Err(error.into());
        }
        let record = self.known(&key)?;
        tracing::info!(volume = %key, size_bytes, limit_by = record.record.limited_by.as_str(), "volume made");
        self.show(record).await
    }

    fn known(&self, key: &VolumeKey) -> Result<Standing, HoldError> {
        self.homes.table.get(key).ok_or_else(|| HoldError::Missing(key.clone()))
    }

    /// One volume.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn get(&self, key: &VolumeKey) -> Result<Volume, VolumeError> {
        let standing = self.known(key)?;
        self.show(standing).await
    }

    async fn show(&self, standing: Standing) -> Result<Volume, VolumeError> {
        let homes = self.homes.clone();
        Ok(blocking(move || homes.show(standing)).await?)
    }

    /// Every volume, or those of a tenant, by name.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn list(&self, tenant: Option<&TenantId>) -> Result<Vec<Volume>, VolumeError> {
        let mut standings = self.homes.table.list();
        standings.retain(|standing| tenant.is_none_or(|tenant| standing.record.tenant == *tenant));
        let homes = self.homes.clone();
        Ok(blocking(move || standings.into_iter().map(|standing| homes.show(standing)).collect()).await?)
    }

    /// Raises the limit of a volume. One that is in use grows under way, or
    /// with its next start where the daemon may not do that: its usage says
    /// what is in force.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn resize(&self, key: VolumeKey, size_bytes: u64) -> Result<Volume, VolumeError> {
        let size_bytes = whole_mebibytes(size_bytes)?;
        let (volumes, subject) = (self.clone(), key.clone());
        self.whole(&subject, async move {
            let _alone = volumes.lane.lock().await;
            volumes.resize_now(key, size_bytes).await
        })
        .await
    }

    async fn resize_now(&self, key: VolumeKey, size_bytes: u64) -> Result<Volume, VolumeError> {
        let Standing { record, is_lost, .. } = self.known(&key)?;
        if record.deleting {
            return Err(HoldError::Deleting(key).into());
        }
        if is_lost {
            return Err(HoldError::Lost(key).into());
        }
        if size_bytes < record.size_bytes {
            return Err(VolumeError::Shrink { volume: key, size_bytes: record.size_bytes });
        }
        let record = VolumeRecord { size_bytes, ..record };
        let (homes, beside) = (self.homes.clone(), record.clone());
        blocking(move || record::write(&homes.dir.volume(&beside.key()).record(), &beside)).await?;
        self.ledger.commit(vec![Change::PutVolume(Box::new(record.clone()))]).await?;
        self.homes.table.put(record.clone(), false);
        let homes = self.homes.clone();
        if let Err(error) = blocking(move || homes.raise(&record)).await {
            tracing::warn!(volume = %key, error = %chain(&error), "volume grows when it is attached next");
        }
        let standing = self.known(&key)?;
        self.show(standing).await
    }

    /// Removes a volume and what is in it.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn delete(&self, key: VolumeKey) -> Result<(), VolumeError> {
        let (volumes, subject) = (self.clone(), key.clone());
        self.whole(&subject, async move {
            let _alone = volumes.lane.lock().await;
            volumes.delete_now(&key).await
        })
        .await
    }

    async fn delete_now(&self, key: &VolumeKey) -> Result<(), VolumeError> {
        let record = self.homes.table.begin_removal(key)?;
        if let Err(error) = self.ledger.commit(vec![Change::PutVolume(Box::new(record))]).await {
            self.homes.table.undo_removal(key);
            return Err(error.into());
        }
        // From here on it goes, by this daemon or the next one.
        let (homes, gone) = (self.homes.clone(), key.clone());
        blocking(move || homes.put_away(&gone)).await?;
        self.ledger.commit(vec![Change::RemoveVolume(key.clone())]).await?;
        self.homes.table.remove(key);
        tracing::info!(volume = %key, "volume deleted");
        self.sweep();
        Ok(())
    }
}

impl Homes {
    /// Makes a volume whole, moves it to its place and notes it. Durable when
    /// it returns. 15 to 50 ms where a file system has to be made.
    fn make(&self, record: VolumeRecord, content: Content) -> Result<VolumeRecord, VolumeError> {
        let project = self.storage.free_project(self.dir.path(), PROJECTS)?;
        let record = VolumeRecord { project, ..record };
        let new = VolumeDir::new(self.dir.new_ones().join(format!("{:016x}", rand::random::<u64>())));
        files::create_dir(new.path(), 0o700)?;
        let made = self.fill_and_move(&new, &record, content);
        if made.is_err() {
            // Others are made one after the other: this one alone is there.
            self.sweep()?;
        }
        made?;
        self.table.put(record.clone(), false);
        Ok(record)
    }

    fn fill_and_move(&self, new: &VolumeDir, record: &VolumeRecord, content: Content) -> Result<(), VolumeError> {
        let place = new.place();
        self.storage.open(&place, record.project, record.size_bytes)?;
        files::create_dir(&new.home(), 0o700)?;
        if let Content::Checkpoint(reading) = content {
            reading.fill(&new.home())?;
        }
        host::home::sync_file_system(&place.dir)?;
        self.storage.close(&place)?;
        if record.limited_by == LimitedBy::Loop {
            record::sync(&place.image)?;
        }
        record::write(&new.record(), record)?;
        let tenant = self.dir.tenant(&record.key());
        files::create_dir(&tenant, 0o700)?;
        let target = self.dir.volume(&record.key());
        std::fs::rename(new.path(), target.path()).map_err(|e| host::Error::path("rename to", target.path(), e))?;
        record::sync(&tenant)?;
        Ok(record::sync(self.dir.path())?)
    }

    /// Moves a volume that nobody has to those that are being removed; none
    /// there is success. Durable when it returns.
    pub(super) fn put_away(&self, key: &VolumeKey) -> Result<(), host::Error> {
        let dir = self.dir.volume(key);
        if dir.path().symlink_metadata().is_err() {
            return Ok(());
        }
        self.close_unless_used(key)?;
        let target = self.dir.removed().join(format!("{:016x}", rand::random::<u64>()));
        std::fs::rename(dir.path(), &target).map_err(|e| host::Error::path("move away", dir.path(), e))?;
        record::sync(&self.dir.tenant(key))?;
        record::sync(&self.dir.removed())
    }

    /// Makes a higher limit of a volume count, if it is open. A closed file
    /// system of its own grows when it is opened next.
    fn raise(&self, record: &VolumeRecord) -> Result<(), host::Error> {
        let key = record.key();
        let Some(gate) = self.table.gate(&key) else { return Ok(()) };
        let _alone = super::homes::locked(&gate);
        let is_open = self.table.get(&key).is_some_and(|standing| standing.is_open);
        if is_open || (record.limited_by == LimitedBy::ProjectQuota && self.storage.kind() == Kind::ProjectQuota) {
            self.storage.raise(&self.dir.volume(&key).place(), record.size_bytes)?;
        }
        Ok(())
    }
}
