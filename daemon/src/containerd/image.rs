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
pub mod scan;
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
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use prost_types::FieldMask;
use roost_proto::model::{ImageInfo, ImageRef};

pub use self::archive::TarArchive;
pub use self::digest::Digest;
pub use self::document::ImageConfig;
pub use self::error::{ImageError, LayerError};
pub use self::progress::{Position, Progress, Step};
pub use self::scan::UnpackLimits;
pub use self::source::Source;
pub use self::spool::SpoolConfig;

use self::archive::write::{ArchiveWriter, Part};
use self::document::{Document, Documents, MAX_DOCUMENT_BYTES, Manifest, Platform};
use self::ingest::{BlobLocks, Target};
use self::source::{BlobStream, Found};
use super::client::Client;
use super::content;
use super::error::Error;
use super::lease;
use super::snapshot::DiskUsage;

/// The snapshotter that every containerd on Linux has.
pub const DEFAULT_SNAPSHOTTER: &str = "overlayfs";

/// Longest removal: containerd collects garbage before it answers.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(120);
/// Tries to write a record that others create and delete at the same time.
const PUBLISH_TRIES: usize = 5;

/// The images of one containerd namespace on one snapshotter; cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    target: Target,
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
        let (snapshotter, limits, locks) = (snapshotter.into(), UnpackLimits::default(), BlobLocks::default());
        Self { target: Target { client, snapshotter, limits, locks } }
    }

    /// The same with other limits for what images may hold.
    #[must_use]
    pub fn with_limits(mut self, limits: UnpackLimits) -> Self {
        self.target.limits = limits;
        self
    }

    /// The snapshotter whose snapshots [`ResolvedImage::chain_ids`] name.
    #[must_use]
    pub fn snapshotter(&self) -> &str {
        &self.target.snapshotter
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
        let publish = async |found: &Found| self.publish(found).await;
        ingest::ingest(&self.target, source, progress, publish).await?;
        let info = self.info(&source.found().reference).await?;
        tracing::info!(image = %info.reference, digest = info.digest, size_bytes = info.size_bytes, "image imported");
        Ok(info)
    }

    /// The images that are whole and unpacked, by name.
    ///
    /// # Errors
    /// That containerd fails.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let images = self.records().await?;
        let mut infos: Vec<_> =
            images.iter().filter_map(|image| record::info(image, &self.target.snapshotter)).collect();
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
        let answer =
            self.target.client.images().delete(self.target.client.request_within(message, REMOVE_TIMEOUT)).await;
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
        Ok(lease::delete_stale(&self.target.client, ingest::LEASE_PURPOSE).await?)
    }

    /// What is noted of one image: a single call.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] if the node does not have it, or containerd's
    /// failure.
    pub async fn info(&self, reference: &ImageRef) -> Result<ImageInfo, ImageError> {
        let not_found = || ImageError::NotFound { reference: reference.clone() };
        match self.record(reference).await {
            Ok(image) => record::info(&image, &self.target.snapshotter).ok_or_else(not_found),
            Err(error) if error.is_not_found() => Err(not_found()),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps an image from collection and pruning, or lets it go again.
    ///
    /// # Errors
    /// As [`Images::info`].
    pub async fn set_pinned(&self, reference: &ImageRef, is_pinned: bool) -> Result<ImageInfo, ImageError> {
        self.info(reference).await?;
        let value = if is_pinned { "true" } else { "" };
        self.set_label(reference, record::PINNED, value).await?;
        self.info(reference).await
    }

    /// Notes when an image was used last, for the time after a restart.
    ///
    /// # Errors
    /// containerd's failure.
    pub async fn note_use(&self, reference: &ImageRef, at_unix_ms: u64) -> Result<(), ImageError> {
        Ok(self.set_label(reference, record::LAST_USED, &at_unix_ms.to_string()).await?)
    }

    /// The highest snapshot of every image but one.
    ///
    /// # Errors
    /// That containerd fails.
    pub async fn chains(&self, but: Option<&ImageRef>) -> Result<Vec<String>, ImageError> {
        let mut images = self.records().await?;
        images.retain(|image| but.is_none_or(|but| image.name != but.as_str()));
        let chain = |image: &Image| record::chain_id(image, &self.target.snapshotter).map(str::to_owned);
        Ok(images.iter().filter_map(chain).collect())
    }

    /// How full containerd's disk is; none if it is not seen from here.
    ///
    /// # Errors
    /// That containerd fails.
    pub async fn disk_usage(&self) -> Result<Option<DiskUsage>, ImageError> {
        Ok(self.target.client.disk_usage(&self.target.snapshotter).await?)
    }

    /// An empty value removes the label.
    async fn set_label(&self, reference: &ImageRef, key: &str, value: &str) -> Result<(), Error> {
        let labels = [(key.to_owned(), value.to_owned())].into();
        let image = Image { name: reference.to_string(), labels, ..Image::default() };
        let update_mask = Some(FieldMask { paths: vec![format!("labels.{key}")] });
        let message = UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
        let answer = self.target.client.images().update(self.target.client.request(message)).await;
        answer.map(drop).map_err(Error::of("label image", format!("image {reference}")))
    }

    async fn records(&self) -> Result<Vec<Image>, Error> {
        let answer = self.target.client.images().list(self.target.client.request(ListImagesRequest::default())).await;
        Ok(answer.map_err(Error::of("list images", "images"))?.into_inner().images)
    }

    async fn record(&self, reference: &ImageRef) -> Result<Image, Error> {
        let object = format!("image {reference}");
        let message = GetImageRequest { name: reference.to_string() };
        let answer = self.target.client.images().get(self.target.client.request(message)).await;
        let image = answer.map_err(Error::of("get image", &*object))?.into_inner().image;
        image.ok_or(Error::NotFound { operation: "get image", object })
    }

    /// What the record of a new image says. A pin and the last use of the
    /// image that it replaces stay.
    async fn describe(&self, found: &Found) -> Result<ImageInfo, ImageError> {
        let documents = &found.documents;
        let mut unpacked_bytes = 0_u64;
        for layer in &documents.layers {
            let (client, chain_id) = (&self.target.client, layer.chain_id.to_string());
            let bytes = client.snapshot_bytes(&self.target.snapshotter, &chain_id).await?;
            unpacked_bytes = unpacked_bytes.saturating_add(bytes);
        }
        let before = match self.info(&found.reference).await {
            Ok(info) => Some(info),
            Err(ImageError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let now_unix_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let digest = documents.manifest.blob().digest.to_string();
        Ok(ImageInfo {
            unpacked_bytes,
            pinned: before.is_some_and(|info| info.pinned),
            // It is wanted now, so it is not the next to be collected.
            last_used_at_unix_ms: now_unix_ms,
            platform: Platform::host().to_string(),
            ..ImageInfo::new(found.reference.clone(), digest, documents.size_bytes(), now_unix_ms)
        })
    }

    /// Manifest and configuration of an image.
    async fn documents(&self, reference: &ImageRef) -> Result<Documents, ImageError> {
        let image = self.record(reference).await.map_err(|error| match error {
            error if error.is_not_found() => ImageError::NotFound { reference: reference.clone() },
            error => error.into(),
        })?;
        self.documents_of(&image).await
    }

    /// An image as an OCI archive, with the archive's size in bytes.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], or containerd's failure.
    pub async fn export(&self, reference: &ImageRef) -> Result<(u64, BlobStream), ImageError> {
        let writer = ArchiveWriter::new(reference, &self.documents(reference).await?);
        let (total_bytes, images) = (writer.total_bytes(), self.clone());
        let parts = stream::iter(writer.into_parts()).then(move |part| {
            let images = images.clone();
            async move { images.part(part).await }
        });
        let pieces = parts.flat_map(|part| part.unwrap_or_else(|error| stream::iter([Err(error)]).boxed()));
        Ok((total_bytes, pieces.boxed()))
    }

    /// The bytes of one part of an archive.
    async fn part(&self, part: Part) -> Result<BlobStream, ImageError> {
        match part {
            Part::Bytes(bytes) => Ok(stream::iter([Ok(Bytes::from(bytes))]).boxed()),
            Part::Blob(blob) => {
                let pieces = content::stream(&self.target.client, &blob.digest.to_string()).await?;
                Ok(pieces.map(|piece| piece.map_err(Into::into)).boxed())
            }
        }
    }

    async fn documents_of(&self, image: &Image) -> Result<Documents, ImageError> {
        let client = &self.target.client;
        let target = image.target.clone().unwrap_or_default();
        let bytes = content::read(client, &target.digest, MAX_DOCUMENT_BYTES).await?;
        let manifest = Manifest::parse(Document { media_type: target.media_type.as_str().into(), bytes })?;
        let config = content::read(client, &manifest.config().digest.to_string(), MAX_DOCUMENT_BYTES).await?;
        Ok(manifest.with_config(config, &Platform::host())?)
    }

    async fn resolve(&self, reference: &ImageRef) -> Result<ResolvedImage, ImageError> {
        let object = format!("image {reference}");
        let not_found = |operation| Error::NotFound { operation, object: object.clone() };
        let image = self.record(reference).await?;
        let info = record::info(&image, &self.target.snapshotter).ok_or_else(|| not_found("read image record"))?;
        let documents = self.documents_of(&image).await?;
        let chain_ids: Vec<_> = documents.layers.iter().map(|layer| layer.chain_id).collect();
        let chain_id = *chain_ids.last().ok_or_else(|| not_found("find snapshot"))?;
        if !unpack::snapshot_exists(&self.target.client, &self.target.snapshotter, &chain_id.to_string()).await? {
            return Err(not_found("find snapshot").into());
        }
        Ok(ResolvedImage { info, chain_ids, chain_id, config: documents.image_config })
    }

    /// Writes the image record, over one of the same name.
    async fn publish(&self, found: &Found) -> Result<(), ImageError> {
        let info = self.describe(found).await?;
        let record = record::make(&info, &found.documents, &self.target.snapshotter);
        let object = format!("image {}", record.name);
        let mut last = None;
        for _ in 0..PUBLISH_TRIES {
            let message = CreateImageRequest { image: Some(record.clone()), source_date_epoch: None };
            let created = self.target.client.images().create(self.target.client.request(message)).await;
            match created.map_err(Error::of("create image", &*object)) {
                Err(error) if error.is_already_exists() => {}
                result => return Ok(result.map(|_| ())?),
            }
            let update_mask = Some(FieldMask { paths: vec!["target".to_owned(), "labels".to_owned()] });
            let message = UpdateImageRequest { image: Some(record.clone()), update_mask, source_date_epoch: None };
            let updated = self.target.client.images().update(self.target.client.request(message)).await;
            match updated.map_err(Error::of("update image", &*object)) {
                // Removed in between: it can be created now.
                Err(error) if error.is_not_found() => last = Some(error),
                result => return Ok(result.map(|_| ())?),
            }
        }
        Err(last.unwrap_or(Error::NotFound { operation: "update image", object }).into())
    }
}
