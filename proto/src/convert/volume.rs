//! Volumes.

use super::{InvalidMessage, WireEnum, parse, wire_enum};
use crate::model::{Checkpoint, Volume, VolumeAttachment, VolumeMount, VolumePhase, VolumeUsage};
use crate::{node, types as wire};

wire_enum!(VolumePhase, node::VolumePhase, "phase", {
    Available <=> Available, Attached <=> Attached, Deleting <=> Deleting, Lost <=> Lost,
});

impl From<VolumeMount> for wire::VolumeMount {
    fn from(m: VolumeMount) -> Self {
        Self { name: m.name.into(), path: m.path, read_only: m.read_only }
    }
}

/// Reads the volumes of a sandbox; `path` is the prefix of the field names.
pub(super) fn mounts(path: &str, mounts: Vec<wire::VolumeMount>) -> Result<Vec<VolumeMount>, InvalidMessage> {
    let read = |(index, m): (usize, wire::VolumeMount)| {
        let name = parse(&format!("{path}volumes[{index}].name"), &m.name)?;
        Ok(VolumeMount { name, path: m.path, read_only: m.read_only })
    };
    mounts.into_iter().enumerate().map(read).collect()
}

impl From<VolumeUsage> for node::VolumeUsage {
    fn from(u: VolumeUsage) -> Self {
        Self {
            used_bytes: u.used_bytes,
            limit_bytes: u.limit_bytes,
            inodes_used: u.inodes_used,
            inodes_limit: u.inodes_limit,
        }
    }
}

impl From<node::VolumeUsage> for VolumeUsage {
    fn from(u: node::VolumeUsage) -> Self {
        Self {
            used_bytes: u.used_bytes,
            limit_bytes: u.limit_bytes,
            inodes_used: u.inodes_used,
            inodes_limit: u.inodes_limit,
        }
    }
}

impl From<VolumeAttachment> for node::VolumeAttachment {
    fn from(a: VolumeAttachment) -> Self {
        Self { sandbox_id: a.sandbox_id.into(), path: a.path, read_only: a.read_only }
    }
}

impl TryFrom<node::VolumeAttachment> for VolumeAttachment {
    type Error = InvalidMessage;

    fn try_from(a: node::VolumeAttachment) -> Result<Self, InvalidMessage> {
        let sandbox_id = parse("attachments.sandbox_id", &a.sandbox_id)?;
        Ok(Self { sandbox_id, path: a.path, read_only: a.read_only })
    }
}

impl From<Volume> for node::Volume {
    fn from(v: Volume) -> Self {
        Self {
            tenant: v.tenant.into(),
            name: v.name.into(),
            size_bytes: v.size_bytes,
            limit_by: v.limit_by,
            created_at_unix_ms: v.created_at_unix_ms,
            phase: v.phase.to_wire(),
            usage: v.usage.map(Into::into),
            attachments: v.attachments.into_iter().map(Into::into).collect(),
            conditions: v.conditions.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<node::Volume> for Volume {
    type Error = InvalidMessage;

    fn try_from(v: node::Volume) -> Result<Self, InvalidMessage> {
        Ok(Self {
            tenant: parse("tenant", &v.tenant)?,
            name: parse("name", &v.name)?,
            size_bytes: v.size_bytes,
            limit_by: v.limit_by,
            created_at_unix_ms: v.created_at_unix_ms,
            phase: VolumePhase::from_wire(v.phase)?,
            usage: v.usage.map(Into::into),
            attachments: v.attachments.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            conditions: v.conditions.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<Checkpoint> for node::Checkpoint {
    fn from(c: Checkpoint) -> Self {
        Self {
            id: c.id.into(),
            tenant: c.tenant.into(),
            volume: c.volume.into(),
            created_at_unix_ms: c.created_at_unix_ms,
            size_bytes: c.size_bytes,
            entries: c.entries,
            content_bytes: c.content_bytes,
            moved_bytes: c.moved_bytes,
            stored_bytes: c.stored_bytes,
            frozen_us: c.frozen_us,
        }
    }
}

impl TryFrom<node::Checkpoint> for Checkpoint {
    type Error = InvalidMessage;

    fn try_from(c: node::Checkpoint) -> Result<Self, InvalidMessage> {
        Ok(Self {
            id: parse("id", &c.id)?,
            tenant: parse("tenant", &c.tenant)?,
            volume: parse("volume", &c.volume)?,
            created_at_unix_ms: c.created_at_unix_ms,
            size_bytes: c.size_bytes,
            entries: c.entries,
            content_bytes: c.content_bytes,
            moved_bytes: c.moved_bytes,
            stored_bytes: c.stored_bytes,
            frozen_us: c.frozen_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SandboxId;

    #[test]
    fn a_volume_survives_the_wire() {
        let volume = Volume {
            tenant: "local".parse().unwrap(),
            name: "home".parse().unwrap(),
            size_bytes: 1,
            limit_by: "loop".into(),
            created_at_unix_ms: 2,
            phase: VolumePhase::Attached,
            usage: Some(VolumeUsage { used_bytes: 3, limit_bytes: 4, inodes_used: 5, inodes_limit: 6 }),
            attachments: vec![VolumeAttachment {
                sandbox_id: SandboxId::random(),
                path: "/home/agent".into(),
                read_only: true,
            }],
            conditions: vec![],
        };
        assert_eq!(Volume::try_from(node::Volume::from(volume.clone())), Ok(volume));
    }

    #[test]
    fn a_mount_names_the_field_that_is_wrong() {
        let wrong = wire::VolumeMount { name: "../x".into(), path: "/x".into(), read_only: false };
        let error = mounts("binding.", vec![wrong]).unwrap_err();
        assert_eq!(error.0[0].field, "binding.volumes[0].name");
    }
}
