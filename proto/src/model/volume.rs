//! Volumes: homes that outlive sandboxes.

use serde::{Deserialize, Serialize};

use super::{FieldError, NodeCondition, Validate};
use crate::id::{CheckpointId, SandboxId, TenantId, VolumeName};

/// Most volumes of one sandbox.
const MOUNTS_MAX: usize = 16;
/// Most bytes of a path inside: a fraction of what the kernel takes, as paths
/// are part of a ledger record.
const PATH_MAX_BYTES: usize = 512;
/// Places that are the platform's: neither they nor what is below them.
const PLATFORM: [&str; 6] = ["/proc", "/sys", "/dev", "/run/roost", "/tmp/.X11-unix", "/etc/hosts"];
/// Smallest and largest size, in bytes: a file system of its own takes some
/// mebibytes for itself.
const SIZE_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=64 << 40;

/// A volume, and where a sandbox has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeMount {
    /// Name of the volume; it is of the sandbox's tenant and on its node.
    pub name: VolumeName,
    /// Absolute path inside. A directory that is missing is made; a link on
    /// the way is refused.
    pub path: String,
    /// Whether the sandbox may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// Whether `path` is `dir` or lies below it.
fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl VolumeMount {
    fn problem(&self) -> Option<String> {
        let parts = || self.path.split('/').skip(1);
        let is_plain = self.path.starts_with('/') && parts().all(|part| !matches!(part, "" | "." | ".."));
        if !is_plain || self.path.contains('\0') || self.path.len() > PATH_MAX_BYTES {
            let what = "must be an absolute path without \".\", \"..\" and a slash at the end, of at most";
            return Some(format!("{what} {PATH_MAX_BYTES} bytes"));
        }
        let held = PLATFORM.iter().find(|dir| is_within(&self.path, dir) || is_within(dir, &self.path))?;
        Some(format!("would cover {held}, which is the platform's: choose another path, e.g. /home/agent"))
    }
}

/// Checks the volumes of one sandbox.
pub(super) fn check_mounts(mounts: &[VolumeMount], path: &str, errors: &mut Vec<FieldError>) {
    if mounts.len() > MOUNTS_MAX {
        errors.push(FieldError::new(format!("{path}volumes"), format!("at most {MOUNTS_MAX} are taken")));
    }
    for (index, mount) in mounts.iter().enumerate() {
        let field = |name: &str| format!("{path}volumes[{index}].{name}");
        if let Some(problem) = mount.problem() {
            errors.push(FieldError::new(field("path"), problem));
        }
        for other in &mounts[..index] {
            if other.name == mount.name {
                errors.push(FieldError::new(field("name"), format!("{} is given twice: keep one", mount.name)));
            }
            if is_within(&mount.path, &other.path) || is_within(&other.path, &mount.path) {
                let problem = format!("lies within {}, where volume {} is, or around it", other.path, other.name);
                errors.push(FieldError::new(field("path"), problem));
            }
        }
    }
}

/// Checks a size that somebody wants.
///
/// # Errors
/// The range.
pub fn check_volume_size(size_bytes: u64) -> Result<(), FieldError> {
    if SIZE_BYTES.contains(&size_bytes) {
        return Ok(());
    }
    let problem = format!("{size_bytes} is out of range: use 16 MiB to 64 TiB");
    Err(FieldError::new("size_bytes", problem))
}

/// Where a volume is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VolumePhase {
    /// Nobody has it.
    Available,
    /// A sandbox has it.
    Attached,
    /// It is being removed.
    Deleting,
    /// The ledger knows it, and its directory is not there.
    Lost,
}

impl VolumePhase {
    /// As people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Attached => "Attached",
            Self::Deleting => "Deleting",
            Self::Lost => "Lost",
        }
    }
}

/// What a volume holds and may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeUsage {
    /// In bytes.
    pub used_bytes: u64,
    /// The limit in force, in bytes.
    pub limit_bytes: u64,
    /// Files and directories.
    pub inodes_used: u64,
    /// Most of them; 0 = not limited.
    pub inodes_limit: u64,
}

/// A sandbox that has a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeAttachment {
    /// Which.
    pub sandbox_id: SandboxId,
    /// Where it has it.
    pub path: String,
    /// Whether it may only read it.
    pub read_only: bool,
}

/// A volume and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Who owns it.
    pub tenant: TenantId,
    /// Unique in the tenant on its node.
    pub name: VolumeName,
    /// What it is to hold at most, in bytes.
    pub size_bytes: u64,
    /// What the kernel bounds it by: `project-quota` or `loop`.
    pub limit_by: String,
    /// Unix time, in milliseconds.
    pub created_at_unix_ms: u64,
    /// Where it is in its life.
    pub phase: VolumePhase,
    /// What it holds; absent while it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<VolumeUsage>,
    /// Sandboxes that have it, stopped ones included.
    #[serde(default)]
    pub attachments: Vec<VolumeAttachment>,
    /// E.g. `VolumeFull`.
    #[serde(default)]
    pub conditions: Vec<NodeCondition>,
}

/// A volume at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Which.
    pub id: CheckpointId,
    /// Owner of the volume.
    pub tenant: TenantId,
    /// The volume.
    pub volume: VolumeName,
    /// Unix time, in milliseconds.
    pub created_at_unix_ms: u64,
    /// What the volume was to hold at most, in bytes.
    pub size_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Content of all files without their holes, in bytes.
    pub content_bytes: u64,
    /// Content that was not saved before, in bytes.
    pub moved_bytes: u64,
    /// What that took in the store, packed, in bytes.
    pub stored_bytes: u64,
    /// How long a sandbox stood still, in microseconds; 0 if none wrote.
    pub frozen_us: u64,
}

impl Validate for [VolumeMount] {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        check_mounts(self, path, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(name: &str, path: &str) -> VolumeMount {
        VolumeMount { name: name.parse().unwrap(), path: path.into(), read_only: false }
    }

    fn fields(mounts: &[VolumeMount]) -> Vec<String> {
        mounts.validate().err().unwrap_or_default().into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn a_volume_cannot_cover_what_is_the_platforms() {
        for path in ["/", "/proc", "/proc/1", "/run", "/run/roost/claim", "/tmp", "/dev/shm", "/etc", "/sys/fs"] {
            assert_eq!(fields(&[mount("home", path)]), ["volumes[0].path"], "{path}");
        }
        for path in ["/home/agent", "/data", "/run/user", "/tmp/work", "/etc/app", "/devices"] {
            assert!(fields(&[mount("home", path)]).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_path_that_could_lead_elsewhere_is_refused() {
        for path in
            ["", "home", "/home/../etc", "/home/./a", "/home/", "//home", "/a\0b", &format!("/{}", "x".repeat(600))]
        {
            assert_eq!(fields(&[mount("home", path)]), ["volumes[0].path"], "{path}");
        }
    }

    #[test]
    fn the_same_volume_and_paths_within_each_other_are_refused() {
        assert_eq!(fields(&[mount("a", "/x"), mount("a", "/y")]), ["volumes[1].name"]);
        assert_eq!(fields(&[mount("a", "/x"), mount("b", "/x/y")]), ["volumes[1].path"]);
        assert_eq!(fields(&[mount("a", "/x/y"), mount("b", "/x")]), ["volumes[1].path"]);
        assert!(fields(&[mount("a", "/x"), mount("b", "/xy")]).is_empty());
    }

    #[test]
    fn sizes_have_a_range() {
        assert!(check_volume_size(16 << 20).is_ok() && check_volume_size(1 << 40).is_ok());
        assert!(check_volume_size(0).is_err() && check_volume_size(u64::MAX).is_err());
    }
}
