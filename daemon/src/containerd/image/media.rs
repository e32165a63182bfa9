//! Media types of both families, OCI's and docker's.

use oci_spec::image::MediaType;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// What a registry may answer when it is asked for an image.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    DOCKER_INDEX,
    DOCKER_MANIFEST,
];

/// What a descriptor in an index points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// Another index.
    Index,
    /// The manifest of one image.
    Manifest,
}

/// Tells indexes and manifests, of either family, from everything else.
#[must_use]
pub fn target_kind(media_type: &MediaType) -> Option<TargetKind> {
    match media_type {
        MediaType::ImageIndex => Some(TargetKind::Index),
        MediaType::ImageManifest => Some(TargetKind::Manifest),
        MediaType::Other(other) if other == DOCKER_INDEX => Some(TargetKind::Index),
        MediaType::Other(other) if other == DOCKER_MANIFEST => Some(TargetKind::Manifest),
        _ => None,
    }
}

/// Whether this is the configuration of a container image.
#[must_use]
pub fn is_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageConfig || media_type.as_ref() == DOCKER_CONFIG
}

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Packing {
    /// The packing that a layer's media type says, of either family.
    #[must_use]
    pub fn of_media_type(media_type: &MediaType) -> Option<Self> {
        match media_type {
            MediaType::ImageLayer => Some(Self::Plain),
            MediaType::ImageLayerGzip => Some(Self::Gzip),
            MediaType::ImageLayerZstd => Some(Self::Zstd),
            MediaType::Other(other) => match other.strip_prefix(DOCKER_LAYER)? {
                "" => Some(Self::Plain),
                ".gzip" => Some(Self::Gzip),
                ".zstd" => Some(Self::Zstd),
                _ => None,
            },
            _ => None,
        }
    }

    /// The packing that the first bytes of a layer show.
    #[must_use]
    pub fn of_first_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// The OCI media type of such a layer: every containerd knows these.
    #[must_use]
    pub fn media_type(self) -> MediaType {
        match self {
            Self::Plain => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_indexes_and_manifests_are_told_apart() {
        let kind = |text: &str| target_kind(&MediaType::from(text));
        assert_eq!(kind("application/vnd.oci.image.index.v1+json"), Some(TargetKind::Index));
        assert_eq!(kind(DOCKER_INDEX), Some(TargetKind::Index));
        assert_eq!(kind("application/vnd.oci.image.manifest.v1+json"), Some(TargetKind::Manifest));
        assert_eq!(kind(DOCKER_MANIFEST), Some(TargetKind::Manifest));
        assert_eq!(kind("application/json"), None);
    }

    #[test]
    fn layers_of_both_families_are_known_and_foreign_ones_are_not() {
        let packing = |text: &str| Packing::of_media_type(&MediaType::from(text));
        assert_eq!(packing("application/vnd.oci.image.layer.v1.tar"), Some(Packing::Plain));
        assert_eq!(packing("application/vnd.oci.image.layer.v1.tar+zstd"), Some(Packing::Zstd));
        assert_eq!(packing("application/vnd.docker.image.rootfs.diff.tar"), Some(Packing::Plain));
        assert_eq!(packing("application/vnd.docker.image.rootfs.diff.tar.gzip"), Some(Packing::Gzip));
        assert_eq!(packing("application/vnd.docker.image.rootfs.diff.tar.xz"), None);
        assert_eq!(packing("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), None);
        assert_eq!(packing("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"), None);
    }

    #[test]
    fn first_bytes_tell_the_packing() {
        assert_eq!(Packing::of_first_bytes(&[0x1f, 0x8b, 8]), Packing::Gzip);
        assert_eq!(Packing::of_first_bytes(&[0x28, 0xb5, 0x2f, 0xfd]), Packing::Zstd);
        assert_eq!(Packing::of_first_bytes(b"etc/"), Packing::Plain);
        assert_eq!(Packing::of_first_bytes(&[]), Packing::Plain);
    }
}
