//! Which checkpoints of a volume go. Pure, but for the removal itself.

use super::manifest::{SUMMARY, TREE};
use super::{CheckpointError, Checkpoints};
use crate::volume::VolumeKey;

/// Of the names of summaries those that go, oldest first, so that `keep` stay.
fn outdated(mut names: Vec<String>, keep: usize) -> Vec<String> {
    names.sort_unstable();
    names.truncate(names.len().saturating_sub(keep));
    names
}

impl Checkpoints {
    /// Removes the checkpoints of a volume that are too many, and then pieces
    /// that nothing names any more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn retain(&self, key: &VolumeKey) -> Result<(), CheckpointError> {
        let gone = outdated(self.names(key).await?, self.rules.keep);
        for name in &gone {
            // The summary first: without it there is no checkpoint.
            self.blobs.delete(name).await?;
            self.blobs.delete(&format!("{}{TREE}", name.trim_end_matches(SUMMARY))).await?;
        }
        if !gone.is_empty() {
            tracing::info!(volume = %key, count = gone.len(), "old checkpoints removed");
            self.collect_if_due().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(outdated(names(&["00003-c", "00001-a", "00002-b"]), 2), names(&["00001-a"]));
        assert!(outdated(names(&["00001-a"]), 2).is_empty());
    }
}
