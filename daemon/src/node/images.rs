//! The node's images: import, list, removal of what nobody uses.

use std::sync::Arc;

use roost_proto::model::{ImageInfo, ImageRef, Phase};
use tokio::sync::watch;

use crate::api::image::{Archive, ImageStore};
use crate::containerd::image::{ImageError, Progress, Source, SpoolConfig, TarArchive};
use crate::sandbox::failure::chain as chain_of;
use crate::sandbox::{self, Manager, Node, View};

/// Images of the node.
#[derive(Debug, Clone)]
pub struct NodeImages {
    node: Arc<Node>,
    manager: Manager,
    spool: SpoolConfig,
    changed: watch::Sender<u64>,
}

impl NodeImages {
    /// Images of the node; `changed` rises when one comes or goes.
    #[must_use]
    pub fn new(node: Arc<Node>, manager: Manager, spool: SpoolConfig, changed: watch::Sender<u64>) -> Self {
        Self { node, manager, spool, changed }
    }

    /// Sandboxes that exist.
    fn live(&self) -> Vec<View> {
        let mut views = self.manager.changed_since(0);
        views.retain(|view| view.observed.phase != Phase::Gone);
        views
    }

    /// Sandboxes that are made from an image, or would be at their next start.
    fn users(&self, reference: &ImageRef) -> usize {
        let uses = |view: &&View| {
            let spec = &view.desired.spec;
            spec.image == *reference || self.node.display_image(spec.display.glx) == reference
        };
        self.live().iter().filter(uses).count()
    }

    /// Lets go of layers that were the image's, if no sandbox can have them
    /// mounted: images share layers, and a sandbox may run on those of an
    /// image that was replaced since. Otherwise they stay in containerd.
    async fn release(&self, reference: &ImageRef, chain: Result<Option<String>, sandbox::image::ImageError>) {
        self.node.images.forget(reference);
        let result = match chain {
            Ok(Some(chain)) if self.live().is_empty() => self.node.images.release(&chain).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(image = %reference, error = %chain_of(&error), "layers of an image stay in containerd");
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
        let reference = archive.found().reference.clone();
        let replaced = self.node.images.chain(&reference).await;
        let info = store.import(&archive, progress).await?;
        let imported = self.node.images.chain(&reference).await;
        let is_other = !matches!((&replaced, &imported), (Ok(old), Ok(new)) if old == new);
        self.release(&reference, if is_other { replaced } else { Ok(None) }).await;
        self.changed.send_modify(|n| *n += 1);
        Ok(info)
    }

    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        self.node.images.store().list().await
    }

    async fn remove(&self, reference: &ImageRef) -> Result<(), ImageError> {
        let users = self.users(reference);
        if users == 0 {
            self.release(reference, self.node.images.chain(reference).await).await;
        }
        self.node.images.store().remove(reference, users).await?;
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }
}
