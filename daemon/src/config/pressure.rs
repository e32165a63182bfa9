//! When the node counts as short of something.

use serde::{Deserialize, Serialize};

/// Thresholds of the node's pressure conditions. While one holds, the node
/// takes no new sandbox.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PressureConfig {
    /// `DiskPressure`: less than this is free above `reserved.disk_bytes`, in
    /// bytes.
    pub disk_bytes: u64,
    /// `InodePressure`: fewer than this are free.
    pub inodes: u64,
    /// `MemoryPressure`: less than this is available, in bytes.
    pub memory_bytes: u64,
    /// A condition ends once so many per cent more than its threshold are
    /// free, so that it does not come and go.
    pub hysteresis_percent: u32,
}

impl Default for PressureConfig {
    /// Room for one large image, for what it unpacks to, and for the daemon
    /// and containerd at work.
    fn default() -> Self {
        Self { disk_bytes: 1 << 30, inodes: 50_000, memory_bytes: 256 << 20, hysteresis_percent: 25 }
    }
}
