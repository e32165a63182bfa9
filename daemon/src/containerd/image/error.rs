//! Why an image cannot be imported, found or removed.

use roost_proto::model::ImageRef;

use super::archive::ArchiveError;
use super::document::DocumentError;
use super::spool::SpoolError;
use crate::containerd::error::Error;

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
    /// What was read is not what a digest or size promises.
    #[error("{object} is damaged: {problem}; make or fetch the image again")]
    Damaged {
        /// Which blob, e.g. `layer 2 (sha256:…)`.
        object: String,
        /// What it is and what it should be.
        problem: String,
    },
    /// A layer could not be made a snapshot.
    #[error("{layer} cannot be unpacked: it is not a tar of the kind that its media type says, or the disk is full")]
    Unpack {
        /// Which layer.
        layer: String,
        /// containerd's words.
        #[source]
        source: Box<Error>,
    },
    /// No such image, or not unpacked for this snapshotter.
    #[error("image {reference} is not on this node: import it first")]
    NotFound {
        /// What was asked for.
        reference: ImageRef,
    },
    /// Sandboxes use it.
    #[error("image {reference} is used by {users} sandboxes of this node: delete them first")]
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
