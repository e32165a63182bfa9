//! Taking a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use roost_proto::id::{CheckpointId, SandboxId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::manifest::{Kind, Manifest, Summary, VERSION};
use super::scan::Scan;
use super::{CheckpointError, Checkpoints, Hash};
use crate::host::cgroup::Cgroups;
use crate::host::home::sync_file_system;
use crate::host::{self, blocking};
use crate::sandbox::publisher::unix_ms;
use crate::volume::VolumeRecord;

/// Pieces that wait for the store, and that are being written at once: some
/// 4 MiB each.
const WAITING: usize = 4;
const AT_ONCE: usize = 8;
/// How long the processes of a sandbox may take to stand still.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(2);

/// What went to the store.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    bytes: u64,
    stored_bytes: u64,
}

/// Sandboxes that stand still; they go on when this is dropped, whatever
/// happens. The next daemon lets them go on that were left so by a kill.
#[derive(Debug)]
struct Frozen {
    cgroups: Cgroups,
    names: Vec<String>,
    began: Instant,
}

/// The cgroup that is frozen for a checkpoint: not the sandbox's own, so that
/// a sandbox that somebody paused stays so.
#[must_use]
pub fn frozen_cgroup(id: &str) -> String {
    format!("{id}/workload")
}

impl Frozen {
    fn freeze(cgroups: Cgroups, sandboxes: &[SandboxId]) -> Result<Self, host::Error> {
        let mut frozen = Self { cgroups, names: Vec::new(), began: Instant::now() };
        for id in sandboxes {
            let name = frozen_cgroup(id.as_str());
            frozen.names.push(name.clone());
            frozen.cgroups.freeze(&name, FREEZE_TIMEOUT)?;
        }
        Ok(frozen)
    }

    /// Lets them go on; how long they stood still.
    fn thaw(self) -> Result<Duration, CheckpointError> {
        for name in &self.names {
            if !self.cgroups.is_frozen(name).unwrap_or(false) {
                return Err(CheckpointError::Disturbed(name.trim_end_matches("/workload").to_owned()));
            }
        }
        Ok(self.began.elapsed())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = self.cgroups.thaw(name) {
                tracing::error!(cgroup = name, %error, "a sandbox cannot be let go on");
            }
        }
    }
}

impl Checkpoints {
    /// Saves the home at `path`, which is open. `writers`: sandboxes that may
    /// change it meanwhile; `are_all` says whether others came since.
    ///
    /// # Errors
    /// See [`CheckpointError`]; the sandboxes go on in every case.
    pub(in crate::volume) async fn take(
        &self,
        record: &VolumeRecord,
        path: &Path,
        writers: &[SandboxId],
        are_all: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Summary, CheckpointError> {
        let key = record.key();
        let before = match self.find(&key, None).await {
            Ok(summary) => self.tree(&summary).await?,
            Err(CheckpointError::Missing(_)) => Manifest::default(),
            Err(error) => return Err(error),
        };
        let first = self.read(path, Arc::new(before)).await?;
        let (tree, moved, frozen) = match writers.is_empty() {
            true => (first.0, first.1, Duration::ZERO),
            false => self.read_frozen(path, first, writers).await?,
        };
        if !are_all() {
            return Err(CheckpointError::Disturbed(key.to_string()));
        }
        let content = tree.entries.iter().filter_map(|entry| match &entry.kind {
            Kind::File { pieces, .. } => Some(pieces.iter().map(|piece| u64::from(piece.2)).sum::<u64>()),
            _ => None,
        });
        let summary = Summary {
            version: VERSION,
            id: CheckpointId::random(),
            tenant: key.tenant.clone(),
            volume: key.name.clone(),
            created_at_unix_ms: unix_ms(),
            size_bytes: record.size_bytes,
            entries: tree.entries.len() as u64,
            content_bytes: content.sum(),
            moved_bytes: moved.bytes,
            stored_bytes: moved.stored_bytes,
            frozen_us: u64::try_from(frozen.as_micros()).unwrap_or(u64::MAX),
            tree: Hash::of(b""),
        };
        let summary = self.write(summary, &tree).await?;
        self.retain(&key).await?;
        Ok(summary)
    }

    /// What changed since the first reading, while nothing changes.
    async fn read_frozen(
        &self,
        path: &Path,
        first: (Manifest, Moved),
        writers: &[SandboxId],
    ) -> Result<(Manifest, Moved, Duration), CheckpointError> {
        let (cgroups, ids) = (self.cgroups.clone(), writers.to_vec());
        // Dropped in every case, so that they go on.
        let frozen = blocking(move || Frozen::freeze(cgroups, &ids)).await?;
        let reading = self.read(path, Arc::new(first.0));
        let (tree, moved) = match tokio::time::timeout(self.rules.freeze_max, reading).await {
            Ok(read) => read?,
            Err(_elapsed) => {
                return Err(CheckpointError::TooSlow { freeze_max_ms: self.rules.freeze_max.as_millis() });
            }
        };
        let stood_still = frozen.thaw()?;
        let moved =
            Moved { bytes: first.1.bytes + moved.bytes, stored_bytes: first.1.stored_bytes + moved.stored_bytes };
        Ok((tree, moved, stood_still))
    }

    /// Reads the home and moves what is new. Dropped, it ends soon.
    async fn read(&self, path: &Path, before: Arc<Manifest>) -> Result<(Manifest, Moved), CheckpointError> {
        let (out, pieces) = mpsc::channel(WAITING);
        let (path, stop) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
        let _ends = StopOnDrop(stop.clone());
        let scan = tokio::task::spawn_blocking(move || {
            // So that the kernel notes every later change, also of mapped files.
            sync_file_system(&path)?;
            Scan::run(&path, before, out, stop)
        });
        let grace_ms = i64::try_from(self.rules.grace.as_millis()).unwrap_or(i64::MAX);
        let fresh_since = i64::try_from(unix_ms()).unwrap_or(i64::MAX).saturating_sub(grace_ms / 2);
        let moved = ReceiverStream::new(pieces)
            .map(|(hash, data)| async move {
                let bytes = data.len() as u64;
                let stored_bytes = self.blobs.put_piece(hash, data, fresh_since).await?;
                // What somebody else had saved was not moved.
                Ok::<_, CheckpointError>(Moved { bytes: if stored_bytes > 0 { bytes } else { 0 }, stored_bytes })
            })
            .buffer_unordered(AT_ONCE)
            .try_fold(Moved::default(), |sum, one| async move {
                Ok(Moved { bytes: sum.bytes + one.bytes, stored_bytes: sum.stored_bytes + one.stored_bytes })
            })
            .await;
        // A refusal of the store ends the reading, and is what counts.
        let moved = moved?;
        let tree = scan.await.map_err(|_| CheckpointError::Stopped)??;
        Ok((tree, moved))
    }
}

/// Ends a reading that nobody waits for.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
