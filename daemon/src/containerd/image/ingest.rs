//! One image from a source into containerd.
//!
//! ```text
//! lease → layer blobs → configuration → manifest → snapshots → image record
//! ```
//!
//! Everything is held by the lease until the image record refers to it. The
//! record is written last, so that an image that is listed is whole: a crash
//! before that leaves nothing but what ends with the lease.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::document::{Document, Documents, Layer};
use super::error::ImageError;
use super::progress::{Progress, Step};
use super::source::{Found, Source};
use super::unpack::Unpacker;
use super::verify::verified;
use crate::containerd::client::Client;
use crate::containerd::content::{self, NewContent};
use crate::containerd::lease::GcLease;

/// Purpose of an import's lease.
pub(super) const LEASE_PURPOSE: &str = "image-import";
/// When an import's lease ends at the latest: well above the longest import.
const LEASE_EXPIRY: Duration = Duration::from_secs(6 * 3600);

const GC_CONTENT: &str = "containerd.io/gc.ref.content";
const GC_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Brings the blobs and snapshots of a source's image into containerd and
/// then calls `publish`, whose work is the first to refer to them.
///
/// # Errors
/// The source, a damaged blob or layer, or containerd.
pub(super) async fn ingest<S: Source>(
    client: &Client,
    snapshotter: &str,
    source: &S,
    progress: &Progress,
    publish: impl AsyncFnOnce(&Found) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let lease = GcLease::create(client, LEASE_PURPOSE, LEASE_EXPIRY).await?;
    let documents = &source.found().documents;
    let ingest = Ingest { client, snapshotter, lease: &lease, progress, documents };
    let result = async {
        ingest.write_layers(source).await?;
        ingest.write_documents().await?;
        ingest.unpack().await?;
        ingest.label().await?;
        publish(source.found()).await
    }
    .await;
    // Dropped on the way here it deletes itself; here the outcome is awaited,
    // and does not change that of the import.
    if let Err(error) = lease.release().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "import lease left to its expiry");
    }
    result
}

struct Ingest<'a> {
    client: &'a Client,
    snapshotter: &'a str,
    lease: &'a GcLease,
    progress: &'a Progress,
    documents: &'a Documents,
}

impl Ingest<'_> {
    /// Writes every layer once, in order.
    async fn write_layers<S: Source>(&self, source: &S) -> Result<(), ImageError> {
        let layers = distinct(&self.documents.layers);
        self.progress.begin(Step::Verify, layers.iter().map(|(_, layer)| layer.blob.size_bytes).sum());
        for (name, layer) in layers {
            let stream = verified(source.open(&layer.blob).await?, layer.blob, name);
            let labels = HashMap::from([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
            let digest = layer.blob.digest.to_string();
            let content = NewContent { digest, size_bytes: layer.blob.size_bytes, labels };
            let count = |bytes| self.progress.add(bytes);
            content::write(self.client, self.lease.id(), &content, stream, count).await?;
        }
        Ok(())
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
        let content = NewContent { digest: blob.digest.to_string(), size_bytes: blob.size_bytes, labels };
        let bytes = Bytes::copy_from_slice(&document.bytes);
        let stream = verified(stream::iter([Ok(bytes)]).boxed(), blob, blob.to_string());
        content::write(self.client, self.lease.id(), &content, stream, |_| ()).await
    }

    async fn unpack(&self) -> Result<(), ImageError> {
        let layers = &self.documents.layers;
        self.progress.begin(Step::Unpack, layers.iter().map(|layer| layer.blob.size_bytes).sum());
        let unpacker = Unpacker { client: self.client, snapshotter: self.snapshotter, lease: self.lease };
        let mut parent = None;
        for (n, layer) in layers.iter().enumerate() {
            unpacker.unpack(layer, parent, &layer_name(n, layer)).await?;
            parent = Some(layer.chain_id);
            self.progress.add(layer.blob.size_bytes);
        }
        Ok(())
    }

    /// Has the configuration refer to the highest snapshot, and that to those
    /// below it.
    async fn label(&self) -> Result<(), ImageError> {
        let chain_id = self.documents.top_chain_id().map(|id| id.to_string());
        let labels = chain_id.into_iter().map(|id| (format!("{GC_SNAPSHOT}.{}", self.snapshotter), id)).collect();
        let digest = self.documents.config.blob().digest.to_string();
        Ok(content::set_labels(self.client, &digest, &labels).await?)
    }
}

/// The layers without repetitions, each with a name for errors.
fn distinct(layers: &[Layer]) -> Vec<(String, &Layer)> {
    let mut seen = HashSet::new();
    let first = layers.iter().enumerate().filter(|(_, layer)| seen.insert(layer.blob.digest));
    first.map(|(n, layer)| (layer_name(n, layer), layer)).collect()
}

fn layer_name(n: usize, layer: &Layer) -> String {
    format!("layer {} ({})", n + 1, layer.blob.digest)
}
