//! The node's images: import, list, removal of what nobody uses.

use std::sync::Arc;

use roost_proto::model::{ImageInfo, ImageRef, Phase};
use tokio::sync::watch;

use crate::api::image::{Archive, ImageStore};
use crate::containerd::image::{ImageError, Progress, SpoolConfig};
use crate::sandbox::failure::chain;
use crate::sandbox::{Manager, Node};

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

    /// Sandboxes that are made from an image, or would be at their next start.
    fn users(&self, reference: &ImageRef) -> usize {
        let views = self.manager.changed_since(0);
        let lives = views.iter().filter(|view| view.observed.phase != Phase::Gone);
        lives.filter(|view| view.desired.spec.image == *reference || self.node.display_image == *reference).count()
    }

    /// A view of replaced layers would keep them for ever.
    async fn forget(&self, reference: &ImageRef) {
        if let Err(error) = self.node.images.forget(reference).await {
            tracing::warn!(image = %reference, error = %chain(&error), "layers of an image stay in containerd");
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
        let info = store.import_archive(archive, size_bytes, reference, &self.spool, progress).await?;
        self.node.images.refresh(&info.reference);
        self.changed.send_modify(|n| *n += 1);
        Ok(info)
    }

    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        self.node.images.store().list().await
    }

    async fn remove(&self, reference: &ImageRef) -> Result<(), ImageError> {
        let users = self.users(reference);
        if users == 0 {
            self.forget(reference).await;
        }
        self.node.images.store().remove(reference, users).await?;
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }
}
