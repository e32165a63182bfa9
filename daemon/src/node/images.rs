//! The node's images: import, pull, list, pins, removal of what nobody uses.

pub mod collect;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::model::{ImageInfo, ImageRef, Phase, PullPolicy};
use tokio::sync::watch;

use crate::api::image::{Archive, ImageStore, Pull};
use crate::containerd::image::source::BlobStream;
use crate::containerd::image::{ImageError, Progress, Source, SpoolConfig, TarArchive};
use crate::sandbox::failure::chain;
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::{Manager, Node, View};

/// Images of the node; cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeImages {
    node: Arc<Node>,
    manager: Manager,
    spool: SpoolConfig,
    /// Images that the configuration keeps.
    keep: Arc<HashSet<ImageRef>>,
    changed: watch::Sender<u64>,
}

impl NodeImages {
    /// Images of the node. `keep` lists what never goes by itself, besides
    /// the display images; `changed` rises when an image comes or goes.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        manager: Manager,
        spool: SpoolConfig,
        keep: &[ImageRef],
        changed: watch::Sender<u64>,
    ) -> Self {
        let display = [node.display_image(false).clone(), node.display_image(true).clone()];
        let keep = Arc::new(keep.iter().cloned().chain(display).collect());
        Self { node, manager, spool, keep, changed }
    }

    /// Sandboxes that exist.
    fn live(&self) -> Vec<View> {
        let mut views = self.manager.changed_since(0);
        views.retain(|view| view.observed.phase != Phase::Gone);
        views
    }

    /// Whether a sandbox is made from an image, or would be at its next start.
    fn uses(&self, view: &View, reference: &ImageRef) -> bool {
        let spec = &view.desired.spec;
        spec.image == *reference || self.node.display_image(spec.display.glx) == reference
    }

    /// Every image, with what only the running daemon knows.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let images = self.node.images.store().list().await?;
        let (live, last_used) = (self.live(), self.node.images.last_used());
        let known = |image: ImageInfo| {
            let users = live.iter().filter(|view| self.uses(view, &image.reference)).count();
            let used = last_used.get(&image.reference).copied().unwrap_or_default();
            ImageInfo {
                pinned: image.pinned || self.keep.contains(&image.reference),
                in_use_by: u32::try_from(users).unwrap_or(u32::MAX),
                last_used_at_unix_ms: image.last_used_at_unix_ms.max(used),
                ..image
            }
        };
        Ok(images.into_iter().map(known).collect())
    }

    /// Removes an image and, before it returns, all layers that nothing runs
    /// on.
    async fn remove_now(&self, reference: &ImageRef) -> Result<(), ImageError> {
        let users = self.live().iter().filter(|view| self.uses(view, reference)).count();
        if users == 0 {
            self.node.images.forget(reference);
            self.sweep(Some(reference)).await;
        }
        self.node.images.store().remove(reference, users).await?;
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Lets go of layers that nothing needs; what fails is for the next time.
    async fn sweep(&self, going: Option<&ImageRef>) {
        if let Err(error) = self.node.images.sweep(going).await {
            tracing::warn!(error = %chain(&error), "layers of images stay in containerd");
        }
    }

    /// Takes note of what was pulled, for as long as the daemon runs.
    pub async fn follow_pulls(self) {
        let mut arrivals = self.node.puller.arrivals();
        while arrivals.changed().await.is_ok() {
            self.changed.send_modify(|n| *n += 1);
            self.sweep(None).await;
        }
    }
}

#[tonic::async_trait]
impl ImageStore for NodeImages {
    async fn import(
        &self,
        archive: Archive,
        size_bytes: Option<u64>,
        reference: Option<ImageRef>,
        progress: &Progress,
    ) -> Result<ImageInfo, ImageError> {
        let store = self.node.images.store();
        let archive = TarArchive::receive(archive, size_bytes, reference, &self.spool, progress).await?;
        let info = store.import(&archive, progress).await?;
        self.node.images.forget(&archive.found().reference);
        self.sweep(None).await;
        self.changed.send_modify(|n| *n += 1);
        Ok(info)
    }

    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        NodeImages::list(self).await
    }

    async fn remove(&self, reference: &ImageRef) -> Result<(), ImageError> {
        self.remove_now(reference).await
    }

    async fn pull(&self, reference: &ImageRef, policy: PullPolicy) -> Result<Pull, ImageError> {
        if policy != PullPolicy::Always {
            match self.node.images.store().info(reference).await {
                Ok(image) => return Ok(Pull::Here(Box::new(image))),
                Err(ImageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Pull::Coming(self.node.puller.pull(reference)))
    }

    async fn set_pinned(&self, reference: &ImageRef, is_pinned: bool) -> Result<ImageInfo, ImageError> {
        self.node.images.store().set_pinned(reference, is_pinned).await?;
        self.changed.send_modify(|n| *n += 1);
        let images = self.list().await?;
        let found = images.into_iter().find(|image| image.reference == *reference);
        found.ok_or_else(|| ImageError::NotFound { reference: reference.clone() })
    }

    async fn prune(&self, unused_for: Duration, is_dry_run: bool) -> Result<(Vec<ImageInfo>, u64), ImageError> {
        let images = collect::unused(self.list().await?, unix_ms(), unused_for);
        if is_dry_run {
            return Ok((images, 0));
        }
        let before = self.node.images.store().disk_usage().await?;
        let mut removed = Vec::new();
        for image in images {
            match self.remove_now(&image.reference).await {
                Ok(()) => removed.push(image),
                // A sandbox, or somebody else, was faster.
                Err(ImageError::InUse { .. } | ImageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let after = self.node.images.store().disk_usage().await?;
        let freed = before.zip(after).map(|(b, a)| a.available_bytes.saturating_sub(b.available_bytes));
        Ok((removed, freed.unwrap_or_default()))
    }

    async fn export(&self, reference: &ImageRef) -> Result<(u64, BlobStream), ImageError> {
        self.node.images.store().export(reference).await
    }
}
