//! Why an image cannot be imported, found or removed.

use roost_proto::model::ImageRef;

use super::archive::ArchiveError;
use super::document::DocumentError;
use super::spool::SpoolError;
use crate::containerd::error::Error;
use crate::registry::RegistryError;

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The archive did not arrive or could not be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The archive is not one that can be imported.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A manifest or configuration breaks a rule.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A layer is not what it should be, or cannot be put on the disk.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The registry does not give it.
    #[error(transparent)]
    Registry(#[from] Box<RegistryError>),
    /// No such image, or not unpacked for this snapshotter.
    #[error("image {reference} is not on this node: pull or import it first")]
    NotFound {
        /// What was asked for.
        reference: ImageRef,
    },
    /// Sandboxes use it.
    #[error("image {reference} is in use (sandboxes of this node: {users}): delete them first")]
    InUse {
        /// What was to be removed.
        reference: ImageRef,
        /// How many.
        users: usize,
    },
    /// containerd failed.
    #[error(transparent)]
    Containerd(#[from] Error),
}

/// Why a layer, or another part of an image, is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// What was read is not what a digest or size promises.
    #[error("{object} is damaged: {problem}; make or fetch the image again")]
    Damaged {
        /// Which blob, e.g. `layer 2 (sha256:…)`.
        object: String,
        /// What it is and what it should be.
        problem: String,
    },
    /// It could not be made a snapshot.
    #[error("{layer} cannot be unpacked: it is not a tar of the kind that its media type says")]
    Unpack {
        /// Which layer.
        layer: String,
        /// containerd's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something in it that no image needs.
    #[error("{layer} is refused: its entry \"{path}\" {problem}")]
    Hostile {
        /// Which layer.
        layer: String,
        /// The entry.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Larger than this node takes.
    #[error("{layer} is refused: with it the image has more than {max} {unit}; {field} of this node sets that limit")]
    TooLarge {
        /// Which layer.
        layer: String,
        /// The limit.
        max: u64,
        /// Of what: bytes or files.
        unit: &'static str,
        /// The field of the configuration.
        field: &'static str,
    },
    /// The disk is full, or would be.
    #[error("no space for {layer}: remove images (`roost image prune`) or give containerd a larger disk")]
    NoSpace {
        /// Which layer.
        layer: String,
    },
}

impl ImageError {
    /// Whether the same import may succeed later and should go on from where
    /// it stopped.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_transient(),
            Self::Containerd(error) => error.is_unavailable(),
            _ => false,
        }
    }
}
