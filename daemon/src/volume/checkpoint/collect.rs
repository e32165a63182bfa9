//! Removing pieces that nothing names any more.

use std::collections::HashSet;

use tokio::time::Instant;

use super::blobs::{PIECES, piece_of};
use super::manifest::{SUMMARY, TREE};
use super::{CheckpointError, Checkpoints, Hash};
use crate::sandbox::publisher::unix_ms;

/// Collections in the time that an unnamed piece is kept: to list all pieces
/// costs requests.
const IN_GRACE: u32 = 24;

impl Checkpoints {
    /// Collects, unless that was done a short while ago.
    pub(super) async fn collect_if_due(&self) -> Result<(), CheckpointError> {
        {
            let now = Instant::now();
            let mut last = self.last_collection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.is_some_and(|last| now - last < self.rules.grace / IN_GRACE) {
                return Ok(());
            }
            *last = Some(now);
        }
        self.collect().await
    }

    /// Removes pieces that no checkpoint of any volume names and that were
    /// written longer ago than the grace: what is younger may belong to a
    /// checkpoint that is being taken, here or on another node.
    ///
    /// # Errors
    /// When the store does not answer, or a checkpoint is damaged: nothing is
    /// removed then.
    pub(super) async fn collect(&self) -> Result<(), CheckpointError> {
        let grace_ms = i64::try_from(self.rules.grace.as_millis()).unwrap_or(i64::MAX);
        let before = i64::try_from(unix_ms()).unwrap_or(i64::MAX).saturating_sub(grace_ms);
        // Pieces first: one that is named only afterwards is young.
        let pieces = self.blobs.list(PIECES).await?;
        let manifests = self.blobs.list("manifests/").await?;
        let mut named: HashSet<Hash> = HashSet::new();
        for name in manifests.iter().filter(|object| object.key.ends_with(SUMMARY)) {
            match self.summary(&name.key).await {
                Ok(summary) => named.extend(self.tree(&summary).await?.pieces().map(|piece| piece.0)),
                // Removed meanwhile.
                Err(error) if error.is_missing_object() => {}
                Err(error) => return Err(error),
            }
        }
        let kept: HashSet<&str> = manifests.iter().filter_map(|object| object.key.strip_suffix(SUMMARY)).collect();
        let halves = manifests.iter().filter(|object| {
            let stem = object.key.strip_suffix(TREE);
            stem.is_some_and(|stem| !kept.contains(stem)) && object.written_at_unix_ms <= before
        });
        let unnamed = pieces.iter().filter(|object| {
            piece_of(&object.key).is_some_and(|hash| !named.contains(&hash)) && object.written_at_unix_ms <= before
        });
        let mut count = 0_usize;
        for object in halves.chain(unnamed) {
            self.blobs.delete(&object.key).await?;
            count += 1;
        }
        tracing::info!(count, "pieces that no checkpoint names are removed");
        Ok(())
    }
}

impl CheckpointError {
    fn is_missing_object(&self) -> bool {
        let Self::Blob(super::BlobError::Store { source, .. }) = self else { return false };
        matches!(source, object_store::Error::NotFound { .. })
    }
}
