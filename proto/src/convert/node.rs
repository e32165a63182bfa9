//! Nodes: facts, capacity, images, conditions.

use super::{InvalidMessage, require};
use crate::model::{Ability, NodeCap, NodeCapacity, NodeCondition, NodeFacts, NodeLoad, NodeStatus};
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

impl From<NodeCondition> for wire::Condition {
    fn from(c: NodeCondition) -> Self {
        Self { r#type: c.kind, is_true: c.is_true, reason: c.reason, message: c.message }
    }
}

impl From<wire::Condition> for NodeCondition {
    fn from(c: wire::Condition) -> Self {
        Self { kind: c.r#type, is_true: c.is_true, reason: c.reason, message: c.message }
    }
}

impl From<NodeCap> for wire::NodeCap {
    fn from(c: NodeCap) -> Self {
        Self { cpu_millis: c.cpu_millis, memory_bytes: c.memory_bytes, pids: c.pids }
    }
}

impl From<wire::NodeCap> for NodeCap {
    fn from(c: wire::NodeCap) -> Self {
        Self { cpu_millis: c.cpu_millis, memory_bytes: c.memory_bytes, pids: c.pids }
    }
}

impl From<NodeLoad> for wire::NodeUsage {
    fn from(l: NodeLoad) -> Self {
        Self {
            memory_used_bytes: l.memory_used_bytes,
            memory_available_bytes: l.memory_available_bytes,
            load1_milli: l.load1_milli,
            disk_free_bytes: l.disk_free_bytes,
            clock_offset_ms: l.clock_offset_ms,
            pressure: l.pressure.map(Into::into),
            disk_inodes_free: l.disk_inodes_free,
        }
    }
}

impl From<wire::NodeUsage> for NodeLoad {
    fn from(u: wire::NodeUsage) -> Self {
        Self {
            memory_used_bytes: u.memory_used_bytes,
            memory_available_bytes: u.memory_available_bytes,
            load1_milli: u.load1_milli,
            disk_free_bytes: u.disk_free_bytes,
            clock_offset_ms: u.clock_offset_ms,
            pressure: u.pressure.map(Into::into),
            disk_inodes_free: u.disk_inodes_free,
        }
    }
}

impl From<NodeStatus> for wire::NodeStatus {
    fn from(s: NodeStatus) -> Self {
        let (pressures, conditions): (Vec<_>, Vec<_>) =
            s.conditions.into_iter().partition(NodeCondition::is_bad_when_true);
        Self {
            facts: Some(s.facts.into()),
            cpu_allocatable_millis: s.capacity.cpu_allocatable_millis,
            memory_allocatable_bytes: s.capacity.memory_allocatable_bytes,
            sandboxes_max: s.capacity.sandboxes_max,
            images: s.images.into_iter().map(Into::into).collect(),
            conditions: conditions.into_iter().map(Into::into).collect(),
            usage: Some(s.load.into()),
            pressures: pressures.into_iter().map(Into::into).collect(),
            cap: s.cap.map(Into::into),
            abilities: s.abilities.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::NodeStatus> for NodeStatus {
    type Error = InvalidMessage;

    fn try_from(s: wire::NodeStatus) -> Result<Self, InvalidMessage> {
        Ok(Self {
            facts: require("facts", s.facts)?.into(),
            capacity: NodeCapacity {
                cpu_allocatable_millis: s.cpu_allocatable_millis,
                memory_allocatable_bytes: s.memory_allocatable_bytes,
                sandboxes_max: s.sandboxes_max,
            },
            images: s.images.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            conditions: s.conditions.into_iter().chain(s.pressures).map(Into::into).collect(),
            load: require("usage", s.usage)?.into(),
            cap: s.cap.map(Into::into),
            abilities: s.abilities.into_iter().map(Into::into).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ImageInfo, Pressure, Stall};

    fn condition(kind: &str) -> NodeCondition {
        NodeCondition { kind: kind.into(), is_true: true, reason: "ok".into(), message: String::new() }
    }

    #[test]
    fn what_is_bad_when_true_never_stands_where_an_older_central_reads_true_as_good() {
        let conditions = vec![condition("DiskPressure"), condition(NodeCondition::CLOCK_SKEW)];
        let message = wire::NodeStatus::from(NodeStatus { conditions, ..NodeStatus::default() });
        assert!(message.conditions.is_empty());
        let kinds: Vec<_> = message.pressures.iter().map(|condition| condition.r#type.as_str()).collect();
        assert_eq!(kinds, ["DiskPressure", "ClockSkew"]);
    }

    #[test]
    fn a_status_survives_the_wire() {
        let stall = Stall { some_avg10_ppm: 7, full_avg10_ppm: Some(0) };
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
            conditions: vec![condition("ContainerdReady"), condition("DiskPressure")],
            load: NodeLoad {
                memory_used_bytes: 1,
                memory_available_bytes: 2,
                load1_milli: 3,
                disk_free_bytes: 4,
                clock_offset_ms: Some(-5),
                disk_inodes_free: Some(5),
                pressure: Some(Pressure { io: Some(stall), ..Pressure::default() }),
            },
            abilities: vec![Ability {
                name: "runtime/crun".into(),
                is_usable: false,
                reason: "needs cgroup v2".into(),
                detail: "1.8".into(),
            }],
            cap: Some(NodeCap { cpu_millis: 1, memory_bytes: 2, pids: 3 }),
        };
        assert_eq!(NodeStatus::try_from(wire::NodeStatus::from(status.clone())), Ok(status));
    }
}
