//! How disk limits are enforced.

use serde::{Deserialize, Serialize};

/// Where files of a bounded size lie.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// What the kernel bounds them by.
    pub limit_by: LimitBy,
}

/// What a disk limit is enforced by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitBy {
    /// Project quota where the file system of `root` enforces it, else `loop`.
    #[default]
    Auto,
    /// Project quota; the daemon does not start without it.
    ProjectQuota,
    /// An ext4 file system in a sparse file for each sandbox that has a limit.
    Loop,
}
