//! Images: imported from a source, listed, resolved for a start, removed.
//!
//! One pipeline for every source, see `image/ingest.rs`. What is pure (digests,
//! documents, choice among several) lies apart from what reads and calls.
//! This owns containerd's image records, blobs and committed snapshots; it
//! makes no container and mounts nothing.

pub mod archive;
pub mod digest;
pub mod document;
pub mod error;
mod ingest;
pub mod media;
pub mod progress;
mod record;
pub mod select;
pub mod source;
pub mod spool;
mod unpack;
mod verify;

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use futures::Stream;
use jiff::Timestamp;
use prost_types::FieldMask;
use roost_proto::model::{ImageInfo, ImageRef};

pub use self::archive::TarArchive;
pub use self::digest::Digest;
pub use self::document::ImageConfig;
pub use self::error::ImageError;
pub use self::progress::{Position, Progress, Step};
pub use self::source::Source;
pub use self::spool::SpoolConfig;

use self::document::{Document, MAX_DOCUMENT_BYTES, Manifest, Platform};
use super::client::Client;
use super::content;
use super::error::Error;
use super::lease;

/// The snapshotter that every containerd on Linux has.
pub const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// Longest removal: containerd collects garbage before it answers.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(120);
/// Tries to write a record that others create and delete at the same time.
const PUBLISH_TRIES: usize = 5;

/// The images of one containerd namespace on one snapshotter; cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    client: Client,
    snapshotter: String,
}

/// An image with what a container needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Name, digest, size, age.
    pub info: ImageInfo,
    /// Snapshot of each layer, lowest first.
    pub chain_ids: Vec<Digest>,
    /// The highest snapshot: parent of a container's root.
    pub chain_id: Digest,
    /// What the image says about programs.
    pub config: ImageConfig,
}

impl Images {
    /// Images on a snapshotter, see [`DEFAULT_SNAPSHOTTER`].
    #[must_use]
    pub fn new(client: Client, snapshotter: impl Into<String>) -> Self {
        Self { client, snapshotter: snapshotter.into() }
    }

    /// The snapshotter whose snapshots [`ResolvedImage::chain_ids`] name.
    #[must_use]
    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// Receives an archive and imports it. `reference` chooses among several
    /// images of the archive and is the name to store it under; without it
    /// the archive's own name is taken. Dropping the future undoes what was
    /// done so far.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn import_archive<E>(
        &self,
        stream: impl Stream<Item = Result<Bytes, E>> + Send,
        expected_bytes: Option<u64>,
        reference: Option<ImageRef>,
        spool: &SpoolConfig,
        progress: &Progress,
    ) -> Result<ImageInfo, ImageError>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let archive = TarArchive::receive(stream, expected_bytes, reference, spool, progress).await?;
        self.import(&archive, progress).await
    }

    /// Imports what a source found, under the name that it gives. An image of
    /// that name is replaced when the new one is whole; sandboxes of the old
    /// one keep running. Importing the same again, also at the same time, is
    /// no error. Dropping the future undoes what was done so far.
    ///
    /// # Errors
    /// The source, a damaged blob or layer, or containerd.
    pub async fn import<S: Source>(&self, source: &S, progress: &Progress) -> Result<ImageInfo, ImageError> {
        let found = source.found();
        let now_unix_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let digest = found.documents.manifest.blob().digest.to_string();
        let info = ImageInfo::new(found.reference.clone(), digest, found.documents.size_bytes(), now_unix_ms);
        let record = record::make(&info, &found.documents, &self.snapshotter);
        let publish = async |_: &_| self.publish(record).await;
        ingest::ingest(&self.client, &self.snapshotter, source, progress, publish).await?;
        tracing::info!(image = %info.reference, digest = info.digest, size_bytes = info.size_bytes, "image imported");
        Ok(info)
    }

    /// The images that are whole and unpacked, by name.
    ///
    /// # Errors
    /// That containerd fails.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let answer = self.client.images().list(self.client.request(ListImagesRequest::default())).await;
        let images = answer.map_err(Error::of("list images", "images"))?.into_inner().images;
        let mut infos: Vec<_> = images.iter().filter_map(|image| record::info(image, &self.snapshotter)).collect();
        infos.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(infos)
    }

    /// One image, ready for a container.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] if it was not imported or its snapshots are
    /// gone; else containerd's failure.
    pub async fn get(&self, reference: &ImageRef) -> Result<ResolvedImage, ImageError> {
        let not_found = || ImageError::NotFound { reference: reference.clone() };
        self.resolve(reference).await.map_err(|error| match error {
            ImageError::Containerd(error) if error.is_not_found() => not_found(),
            error => error,
        })
    }

    /// Removes an image and, before it returns, the blobs and snapshots that
    /// nothing else uses. `users` is how many sandboxes the caller knows to
    /// use it.
    ///
    /// # Errors
    /// [`ImageError::InUse`] if there are users, [`ImageError::NotFound`], or
    /// containerd's failure.
    pub async fn remove(&self, reference: &ImageRef, users: usize) -> Result<(), ImageError> {
        if users > 0 {
            return Err(ImageError::InUse { reference: reference.clone(), users });
        }
        let message = DeleteImageRequest { name: reference.to_string(), sync: true, target: None };
        let answer = self.client.images().delete(self.client.request_within(message, REMOVE_TIMEOUT)).await;
        match answer.map_err(Error::of("remove image", format!("image {reference}"))) {
            Ok(_) => {
                tracing::info!(image = %reference, "image removed");
                Ok(())
            }
            Err(error) if error.is_not_found() => Err(ImageError::NotFound { reference: reference.clone() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of what imports of a killed predecessor hold: to be called at
    /// the start, before any import. Returns how many there were.
    ///
    /// # Errors
    /// That containerd fails.
    pub async fn forget_broken_imports(&self) -> Result<usize, ImageError> {
        Ok(lease::delete_stale(&self.client, ingest::LEASE_PURPOSE).await?)
    }

    async fn resolve(&self, reference: &ImageRef) -> Result<ResolvedImage, ImageError> {
        let object = format!("image {reference}");
        let not_found = |operation| Error::NotFound { operation, object: object.clone() };
        let message = GetImageRequest { name: reference.to_string() };
        let answer = self.client.images().get(self.client.request(message)).await;
        let image = answer.map_err(Error::of("get image", &*object))?.into_inner().image;
        let image = image.ok_or_else(|| not_found("get image"))?;
        let info = record::info(&image, &self.snapshotter).ok_or_else(|| not_found("read image record"))?;
        let media_type = image.target.as_ref().map_or("", |target| &target.media_type).into();
        let bytes = content::read(&self.client, &info.digest, MAX_DOCUMENT_BYTES).await?;
        let manifest = Manifest::parse(Document { media_type, bytes })?;
        let config = content::read(&self.client, &manifest.config().digest.to_string(), MAX_DOCUMENT_BYTES).await?;
        let documents = manifest.with_config(config, &Platform::host())?;
        let chain_ids: Vec<_> = documents.layers.iter().map(|layer| layer.chain_id).collect();
        let chain_id = *chain_ids.last().ok_or_else(|| not_found("find snapshot"))?;
        if !unpack::snapshot_exists(&self.client, &self.snapshotter, &chain_id.to_string()).await? {
            return Err(not_found("find snapshot").into());
        }
        Ok(ResolvedImage { info, chain_ids, chain_id, config: documents.image_config })
    }

    /// Writes the image record, over one of the same name.
    async fn publish(&self, record: Image) -> Result<(), ImageError> {
        let object = format!("image {}", record.name);
        let mut last = None;
        for _ in 0..PUBLISH_TRIES {
            let message = CreateImageRequest { image: Some(record.clone()), source_date_epoch: None };
            let created = self.client.images().create(self.client.request(message)).await;
            match created.map_err(Error::of("create image", &*object)) {
                Err(error) if error.is_already_exists() => {}
                result => return Ok(result.map(|_| ())?),
            }
            let update_mask = Some(FieldMask { paths: vec!["target".to_owned(), "labels".to_owned()] });
            let message = UpdateImageRequest { image: Some(record.clone()), update_mask, source_date_epoch: None };
            let updated = self.client.images().update(self.client.request(message)).await;
            match updated.map_err(Error::of("update image", &*object)) {
                // Removed in between: it can be created now.
                Err(error) if error.is_not_found() => last = Some(error),
                result => return Ok(result.map(|_| ())?),
            }
        }
        Err(last.unwrap_or(Error::NotFound { operation: "update image", object }).into())
    }
}
