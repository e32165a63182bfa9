//! Checkpoints as the operator wants them.

use std::path::Path;
use std::time::Duration;

use super::{Blobs, CheckpointError, Checkpoints, Rules, frozen_cgroup};
use crate::config::CheckpointsConfig;
use crate::host::cgroup::Cgroups;
use crate::tasks::Tasks;

impl Checkpoints {
    /// Opens the store. Sandboxes that an earlier daemon left frozen, as it
    /// was killed while it saved their volumes, go on. `fallback`: a directory,
    /// unless the operator names one or a bucket.
    ///
    /// # Errors
    /// When the store cannot be used, or a sandbox cannot be let go on.
    pub fn configured(
        config: &CheckpointsConfig,
        fallback: &Path,
        cgroups: &Cgroups,
        tasks: &Tasks,
    ) -> Result<Self, CheckpointError> {
        for name in cgroups.list() {
            cgroups.thaw(&frozen_cgroup(&name))?;
        }
        let CheckpointsConfig { directory, s3, keep, period_s, freeze_max_ms, grace_s } = config;
        let blobs = match s3 {
            Some(s3) => Blobs::in_bucket(s3)?,
            None => Blobs::in_directory(directory.as_deref().unwrap_or(fallback))?,
        };
        let rules = Rules {
            keep: *keep,
            period: Duration::from_secs(*period_s),
            freeze_max: Duration::from_millis(*freeze_max_ms),
            grace: Duration::from_secs(*grace_s),
        };
        Ok(Self::new(blobs, cgroups.clone(), rules, tasks.clone()))
    }
}
