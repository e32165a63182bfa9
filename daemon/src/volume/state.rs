//! What is shown of a volume.

use roost_proto::model::{NodeCondition, Volume, VolumePhase, VolumeUsage};

use super::Homes;
use super::table::Standing;
use crate::host;
use crate::storage::Held;

/// A volume with less room than so many thousandths counts as full: what a
/// file system keeps for itself is not counted exactly.
const FULL_PER_MILLE: u64 = 5;

impl Homes {
    /// A volume as it is shown. Blocking.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn show(&self, standing: Standing) -> Result<Volume, host::Error> {
        let Standing { record, is_lost, attachments, .. } = standing;
        let phase = match (record.deleting, is_lost, attachments.is_empty()) {
            (true, ..) => VolumePhase::Deleting,
            (_, true, _) => VolumePhase::Lost,
            (_, _, false) => VolumePhase::Attached,
            _ => VolumePhase::Available,
        };
        let held = match phase {
            VolumePhase::Lost => None,
            _ => self.storage.held(&self.dir.volume(&record.key()).place())?,
        };
        let usage = held.map(|held| usage(&held));
        let conditions = held.and_then(|held| full(record.name.as_str(), &held)).into_iter().collect();
        Ok(Volume {
            limit_by: record.limited_by.as_str().into(),
            tenant: record.tenant,
            name: record.name,
            size_bytes: record.size_bytes,
            created_at_unix_ms: record.created_at_unix_ms,
            phase,
            usage,
            attachments,
            conditions,
        })
    }
}

fn usage(held: &Held) -> VolumeUsage {
    VolumeUsage {
        used_bytes: held.used_bytes,
        limit_bytes: held.limit_bytes,
        inodes_used: held.inodes_used,
        inodes_limit: held.inodes_limit,
    }
}

/// What has no room any more, if it is so.
fn full(name: &str, held: &Held) -> Option<NodeCondition> {
    let is_short = |free: u64, of: u64| of > 0 && free <= of / 1000 * FULL_PER_MILLE;
    let what = if is_short(held.free_bytes, held.limit_bytes) {
        format!("{} of {} bytes are used", held.used_bytes, held.limit_bytes)
    } else if is_short(held.inodes_limit.saturating_sub(held.inodes_used), held.inodes_limit) {
        format!("{} of {} files exist", held.inodes_used, held.inodes_limit)
    } else {
        return None;
    };
    Some(NodeCondition {
        kind: "VolumeFull".into(),
        is_true: true,
        reason: "no-space".into(),
        message: format!("volume {name} is full, {what}: remove files, or `roost volume resize {name}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_without_room_for_bytes_or_files_is_full_and_says_so_by_name() {
        let room = Held {
            used_bytes: 50 << 20,
            limit_bytes: 100 << 20,
            disk_bytes: 0,
            free_bytes: 40 << 20,
            inodes_used: 10,
            inodes_limit: 1000,
        };
        assert_eq!(full("home", &room), None);
        let message = full("home", &Held { free_bytes: 4096, ..room }).unwrap().message;
        assert!(message.contains("volume home") && message.contains("roost volume resize home"), "{message}");
        assert!(full("home", &Held { inodes_used: 1000, ..room }).unwrap().message.contains("1000 files"));
        assert_eq!(full("home", &Held { inodes_used: 1000, inodes_limit: 0, ..room }), None, "not limited");
    }
}
