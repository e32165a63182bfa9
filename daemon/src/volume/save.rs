//! Checkpoints of volumes: taken, listed, restored; by themselves and before
//! a deletion.

use std::time::Duration;

use roost_proto::id::CheckpointId;
use roost_proto::model::Volume;

use super::checkpoint::Summary;
use super::homes::locked;
use super::manager::{Content, whole_mebibytes};
use super::{HoldError, Homes, VolumeError, VolumeKey, Volumes};
use crate::host::{self, blocking};
use crate::sandbox::failure::chain;
use crate::tasks::TaskName;

/// Something works on a volume until this is dropped.
struct Work {
    homes: Homes,
    key: VolumeKey,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.homes.table.end_work(&self.key);
    }
}

impl Homes {
    /// Opens a volume to work on it; where its files are.
    fn open_to_read(&self, key: &VolumeKey) -> Result<std::path::PathBuf, VolumeError> {
        let gate = self.table.gate(key).ok_or_else(|| HoldError::Missing(key.clone()))?;
        let _alone = locked(&gate);
        let record = self.table.get(key).ok_or_else(|| HoldError::Missing(key.clone()))?.record;
        let dir = self.dir.volume(key);
        self.open_place(&dir, &record)?;
        Ok(dir.home())
    }
}

impl Volumes {
    /// Saves a volume. Where a sandbox writes to it, that stands still for a
    /// moment. Goes on when its caller goes away.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn checkpoint(&self, key: VolumeKey) -> Result<Summary, VolumeError> {
        let (volumes, subject) = (self.clone(), key.clone());
        self.whole(&subject, async move { volumes.checkpoint_now(&key).await }).await
    }

    async fn checkpoint_now(&self, key: &VolumeKey) -> Result<Summary, VolumeError> {
        let record = self.homes.table.begin_work(key)?;
        let work = Work { homes: self.homes.clone(), key: key.clone() };
        let (homes, opened) = (self.homes.clone(), key.clone());
        let path = tokio::task::spawn_blocking(move || homes.open_to_read(&opened));
        let path = path.await.map_err(|_| VolumeError::Ended)??;
        let writers = self.homes.table.writers(key);
        let (table, others) = (self.homes.table.clone(), key.clone());
        let before = writers.clone();
        let are_all = move || table.writers(&others) == before;
        let taken = self.checkpoints.take(&record, &path, &writers, &are_all).await;
        drop(work);
        let (homes, closed) = (self.homes.clone(), key.clone());
        blocking(move || homes.close_unless_used(&closed)).await?;
        let summary = taken?;
        let Summary { id, moved_bytes, content_bytes, frozen_us, .. } = &summary;
        tracing::info!(volume = %key, checkpoint = %id, moved_bytes, content_bytes, frozen_us, "checkpoint taken");
        Ok(summary)
    }

    /// Checkpoints of a volume, the newest first. The volume need not exist.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn list_checkpoints(&self, key: &VolumeKey) -> Result<Vec<Summary>, VolumeError> {
        Ok(self.checkpoints.list(key).await?)
    }

    /// Makes a volume of a checkpoint of another one, or of one that is no
    /// more: of the newest, unless it is named. `size_bytes`: 0 = as it was.
    ///
    /// # Errors
    /// See [`VolumeError`]; nothing is made then.
    pub async fn restore(
        &self,
        key: VolumeKey,
        from: VolumeKey,
        id: Option<CheckpointId>,
        size_bytes: u64,
    ) -> Result<Volume, VolumeError> {
        let (volumes, subject) = (self.clone(), key.clone());
        self.whole(&subject, async move { volumes.restore_now(key, &from, id.as_ref(), size_bytes).await }).await
    }

    async fn restore_now(
        &self,
        key: VolumeKey,
        from: &VolumeKey,
        id: Option<&CheckpointId>,
        size_bytes: u64,
    ) -> Result<Volume, VolumeError> {
        let summary = self.checkpoints.find(from, id).await?;
        let size_bytes = if size_bytes == 0 { summary.size_bytes } else { whole_mebibytes(size_bytes)? };
        let reading = self.checkpoints.open(&summary).await?;
        let _alone = self.lane.lock().await;
        let made = self.create_now(key.clone(), size_bytes, Content::Checkpoint(reading)).await?;
        tracing::info!(volume = %key, %from, checkpoint = %summary.id, "volume restored");
        Ok(made)
    }

    /// Makes a copy of a volume: a checkpoint, and a volume of it.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn duplicate(&self, from: VolumeKey, key: VolumeKey) -> Result<Volume, VolumeError> {
        let (volumes, subject) = (self.clone(), key.clone());
        self.whole(&subject, async move {
            if volumes.homes.table.get(&key).is_some() {
                let size_bytes = volumes.homes.table.get(&key).map_or(0, |standing| standing.record.size_bytes);
                return Err(VolumeError::Conflict { volume: key, size_bytes });
            }
            let summary = volumes.checkpoint_now(&from).await?;
            volumes.restore_now(key, &from, Some(&summary.id), 0).await
        })
        .await
    }

    /// Takes checkpoints of the volumes that are attached, for ever.
    pub fn checkpoint_periodically(&self) {
        let period = self.checkpoints.rules().period;
        if period.is_zero() {
            return;
        }
        let volumes = self.clone();
        self.tasks.spawn(TaskName::from("checkpoints"), async move { volumes.every(period).await });
    }

    async fn every(&self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            for standing in self.homes.table.list().into_iter().filter(|standing| standing.is_open) {
                let key = standing.record.key();
                match self.checkpoint(key.clone()).await {
                    Ok(_) => {}
                    Err(VolumeError::Host(host::Error::Cancelled) | VolumeError::Ended) => return,
                    Err(error) => {
                        tracing::warn!(volume = %key, error = %chain(&error), "no checkpoint; the next period tries again");
                    }
                }
            }
        }
    }
}
