//! Where images come from: an archive, or a registry.

use std::fmt;

use bytes::Bytes;
use futures::stream::BoxStream;
use roost_proto::model::ImageRef;

use super::digest::Digest;
use super::document::Documents;
use super::error::ImageError;

/// Size of the pieces in which blobs move, in bytes: large enough that calls
/// cost nothing beside copying, small against the memory of a daemon.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The bytes of one blob in order, in pieces of at most [`CHUNK_BYTES`].
pub type BlobStream = BoxStream<'static, Result<Bytes, ImageError>>;

/// A blob as a manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// What it must hash to.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size_bytes: u64,
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blob {} ({} bytes)", self.digest, self.size_bytes)
    }
}

/// What a source found: one image for this platform.
#[derive(Debug, Clone)]
pub struct Found {
    /// Under which name the image is to be stored.
    pub reference: ImageRef,
    /// Its manifest and configuration, checked.
    pub documents: Documents,
}

/// One image, found and ready to be read. A source need not check what it
/// yields: the import does, the same for all of them.
pub trait Source: Send + Sync {
    /// The image.
    fn found(&self) -> &Found;

    /// Opens one layer of the image, from a byte on. Ends early or yields an
    /// error if the bytes cannot be had.
    ///
    /// # Errors
    /// That the source does not have the blob.
    fn open(&self, blob: &Blob, offset_bytes: u64) -> impl Future<Output = Result<BlobStream, ImageError>> + Send;

    /// Layers that are worth reading at the same time.
    fn layers_at_once(&self) -> usize {
        1
    }

    /// Whether what a failed import has got should be kept for the next try,
    /// because it is dear to get.
    fn is_resumable(&self) -> bool {
        false
    }

    /// Hears that a blob was not what its digest says; true if it can now be
    /// had from elsewhere.
    fn distrust(&self, _blob: &Blob) -> bool {
        false
    }
}
