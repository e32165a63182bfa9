//! Nodes as central shows them.

use serde::{Deserialize, Serialize};

use super::{ImageInfo, Pressure};
use crate::id::NodeId;

/// Whether central hears a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NodePhase {
    /// Enrolled, never connected.
    Enrolled,
    /// Heard within the last 45 s.
    Online,
    /// Silent for more than 45 s: no new sandbox is placed there.
    Stale,
    /// Silent for more than 120 s.
    Offline,
}

impl std::fmt::Display for NodePhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Enrolled => "Enrolled",
            Self::Online => "Online",
            Self::Stale => "Stale",
            Self::Offline => "Offline",
        })
    }
}

/// What does not change while a node is up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeFacts {
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture, e.g. `x86_64`.
    pub architecture: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// `v1` or `v2`.
    pub cgroup_version: String,
    /// Version that containerd reports.
    pub containerd_version: String,
    /// Version of roostd.
    pub daemon_version: String,
    /// Boot id of the kernel; changes with each boot.
    pub boot_id: String,
}

/// What sandboxes may request on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeCapacity {
    /// CPU, in thousandths of a core.
    pub cpu_allocatable_millis: u32,
    /// Memory, in bytes.
    pub memory_allocatable_bytes: u64,
    /// Most sandboxes at once.
    pub sandboxes_max: u32,
}

/// Load of the whole node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeLoad {
    /// Used memory, in bytes.
    pub memory_used_bytes: u64,
    /// Memory that programs can still get, in bytes.
    pub memory_available_bytes: u64,
    /// Load average of one minute, in thousandths.
    pub load1_milli: u32,
    /// Free bytes of the file system under the daemon's root.
    pub disk_free_bytes: u64,
    /// How far central's clock is ahead of the node's, in milliseconds; none
    /// while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// Free inodes there; absent where the file system counts none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_inodes_free: Option<u64>,
    /// Time lost by waiting; absent where the kernel does not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// What the kernel lets all sandboxes of a node use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeCap {
    /// CPU, in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// A named fact with its reason, as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeCondition {
    /// E.g. `ContainerdReady`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub is_true: bool,
    /// Stable word.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
}

/// Something that a node can do, or cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Ability {
    /// Kind and, where there are several, which: `runtime/crun`, `gpu/0`.
    pub name: String,
    /// Whether sandboxes can have it.
    pub is_usable: bool,
    /// Why not; empty when usable.
    #[serde(default)]
    pub reason: String,
    /// Version, size or kind, as one line; may be empty.
    #[serde(default)]
    pub detail: String,
}

/// What it means that a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It must hold, or nothing is placed on the node.
    Required,
    /// While it holds nothing is placed on the node.
    Forbids,
    /// While it holds somebody must look after it; sandboxes are placed as
    /// before.
    Warns,
}

impl NodeCondition {
    /// The clocks of node and central differ.
    pub const CLOCK_SKEW: &'static str = "ClockSkew";
    /// Central's database went back in time, and what runs on the node was not
    /// compared with it since.
    pub const STORE_RESTORED: &'static str = "StoreRestored";
    /// Sandboxes run on the node that central's database does not know.
    pub const ORPHANED_SANDBOXES: &'static str = "OrphanedSandboxes";

    /// The one place that knows which conditions are good and which are bad.
    fn meaning(&self) -> Meaning {
        match self.kind.as_str() {
            // Nothing decides by the wall clock; a central whose own clock is
            // off would stop its whole fleet.
            Self::CLOCK_SKEW | Self::STORE_RESTORED | Self::ORPHANED_SANDBOXES => Meaning::Warns,
            kind if kind.ends_with("Pressure") => Meaning::Forbids,
            _ => Meaning::Required,
        }
    }

    /// Whether it is one that is bad when it holds, e.g. `DiskPressure`.
    #[must_use]
    pub fn is_bad_when_true(&self) -> bool {
        self.meaning() != Meaning::Required
    }

    /// Whether all is well, as far as it is concerned.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_true != self.is_bad_when_true()
    }

    /// Whether it keeps sandboxes from being placed on the node.
    #[must_use]
    pub fn stops_placement(&self) -> bool {
        !self.is_healthy() && self.meaning() != Meaning::Warns
    }
}

/// What a node said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {
    /// What does not change while it is up.
    pub facts: NodeFacts,
    /// What sandboxes may request.
    pub capacity: NodeCapacity,
    /// Images it holds.
    pub images: Vec<ImageInfo>,
    /// Named facts; a sandbox is placed only where none of them forbids it.
    pub conditions: Vec<NodeCondition>,
    /// Load of the whole node.
    pub load: NodeLoad,
    /// What it can and cannot do; empty from daemons before 0.2.
    #[serde(default)]
    pub abilities: Vec<Ability>,
    /// What all of its sandboxes can use together; absent where nothing caps
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<NodeCap>,
}

/// A node as central shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Made by central at enrolment.
    pub id: NodeId,
    /// Name it gave itself at enrolment.
    pub name: String,
    /// Whether central hears it.
    pub phase: NodePhase,
    /// What it said of itself; empty before its first heartbeat.
    pub status: NodeStatus,
    /// CPU requested by the sandboxes placed here, in thousandths of a core.
    pub cpu_requested_millis: u32,
    /// Memory requested by the sandboxes placed here, in bytes.
    pub memory_requested_bytes: u64,
    /// Sandboxes placed here.
    pub sandboxes: u32,
    /// Unix time of its last heartbeat, in milliseconds.
    #[serde(default)]
    pub last_heartbeat_unix_ms: Option<u64>,
    /// Unix time of its enrolment, in milliseconds.
    pub enrolled_at_unix_ms: u64,
    /// Version of NodeLink that its session speaks; none without a session.
    #[serde(default)]
    pub protocol_version: Option<u32>,
    /// The certificate that it presents; none before its first session.
    #[serde(default)]
    pub certificate: Option<NodeCertificate>,
}

/// The body of `POST /api/v1/nodes/{node}/readmit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadmitNode {
    /// Name that it is to be listed under; a taken one gets the end of the id
    /// appended.
    pub name: String,
}

/// The certificate by which central knows a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeCertificate {
    /// Key id of the CA that issued it, in hex.
    pub ca_key_id: String,
    /// Unix time of its end, in milliseconds.
    pub not_after_unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, is_true: bool) -> NodeCondition {
        NodeCondition { kind: kind.into(), is_true, reason: String::new(), message: String::new() }
    }

    #[test]
    fn each_condition_is_good_or_bad_and_only_some_stop_placement() {
        let looks = |kind, is_true| {
            let condition = condition(kind, is_true);
            (condition.is_healthy(), condition.stops_placement())
        };
        assert_eq!((looks("ContainerdReady", true), looks("ContainerdReady", false)), ((true, false), (false, true)));
        assert_eq!((looks("DiskPressure", true), looks("DiskPressure", false)), ((false, true), (true, false)));
        for warning in [NodeCondition::CLOCK_SKEW, NodeCondition::STORE_RESTORED, NodeCondition::ORPHANED_SANDBOXES] {
            assert_eq!((looks(warning, true), looks(warning, false)), ((false, false), (true, false)), "{warning}");
        }
    }
}
