//! Where the files of volumes lie. Pure.

use std::path::{Path, PathBuf};

use super::VolumeKey;
use crate::storage::Place;

/// The parent of all volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumesDir(PathBuf);

/// The directory of one volume, wherever it lies now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeDir(PathBuf);

impl VolumesDir {
    /// Volumes below `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Of all volumes of a tenant.
    pub(super) fn tenant(&self, key: &VolumeKey) -> PathBuf {
        self.0.join(key.tenant.as_str())
    }

    /// The place of a volume.
    pub(super) fn volume(&self, key: &VolumeKey) -> VolumeDir {
        VolumeDir(self.tenant(key).join(key.name.as_str()))
    }

    /// Volumes that are being made. No tenant has such a name.
    pub(super) fn new_ones(&self) -> PathBuf {
        self.0.join(".new")
    }

    /// Volumes that are being removed.
    pub(super) fn removed(&self) -> PathBuf {
        self.0.join(".removed")
    }
}

impl VolumeDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What the volume is.
    pub(super) fn record(&self) -> PathBuf {
        self.0.join("volume.json")
    }

    /// What bounds it.
    pub(super) fn place(&self) -> Place {
        Place { dir: self.0.join("disk"), image: self.0.join("disk.img") }
    }

    /// What sandboxes see.
    pub(super) fn home(&self) -> PathBuf {
        self.0.join("disk").join("home")
    }
}
