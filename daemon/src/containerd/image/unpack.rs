//! Layers become snapshots.

use std::time::Duration;

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types::{Descriptor, Mount};

use super::digest::Digest;
use super::document::Layer;
use super::error::{ImageError, LayerError};
use super::scan::{UnpackLimits, Used, scan};
use crate::containerd::client::Client;
use crate::containerd::error::{Error, Idempotent};
use crate::containerd::lease::GcLease;

/// Least time that a layer gets to be unpacked.
const APPLY_TIMEOUT_BASE: Duration = Duration::from_secs(120);
/// Slowest disk that is waited for, in packed bytes per second.
const APPLY_BYTES_PER_S: u64 = 1 << 20;

/// Longest commit or removal: containerd visits every file of the snapshot.
const VISIT_TIMEOUT: Duration = Duration::from_secs(120);

/// What unpacking needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unpacker<'a> {
    /// containerd.
    pub(super) client: &'a Client,
    /// Which snapshotter.
    pub(super) snapshotter: &'a str,
    /// What holds the snapshots until the image does.
    pub(super) lease: &'a GcLease,
    /// What an image may hold.
    pub(super) limits: UnpackLimits,
}

impl Unpacker<'_> {
    /// Makes the snapshot of one layer on those below it; at once if it is
    /// there, also when another import makes it at the same time. `used` is
    /// what the layers below hold; returns it with this one. `coming_bytes`
    /// are to fit onto the disk as well.
    ///
    /// # Errors
    /// The layer is damaged or refused, or containerd fails.
    pub(super) async fn unpack(
        &self,
        layer: &Layer,
        parent: Option<Digest>,
        name: &str,
        used: Used,
        coming_bytes: u64,
    ) -> Result<Used, ImageError> {
        let chain_id = layer.chain_id.to_string();
        // First hold, then look: it cannot be collected in between.
        self.lease.hold_snapshot(self.snapshotter, &chain_id).await?;
        if snapshot_exists(self.client, self.snapshotter, &chain_id).await? {
            return Ok(used);
        }
        let with_layer = scan(self.client, layer, name, self.limits, used).await?;
        self.require_space((with_layer.bytes - used.bytes).saturating_add(coming_bytes), name).await?;
        let key = format!("{}-{chain_id}", self.lease.id());
        let mounts = self.prepare(&key, parent).await?;
        let result = self.fill(&key, layer, mounts, name).await;
        // Gone already if it was committed; still there if it failed, or if
        // another import was first.
        if let Err(error) = self.remove(&key).await {
            tracing::warn!(snapshot = key, error = &error as &dyn std::error::Error, "snapshot left to its lease");
        }
        result.map(|()| with_layer)
    }

    /// Looks whether containerd's disk has room, if it can be told.
    async fn require_space(&self, bytes: u64, name: &str) -> Result<(), ImageError> {
        let Some(usage) = self.client.disk_usage(self.snapshotter).await? else { return Ok(()) };
        if usage.available_bytes >= bytes.saturating_add(self.limits.reserve_bytes) {
            return Ok(());
        }
        Err(LayerError::NoSpace { layer: name.to_owned() }.into())
    }

    /// Makes a snapshot to unpack into, in place of what a pull that was ended
    /// in the middle left under the same lease.
    async fn prepare(&self, key: &str, parent: Option<Digest>) -> Result<Vec<Mount>, Error> {
        match self.try_prepare(key, parent).await {
            Err(error) if error.is_already_exists() => {
                self.remove(key).await?;
                self.try_prepare(key, parent).await
            }
            result => result,
        }
    }

    async fn try_prepare(&self, key: &str, parent: Option<Digest>) -> Result<Vec<Mount>, Error> {
        let message = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.map(|parent| parent.to_string()).unwrap_or_default(),
            ..PrepareSnapshotRequest::default()
        };
        let request = self.client.request_leased(message, self.lease.id());
        let answer = self.client.snapshots().prepare(request).await;
        Ok(answer.map_err(Error::of("prepare snapshot", format!("snapshot {key}")))?.into_inner().mounts)
    }

    async fn fill(&self, key: &str, layer: &Layer, mounts: Vec<Mount>, name: &str) -> Result<(), ImageError> {
        let found = self.apply(layer, mounts, name).await?;
        if found != layer.diff_id.to_string() {
            let problem = format!("it unpacks to {found}, the image's configuration says {}", layer.diff_id);
            return Err(LayerError::Damaged { object: name.to_owned(), problem }.into());
        }
        let message = CommitSnapshotRequest {
            snapshotter: self.snapshotter.to_owned(),
            name: layer.chain_id.to_string(),
            key: key.to_owned(),
            ..CommitSnapshotRequest::default()
        };
        let request = self.lease.id().hold(self.client.request_within(message, VISIT_TIMEOUT));
        let answer = self.client.snapshots().commit(request).await;
        Ok(answer.map_err(Error::of("commit snapshot", format!("snapshot {}", layer.chain_id))).or_exists()?)
    }

    /// Has containerd unpack the layer; returns the digest of its plain tar.
    async fn apply(&self, layer: &Layer, mounts: Vec<Mount>, name: &str) -> Result<String, ImageError> {
        let diff = Descriptor {
            media_type: layer.packing.media_type().to_string(),
            digest: layer.blob.digest.to_string(),
            size: layer.blob.size_bytes.cast_signed(),
            ..Descriptor::default()
        };
        let message = ApplyRequest { diff: Some(diff), mounts, ..ApplyRequest::default() };
        let time = APPLY_TIMEOUT_BASE + Duration::from_secs(layer.blob.size_bytes / APPLY_BYTES_PER_S);
        let answer = self.client.diff().apply(self.client.request_within(message, time)).await;
        let answer = answer.map_err(Error::of("unpack layer", name)).map_err(|error| match error {
            error if error.is_no_space() => ImageError::from(LayerError::NoSpace { layer: name.to_owned() }),
            error @ (Error::Rpc { .. } | Error::Precondition { .. }) => {
                LayerError::Unpack { layer: name.to_owned(), source: Box::new(error) }.into()
            }
            error => error.into(),
        })?;
        let missing = || Error::Answer { operation: "unpack layer", object: name.to_owned(), missing: "the diff id" };
        Ok(answer.into_inner().applied.ok_or_else(missing)?.digest)
    }

    async fn remove(&self, key: &str) -> Result<(), Error> {
        let message = RemoveSnapshotRequest { snapshotter: self.snapshotter.to_owned(), key: key.to_owned() };
        let answer = self.client.snapshots().remove(self.client.request_within(message, VISIT_TIMEOUT)).await;
        answer.map_err(Error::of("remove snapshot", format!("snapshot {key}"))).or_gone()
    }
}

/// Whether a snapshot is there.
///
/// # Errors
/// That containerd fails.
pub(super) async fn snapshot_exists(client: &Client, snapshotter: &str, name: &str) -> Result<bool, Error> {
    let message = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: name.to_owned() };
    let answer = client.snapshots().stat(client.request(message)).await;
    match answer.map_err(Error::of("look up snapshot", format!("snapshot {name}"))) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
