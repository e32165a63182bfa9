//! One image from a source into containerd.
//!
//! ```text
//! lease → layer blobs ──► configuration → manifest → image record
//!           └► snapshots ─┘
//! ```
//!
//! A layer is unpacked as soon as it and those below it are there, while the
//! ones above still come.
//!
//! Everything is held by the lease until the image record refers to it. The
//! record is written last, so that an image that is listed is whole: a crash
//! before that leaves nothing but what ends with the lease.

mod locks;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use roost_proto::model::LayerState;
use tokio::sync::watch;

pub(super) use self::locks::BlobLocks;
use super::digest::Digest;
use super::document::{Document, Documents, Layer};
use super::error::{ImageError, LayerError};
use super::progress::{Progress, Step};
use super::scan::{UnpackLimits, Used};
use super::source::{Found, Source};
use super::unpack::Unpacker;
use super::verify::verified;
use crate::containerd::client::Client;
use crate::containerd::content::{self, NewContent};
use crate::containerd::error::Error;
use crate::containerd::lease::GcLease;

/// Purpose of an import's lease.
pub(super) const LEASE_PURPOSE: &str = "image-import";
/// Purpose of a pull's lease, which outlives a failed pull.
const PULL_PURPOSE: &str = "image-pull";
/// When an import's lease ends at the latest: well above the longest import.
const LEASE_EXPIRY: Duration = Duration::from_secs(6 * 3600);
/// How long the layers of a broken pull wait for the next try, with the
/// longest pull on top.
const PULL_EXPIRY: Duration = Duration::from_secs(48 * 3600);

const GC_CONTENT: &str = "containerd.io/gc.ref.content";
const GC_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Where images go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) snapshotter: String,
    pub(super) limits: UnpackLimits,
    /// Each blob is fetched once, also for several images at once.
    pub(super) locks: BlobLocks,
}

/// Brings the blobs and snapshots of a source's image into containerd and
/// then calls `publish`, whose work is the first to refer to them.
///
/// # Errors
/// The source, a damaged blob or layer, or containerd.
pub(super) async fn ingest<S: Source>(
    target: &Target,
    source: &S,
    progress: &Progress,
    publish: impl AsyncFnOnce(&Found) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let documents = &source.found().documents;
    // Two names of one image share the lease below: one after the other.
    let _turn = target.locks.lock(documents.manifest.blob().digest).await;
    let lease = if source.is_resumable() {
        let name = format!("{PULL_PURPOSE}-{}", documents.manifest.blob().digest.hex());
        GcLease::take_up(&target.client, &name, PULL_PURPOSE, PULL_EXPIRY).await?
    } else {
        GcLease::create(&target.client, LEASE_PURPOSE, LEASE_EXPIRY).await?
    };
    let ingest = Ingest { target, lease: &lease, progress, documents };
    let result = async {
        ingest.bring_layers(source).await?;
        ingest.write_documents().await?;
        ingest.label().await?;
        publish(source.found()).await
    }
    .await;
    if source.is_resumable() && result.as_ref().is_err_and(ImageError::is_transient) {
        return result;
    }
    // Dropped on the way here it deletes itself, or waits for the next try;
    // here the outcome is awaited, and does not change that of the import.
    if let Err(error) = lease.release().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "import lease left to its expiry");
    }
    result
}

/// Layers that are not yet in containerd, with their sizes in bytes.
type Waiting = HashMap<Digest, u64>;

struct Ingest<'a> {
    target: &'a Target,
    lease: &'a GcLease,
    progress: &'a Progress,
    documents: &'a Documents,
}

impl Ingest<'_> {
    /// Writes and unpacks the layers.
    async fn bring_layers<S: Source>(&self, source: &S) -> Result<(), ImageError> {
        let layers = distinct(&self.documents.layers);
        let step = if source.is_resumable() { Step::Download } else { Step::Verify };
        self.progress.begin(step, layers.iter().map(|(_, layer)| layer.blob.size_bytes).sum());
        self.progress.layers(layers.iter().map(|(_, layer)| layer));
        let waiting: HashMap<_, _> = layers.iter().map(|(_, l)| (l.blob.digest, l.blob.size_bytes)).collect();
        let (waiting_tx, waiting_rx) = watch::channel(waiting);
        let mut writing = pin!(self.write_layers(source, layers, waiting_tx));
        let mut unpacking = pin!(self.unpack(waiting_rx));
        let written = tokio::select! {
            // Only borrowed: the unpacking goes on below.
            written = &mut writing => written,
            // Before the last layer is there it ends only by an error. What
            // the dropped half has written ends with the lease, or is gone
            // on from.
            unpacked = &mut unpacking => return unpacked,
        };
        // After a failure, too, what is being unpacked comes to its end: no
        // snapshot is taken away while containerd writes into it.
        let unpacked = unpacking.await;
        written.and(unpacked)
    }

    /// Writes every layer once, as many at a time as the source likes, and
    /// takes each out of those that are waited for.
    async fn write_layers<S: Source>(
        &self,
        source: &S,
        layers: Vec<(String, Layer)>,
        waiting_tx: watch::Sender<Waiting>,
    ) -> Result<(), ImageError> {
        let writes = layers.into_iter().map(|(name, layer)| {
            let waiting_tx = &waiting_tx;
            async move {
                self.write_layer(source, name, layer).await?;
                waiting_tx.send_modify(|waiting| waiting.retain(|digest, _| *digest != layer.blob.digest));
                Ok::<_, ImageError>(())
            }
        });
        stream::iter(writes).buffer_unordered(source.layers_at_once()).try_collect::<()>().await?;
        self.progress.begin_unpack(self.documents.layers.iter().map(|layer| layer.blob.size_bytes).sum());
        Ok(())
    }

    /// Writes one layer; again from elsewhere, if its bytes are wrong and the
    /// source knows where.
    async fn write_layer<S: Source>(&self, source: &S, name: String, layer: Layer) -> Result<(), ImageError> {
        let _lock = self.target.locks.lock(layer.blob.digest).await;
        self.progress.layer_state(&layer.blob.digest, LayerState::Downloading);
        loop {
            match self.try_layer(source, &name, &layer).await {
                Err(ImageError::Layer(LayerError::Damaged { .. })) if source.distrust(&layer.blob) => {
                    self.progress.layer_again(&layer.blob.digest);
                }
                result => {
                    if result.is_ok() {
                        self.progress.layer_state(&layer.blob.digest, LayerState::Downloaded);
                    }
                    return result;
                }
            }
        }
    }

    async fn try_layer<S: Source>(&self, source: &S, name: &str, layer: &Layer) -> Result<(), ImageError> {
        let (client, lease, blob) = (&self.target.client, self.lease.id(), layer.blob);
        let digest = blob.digest.to_string();
        let offset_bytes = if source.is_resumable() { content::written(client, lease, &digest).await? } else { 0 };
        self.progress.layer_bytes(&blob.digest, offset_bytes);
        let stream = verified(source.open(&blob, offset_bytes).await?, blob, offset_bytes, name.to_owned());
        let labels = HashMap::from([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
        let content = NewContent { digest: digest.clone(), size_bytes: blob.size_bytes, offset_bytes, labels };
        let count = |bytes| self.progress.layer_bytes(&blob.digest, bytes);
        let written = content::write(client, lease, &content, stream, count).await;
        let result = written.map_err(|error| write_error(error, name, offset_bytes));
        if source.is_resumable() && matches!(result, Err(ImageError::Layer(_))) {
            // Wrong bytes must not be gone on from.
            content::abort(client, lease, &digest).await?;
        }
        result
    }

    /// Writes configuration and manifest; the manifest refers to all blobs.
    async fn write_documents(&self) -> Result<(), ImageError> {
        self.write_document(&self.documents.config, HashMap::new()).await?;
        let config = (format!("{GC_CONTENT}.config"), self.documents.config.blob().digest.to_string());
        let layers = self.documents.layers.iter().enumerate();
        let layers = layers.map(|(n, layer)| (format!("{GC_CONTENT}.l.{n}"), layer.blob.digest.to_string()));
        self.write_document(&self.documents.manifest, layers.chain([config]).collect()).await
    }

    async fn write_document(&self, document: &Document, labels: HashMap<String, String>) -> Result<(), ImageError> {
        let blob = document.blob();
        let digest = blob.digest.to_string();
        let content = NewContent { digest, size_bytes: blob.size_bytes, offset_bytes: 0, labels };
        let bytes = Bytes::copy_from_slice(&document.bytes);
        let stream = verified(stream::iter([Ok(bytes)]).boxed(), blob, 0, blob.to_string());
        content::write(&self.target.client, self.lease.id(), &content, stream, |_| ()).await
    }

    /// Unpacks the layers from the lowest on, each when it is there; stops
    /// when no more come.
    async fn unpack(&self, mut waiting_rx: watch::Receiver<Waiting>) -> Result<(), ImageError> {
        let unpacker = Unpacker {
            client: &self.target.client,
            snapshotter: &self.target.snapshotter,
            lease: self.lease,
            limits: self.target.limits,
        };
        let mut parent = None;
        let mut used = Used::default();
        for (n, layer) in self.documents.layers.iter().enumerate() {
            let coming_bytes = match waiting_rx.wait_for(|waiting| !waiting.contains_key(&layer.blob.digest)).await {
                Ok(waiting) => waiting.values().sum(),
                Err(_) => return Ok(()),
            };
            self.progress.layer_state(&layer.blob.digest, LayerState::Unpacking);
            used = unpacker.unpack(layer, parent, &layer_name(n, layer), used, coming_bytes).await?;
            parent = Some(layer.chain_id);
            self.progress.layer_state(&layer.blob.digest, LayerState::Done);
            self.progress.unpacked(layer.blob.size_bytes);
        }
        Ok(())
    }

    /// Has the configuration refer to the highest snapshot, and that to those
    /// below it.
    async fn label(&self) -> Result<(), ImageError> {
        let chain_id = self.documents.top_chain_id().map(|id| id.to_string());
        let key = format!("{GC_SNAPSHOT}.{}", self.target.snapshotter);
        let labels = chain_id.into_iter().map(|id| (key.clone(), id)).collect();
        let digest = self.documents.config.blob().digest.to_string();
        Ok(content::set_labels(&self.target.client, &digest, &labels).await?)
    }
}

/// What containerd's refusal of a blob means.
fn write_error(error: ImageError, name: &str, offset_bytes: u64) -> ImageError {
    match error {
        ImageError::Containerd(error) if error.is_no_space() => LayerError::NoSpace { layer: name.to_owned() }.into(),
        // Of a blob that was gone on with, containerd alone knows the digest.
        ImageError::Containerd(Error::Precondition { source, .. }) if offset_bytes > 0 => {
            LayerError::Damaged { object: name.to_owned(), problem: source.message().to_owned() }.into()
        }
        error => error,
    }
}

/// The layers without repetitions, each with a name for errors.
fn distinct(layers: &[Layer]) -> Vec<(String, Layer)> {
    let mut seen = HashSet::new();
    let first = layers.iter().enumerate().filter(|(_, layer)| seen.insert(layer.blob.digest));
    first.map(|(n, layer)| (layer_name(n, layer), *layer)).collect()
}

fn layer_name(n: usize, layer: &Layer) -> String {
    format!("layer {} ({})", n + 1, layer.blob.digest)
}
