//! Time lost by waiting for a resource, as the kernel measures it (PSI).

use serde::{Deserialize, Serialize};

/// Share of the last ten seconds, in parts per million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// In which at least one task waited.
    pub some_avg10_ppm: u32,
    /// In which every task waited; absent where the kernel does not define it
    /// (the CPU of a whole node).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_avg10_ppm: Option<u32>,
}

/// What the kernel measures; what it does not measure is absent, which is not
/// zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Pressure {
    /// Waiting for a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Stall>,
    /// Waiting for memory to be reclaimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Stall>,
    /// Waiting for disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Stall>,
}

impl Pressure {
    /// The measured resources by name, in a fixed order.
    pub fn measured(&self) -> impl Iterator<Item = (&'static str, Stall)> {
        let all = [("cpu", self.cpu), ("memory", self.memory), ("io", self.io)];
        all.into_iter().filter_map(|(name, stall)| Some((name, stall?)))
    }

    /// Nothing measured is nothing to tell.
    #[must_use]
    pub fn if_measured(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}
