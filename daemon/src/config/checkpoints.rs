//! Where volumes are saved, and how often.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Checkpoints of volumes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointsConfig {
    /// Directory that they lie in; absent = `checkpoints` below `root`. Nodes
    /// that share it can restore each other's volumes.
    pub directory: Option<PathBuf>,
    /// Bucket that they lie in, in place of a directory.
    pub s3: Option<S3Config>,
    /// Most of each volume that are kept.
    pub keep: usize,
    /// Between two checkpoints of a volume that is attached, in seconds; 0 =
    /// none by themselves. What was written since the last one is lost with
    /// the node's disk.
    pub period_s: u64,
    /// Longest time for which a sandbox stands still, in milliseconds.
    pub freeze_max_ms: u64,
    /// How long data that no checkpoint names is kept, in seconds: longer
    /// than any checkpoint takes.
    pub grace_s: u64,
}

/// A bucket that speaks S3. Its keys come from the environment:
/// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// Its name.
    pub bucket: String,
    /// Where it is; absent = Amazon's own.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(default = "default_region")]
    pub region: String,
    /// What all names in it begin with.
    #[serde(default)]
    pub prefix: String,
    /// Whether an endpoint without TLS is accepted.
    #[serde(default)]
    pub allow_http: bool,
}

fn default_region() -> String {
    "us-east-1".into()
}

impl Default for CheckpointsConfig {
    fn default() -> Self {
        Self { directory: None, s3: None, keep: 7, period_s: 0, freeze_max_ms: 10_000, grace_s: 86_400 }
    }
}

impl CheckpointsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, problem: &str| Err(ConfigError::Invalid { field, problem: problem.to_owned() });
        if self.keep == 0 {
            return wrong("checkpoints.keep", "must be at least 1");
        }
        if self.freeze_max_ms == 0 {
            return wrong("checkpoints.freeze_max_ms", "must be at least 1");
        }
        match (&self.directory, &self.s3) {
            (Some(_), Some(_)) => wrong("checkpoints.directory", "stands beside checkpoints.s3: keep one of both"),
            (Some(directory), None) if !directory.is_absolute() => {
                wrong("checkpoints.directory", "must be an absolute path")
            }
            (None, Some(s3)) if s3.bucket.is_empty() => wrong("checkpoints.s3.bucket", "must not be empty"),
            _ => Ok(()),
        }
    }
}
