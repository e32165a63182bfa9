//! When images are pulled, and how a pull goes on.

use serde::{Deserialize, Serialize};

/// When a node asks a registry for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// At each start; what the node has of it already is not fetched again.
    Always,
    /// Only if the node does not have it.
    #[default]
    IfNotPresent,
    /// Never: it must have been imported or pulled before.
    Never,
}

impl PullPolicy {
    /// Whether it is the policy of a spec that names none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a layer of a pull goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    /// Waits for its turn.
    Waiting,
    /// Bytes come in.
    Downloading,
    /// All bytes are there and checked.
    Downloaded,
    /// It becomes files.
    Unpacking,
    /// It is on the disk.
    Done,
}

/// One layer of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LayerProgress {
    /// Digest of the packed layer.
    pub digest: String,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Size, in bytes.
    pub total_bytes: u64,
    /// What it goes through.
    pub state: LayerState,
}

/// Where a pull stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PullStep {
    /// `resolve`, `download` or `unpack`.
    pub name: String,
    /// Bytes of this step that are done.
    pub done_bytes: u64,
    /// Bytes of this step in all; 0 = not known.
    pub total_bytes: u64,
    /// Lowest layer first; empty until the manifest is known.
    pub layers: Vec<LayerProgress>,
    /// Host that is asked, the registry or a mirror; empty at first.
    pub source: String,
}
