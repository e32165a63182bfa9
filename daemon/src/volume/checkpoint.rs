//! Checkpoints: a home at one moment, in pieces that are told apart by their
//! content.
//!
//! ```text
//! chunks/<hh>/<sha256>                              a piece, zstd
//! manifests/<tenant>/<volume>/<unix ms>-<id>.tree   every entry of the home, JSON in zstd
//! manifests/<tenant>/<volume>/<unix ms>-<id>.json   what it is: written last
//! ```
//!
//! A checkpoint is there when its last object is. While a sandbox writes, the
//! home is read twice: first while it goes on, which moves nearly all; then
//! what changed meanwhile, while the sandbox stands still, for a bounded time.

mod blobs;
mod collect;
mod configured;
mod manifest;
mod restore;
mod retain;
mod scan;
mod take;

pub use blobs::{BlobError, Blobs};
pub use manifest::{Hash, Summary};
pub(super) use restore::Reading;
pub use take::frozen_cgroup;

use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::CheckpointId;

use super::VolumeKey;
use crate::host::cgroup::Cgroups;
use crate::tasks::Tasks;
use manifest::{Manifest, encode_tree};

/// What checkpoints need; cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    blobs: Blobs,
    cgroups: Cgroups,
    rules: Rules,
    tasks: Tasks,
    last_collection: Arc<std::sync::Mutex<Option<tokio::time::Instant>>>,
}

/// How checkpoints are taken and kept.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Most of each volume that are kept.
    pub keep: usize,
    /// Longest time for which a sandbox stands still.
    pub freeze_max: Duration,
    /// How long a piece that nothing names is kept: a checkpoint that is being
    /// taken may name it later.
    pub grace: Duration,
    /// Between two checkpoints of a volume that is attached; zero = none.
    pub period: Duration,
}

/// Why a checkpoint cannot be taken or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store.
    #[error("the store of checkpoints cannot be used")]
    Blob(#[from] BlobError),
    /// Nothing was saved.
    #[error("there is no such checkpoint of volume {0}: see `roost volume checkpoints`")]
    Missing(VolumeKey),
    /// It does not hold what it names.
    #[error("checkpoint {id} is damaged: {problem}")]
    Damaged {
        /// Which.
        id: CheckpointId,
        /// What is wrong.
        problem: String,
    },
    /// The changes could not be read in time.
    #[error(
        "what changed could not be read within {freeze_max_ms} ms, and the sandbox goes on: try again when it writes less, or raise checkpoints.freeze_max_ms"
    )]
    TooSlow {
        /// How long it may stand still.
        freeze_max_ms: u128,
    },
    /// It went on while it was to stand still.
    #[error("what writes to it was ended or started meanwhile ({0}): try again")]
    Disturbed(String),
    /// An entry that cannot be saved.
    #[error("{path} cannot be saved: {problem}")]
    Entry {
        /// Below the home.
        path: String,
        /// Why.
        problem: String,
    },
    /// The host refused a step.
    #[error("the home cannot be read or written")]
    Host(#[from] crate::host::Error),
    /// The work was given up.
    #[error("the work was given up")]
    Stopped,
}

impl Checkpoints {
    /// Checkpoints in a store.
    #[must_use]
    pub fn new(blobs: Blobs, cgroups: Cgroups, rules: Rules, tasks: Tasks) -> Self {
        Self { blobs, cgroups, rules, tasks, last_collection: Arc::default() }
    }

    /// How they are taken and kept.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Checkpoints of a volume, the newest first. The volume itself need not
    /// exist any more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, key: &VolumeKey) -> Result<Vec<Summary>, CheckpointError> {
        let mut names = self.names(key).await?;
        names.sort_unstable();
        let mut found = Vec::new();
        for name in names.iter().rev() {
            found.push(self.summary(name).await?);
        }
        Ok(found)
    }

    /// Objects that say what checkpoints of a volume there are.
    async fn names(&self, key: &VolumeKey) -> Result<Vec<String>, CheckpointError> {
        let listed = self.blobs.list(&manifest::prefix(key)).await?;
        Ok(listed.into_iter().map(|object| object.key).filter(|name| name.ends_with(manifest::SUMMARY)).collect())
    }

    async fn summary(&self, name: &str) -> Result<Summary, CheckpointError> {
        let bytes = self.blobs.get(name).await?;
        let read = serde_json::from_slice(&bytes);
        read.map_err(|error| BlobError::Damaged { key: name.to_owned(), problem: error.to_string() }.into())
    }

    /// One checkpoint of a volume; without an id the newest.
    pub(super) async fn find(&self, key: &VolumeKey, id: Option<&CheckpointId>) -> Result<Summary, CheckpointError> {
        let mut names = self.names(key).await?;
        names.sort_unstable();
        let is_it = |name: &&String| id.is_none_or(|id| name.ends_with(&format!("-{id}{}", manifest::SUMMARY)));
        match names.iter().rev().find(is_it) {
            Some(name) => self.summary(name).await,
            None => Err(CheckpointError::Missing(key.clone())),
        }
    }

    /// Every entry of a checkpoint, as it was written.
    async fn tree(&self, summary: &Summary) -> Result<Manifest, CheckpointError> {
        let damaged = |problem: String| CheckpointError::Damaged { id: summary.id.clone(), problem };
        let bytes = self.blobs.get(&summary.tree_key()).await?;
        if Hash::of(&bytes) != summary.tree {
            return Err(damaged("its list of entries is not the one that was written".into()));
        }
        let decoded = tokio::task::spawn_blocking(move || manifest::decode_tree(&bytes)).await;
        decoded.map_err(|_| CheckpointError::Stopped)?.map_err(damaged)
    }

    /// Writes the two objects that make a checkpoint.
    async fn write(&self, mut summary: Summary, tree: &Manifest) -> Result<Summary, CheckpointError> {
        let bytes =
            encode_tree(tree).map_err(|problem| CheckpointError::Damaged { id: summary.id.clone(), problem })?;
        summary.tree = Hash::of(&bytes);
        summary.stored_bytes += bytes.len() as u64;
        self.blobs.put(&summary.tree_key(), bytes).await?;
        let text = serde_json::to_vec(&summary)
            .map_err(|error| CheckpointError::Damaged { id: summary.id.clone(), problem: error.to_string() })?;
        self.blobs.put(&summary.key(), text).await?;
        Ok(summary)
    }
}
