//! Tar archives as a source of images: OCI image layouts, and what
//! `docker save` writes.
//!
//! The archive lies in a file; blobs are read from where they lie in it, and
//! nothing is ever extracted. When both forms are in one archive (docker
//! writes such), the OCI layout is taken: it names digests.

mod docker;
mod entries;
mod oci;
pub mod write;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use roost_proto::model::ImageRef;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

use self::entries::{Entries, Extent};
use super::digest::Digest;
use super::document::{MAX_DOCUMENT_BYTES, Platform};
use super::error::ImageError;
use super::progress::Progress;
use super::select::SelectError;
use super::source::{Blob, BlobStream, CHUNK_BYTES, Found, Source};
use super::spool::{SpoolConfig, receive};

/// Pieces read ahead of who takes them: one to hold, one to fill.
const READ_AHEAD: usize = 2;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No tar at all, or cut off inside a header.
    #[error("this is not a tar archive, or it is cut off: send what \"docker save\" or an OCI exporter wrote")]
    NotTar(#[source] io::Error),
    /// The whole archive is packed.
    #[error("the archive is packed with {format}: unpack it first with {tool}")]
    Packed {
        /// How.
        format: &'static str,
        /// What unpacks it.
        tool: &'static str,
    },
    /// A tar, but of something else.
    #[error("the archive holds no image: it has neither oci-layout with index.json nor manifest.json")]
    NoImage,
    /// An entry that has no place in an image archive.
    #[error("the archive's entry \"{path}\": {problem}")]
    Entry {
        /// Its path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Something that is named is not there.
    #[error("the archive lacks {path}, which its {named_by} names: it is incomplete, save the image again")]
    Missing {
        /// What is not there.
        path: String,
        /// Where it is named.
        named_by: &'static str,
    },
    /// A document of the archive cannot be parsed.
    #[error("the archive's {path} cannot be read")]
    Json {
        /// Which.
        path: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// No image could be chosen.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The spooled file cannot be read.
    #[error("cannot read the spooled archive")]
    Io(#[source] io::Error),
}

impl From<SelectError> for ImageError {
    fn from(error: SelectError) -> Self {
        Self::Archive(ArchiveError::Select(error))
    }
}

/// What reading an archive's documents brought.
struct Resolved {
    found: Found,
    /// Where each layer lies.
    layers: HashMap<Digest, Extent>,
}

/// An archive in a file, with one of its images found.
#[derive(Debug)]
pub struct TarArchive {
    file: Arc<File>,
    found: Found,
    layers: HashMap<Digest, Extent>,
}

impl TarArchive {
    /// Receives an archive into a file and opens it. `wanted` chooses among
    /// several images and is the name to store it under; without it the
    /// archive's own name is taken.
    ///
    /// # Errors
    /// The stream, the disk, or the archive: see [`ImageError`].
    pub async fn receive<E>(
        stream: impl Stream<Item = Result<Bytes, E>> + Send,
        expected_bytes: Option<u64>,
        wanted: Option<ImageRef>,
        config: &SpoolConfig,
        progress: &Progress,
    ) -> Result<Self, ImageError>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let file = receive(stream, expected_bytes, config, progress).await?;
        Self::open(file, wanted, Platform::host()).await
    }

    /// Opens an archive that lies in a file already.
    ///
    /// # Errors
    /// The archive or its documents: see [`ImageError`].
    pub async fn open(file: File, wanted: Option<ImageRef>, platform: Platform) -> Result<Self, ImageError> {
        let opened = spawn_blocking(move || Self::open_blocking(file, wanted.as_ref(), &platform)).await;
        opened.map_err(|source| ArchiveError::Io(io::Error::other(source)))?
    }

    fn open_blocking(file: File, wanted: Option<&ImageRef>, platform: &Platform) -> Result<Self, ImageError> {
        let entries = Entries::read(&file)?;
        let reader = Reader { file: &file, entries: &entries };
        let resolved = if reader.find("oci-layout").is_some() && reader.find("index.json").is_some() {
            oci::resolve(&reader, wanted, platform)?
        } else if reader.find("manifest.json").is_some() {
            docker::resolve(&reader, wanted, platform)?
        } else {
            return Err(ArchiveError::NoImage.into());
        };
        Ok(Self { file: Arc::new(file), found: resolved.found, layers: resolved.layers })
    }
}

impl Source for TarArchive {
    fn found(&self) -> &Found {
        &self.found
    }

    async fn open(&self, blob: &Blob, offset_bytes: u64) -> Result<BlobStream, ImageError> {
        let extent = self.layers.get(&blob.digest).copied();
        let missing = || ArchiveError::Missing { path: blob.to_string(), named_by: "image manifest" };
        let Extent { offset, size_bytes } = extent.ok_or_else(missing)?;
        let skipped = offset_bytes.min(size_bytes);
        let rest = Extent { offset: offset + skipped, size_bytes: size_bytes - skipped };
        Ok(read_ahead(Arc::clone(&self.file), rest))
    }
}

/// Reads an extent on a thread of its own. The thread ends with the extent,
/// with an error, or soon after the stream is dropped.
fn read_ahead(file: Arc<File>, extent: Extent) -> BlobStream {
    let (piece_tx, piece_rx) = mpsc::channel(READ_AHEAD);
    spawn_blocking(move || {
        for piece in extent.pieces() {
            let read = piece.read(&file).map(Bytes::from).map_err(|e| ArchiveError::Io(e).into());
            let is_last = read.is_err();
            if piece_tx.blocking_send(read).is_err() || is_last {
                break;
            }
        }
    });
    ReceiverStream::new(piece_rx).boxed()
}

impl Extent {
    /// The extent in pieces of [`CHUNK_BYTES`], the last one shorter.
    fn pieces(self) -> impl Iterator<Item = Self> {
        let end = self.offset + self.size_bytes;
        (self.offset..end)
            .step_by(CHUNK_BYTES)
            .map(move |offset| Self { offset, size_bytes: (end - offset).min(CHUNK_BYTES as u64) })
    }

    /// Reads the whole extent into memory: for pieces and documents.
    fn read(self, file: &File) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.size_bytes).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// The parts of an archive by their paths.
struct Reader<'a> {
    file: &'a File,
    entries: &'a Entries,
}

impl Reader<'_> {
    fn find(&self, path: &str) -> Option<Extent> {
        self.entries.find(path)
    }

    /// The extent of something that must be there.
    fn expect(&self, path: &str, named_by: &'static str) -> Result<Extent, ArchiveError> {
        self.find(path).ok_or_else(|| ArchiveError::Missing { path: path.to_owned(), named_by })
    }

    /// The bytes of a document that must be there.
    fn document(&self, path: &str, named_by: &'static str) -> Result<Vec<u8>, ArchiveError> {
        let extent = self.expect(path, named_by)?;
        if extent.size_bytes > MAX_DOCUMENT_BYTES {
            let problem = "larger than the 4 MiB that a document of an image may have";
            return Err(ArchiveError::Entry { path: path.to_owned(), problem });
        }
        extent.read(self.file).map_err(ArchiveError::Io)
    }
}
