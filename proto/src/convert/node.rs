//! Nodes: facts, capacity, images, conditions.

use super::{InvalidMessage, require};
use crate::model::{Ability, NodeCapacity, NodeCondition, NodeFacts, NodeLoad, NodeStatus};
use crate::types as wire;

impl From<NodeFacts> for wire::NodeFacts {
    fn from(f: NodeFacts) -> Self {
        Self {
            hostname: f.hostname,
            kernel: f.kernel,
            architecture: f.architecture,
            cpus: f.cpus,
            memory_bytes: f.memory_bytes,
            cgroup_version: f.cgroup_version,
            containerd_version: f.containerd_version,
            daemon_version: f.daemon_version,
            boot_id: f.boot_id,
        }
    }
}

impl From<wire::NodeFacts> for NodeFacts {
    fn from(f: wire::NodeFacts) -> Self {
        Self {
            hostname: f.hostname,
            kernel: f.kernel,
            architecture: f.architecture,
            cpus: f.cpus,
            memory_bytes: f.memory_bytes,
            cgroup_version: f.cgroup_version,
            containerd_version: f.containerd_version,
            daemon_version: f.daemon_version,
            boot_id: f.boot_id,
        }
    }
}

impl From<Ability> for wire::Ability {
    fn from(a: Ability) -> Self {
        Self { name: a.name, is_usable: a.is_usable, reason: a.reason, detail: a.detail }
    }
}

impl From<wire::Ability> for Ability {
    fn from(a: wire::Ability) -> Self {
        Self { name: a.name, is_usable: a.is_usable, reason: a.reason, detail: a.detail }
    }
}

impl From<NodeStatus> for wire::NodeStatus {
    fn from(s: NodeStatus) -> Self {
        let condition = |c: NodeCondition| wire::Condition {
            r#type: c.kind,
            is_true: c.is_true,
            reason: c.reason,
            message: c.message,
        };
        Self {
            facts: Some(s.facts.into()),
            cpu_allocatable_millis: s.capacity.cpu_allocatable_millis,
            memory_allocatable_bytes: s.capacity.memory_allocatable_bytes,
            sandboxes_max: s.capacity.sandboxes_max,
            images: s.images.into_iter().map(Into::into).collect(),
            conditions: s.conditions.into_iter().map(condition).collect(),
            usage: Some(wire::NodeUsage {
                memory_used_bytes: s.load.memory_used_bytes,
                memory_available_bytes: s.load.memory_available_bytes,
                load1_milli: s.load.load1_milli,
                disk_free_bytes: s.load.disk_free_bytes,
                clock_offset_ms: s.load.clock_offset_ms,
            }),
            abilities: s.abilities.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::NodeStatus> for NodeStatus {
    type Error = InvalidMessage;

    fn try_from(s: wire::NodeStatus) -> Result<Self, InvalidMessage> {
        let condition = |c: wire::Condition| NodeCondition {
            kind: c.r#type,
            is_true: c.is_true,
            reason: c.reason,
            message: c.message,
        };
        let load = require("usage", s.usage)?;
        Ok(Self {
            facts: require("facts", s.facts)?.into(),
            capacity: NodeCapacity {
                cpu_allocatable_millis: s.cpu_allocatable_millis,
                memory_allocatable_bytes: s.memory_allocatable_bytes,
                sandboxes_max: s.sandboxes_max,
            },
            images: s.images.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            conditions: s.conditions.into_iter().map(condition).collect(),
            load: NodeLoad {
                memory_used_bytes: load.memory_used_bytes,
                memory_available_bytes: load.memory_available_bytes,
                load1_milli: load.load1_milli,
                disk_free_bytes: load.disk_free_bytes,
                clock_offset_ms: load.clock_offset_ms,
            },
            abilities: s.abilities.into_iter().map(Into::into).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ImageInfo;

    #[test]
    fn a_status_survives_the_wire() {
        let status = NodeStatus {
            facts: NodeFacts { hostname: "n1".into(), cpus: 2, ..NodeFacts::default() },
            capacity: NodeCapacity { cpu_allocatable_millis: 2000, memory_allocatable_bytes: 1, sandboxes_max: 9 },
            images: vec![ImageInfo {
                unpacked_bytes: 7,
                pinned: true,
                in_use_by: 8,
                last_used_at_unix_ms: 9,
                platform: "linux/amd64".into(),
                ..ImageInfo::new("roost/desktop".parse().unwrap(), "sha256:0".into(), 5, 6)
            }],
            conditions: vec![NodeCondition {
                kind: "ContainerdReady".into(),
                is_true: true,
                reason: "ok".into(),
                message: String::new(),
            }],
            load: NodeLoad {
                memory_used_bytes: 1,
                memory_available_bytes: 2,
                load1_milli: 3,
                disk_free_bytes: 4,
                clock_offset_ms: Some(-5),
            },
            abilities: vec![Ability {
                name: "runtime/crun".into(),
                is_usable: false,
                reason: "needs cgroup v2".into(),
                detail: "1.8".into(),
            }],
        };
        assert_eq!(NodeStatus::try_from(wire::NodeStatus::from(status.clone())), Ok(status));
    }
}
