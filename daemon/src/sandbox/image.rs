//! Images as a start needs them: layer directories, program, user.
//!
//! Looked up once per image and kept until the image changes.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use roost_proto::model::ImageRef;

use super::publisher::unix_ms;
use crate::containerd::image::{ImageConfig, ImageError as ContainerdImageError, Images as ContainerdImages};
use crate::containerd::{self, Client};
use crate::host::passwd::{Account, AccountError, resolve};
use crate::pull::PullError;

/// Why an image cannot be used for a start.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The node does not have it.
    #[error("the node does not have it")]
    Missing,
    /// containerd does not give its layers.
    #[error("its layers are not there")]
    Layers(#[from] containerd::Error),
    /// It cannot be pulled.
    #[error("it cannot be pulled")]
    Pull(#[source] PullError),
    /// Its records in containerd are damaged.
    #[error("its records in containerd cannot be read")]
    Records(#[source] Box<ContainerdImageError>),
    /// The user that it names is not in it.
    #[error("its user cannot be found in it")]
    User(#[from] AccountError),
}

/// An image, ready for starts.
#[derive(Debug)]
pub struct PreparedImage {
    /// Its name.
    pub reference: ImageRef,
    /// Its highest layer.
    pub chain_id: String,
    /// Layer directories, topmost first.
    pub layers: Vec<PathBuf>,
    /// Program, environment, working directory.
    pub config: ImageConfig,
    /// The user of the image's configuration.
    pub account: Account,
}

/// Images by reference; cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    client: Client,
    images: ContainerdImages,
    snapshotter: String,
    table: Arc<Mutex<Table>>,
    /// Held for writing while views are removed: none is made meanwhile.
    views: Arc<tokio::sync::RwLock<()>>,
}

#[derive(Debug, Default)]
struct Table {
    prepared: HashMap<ImageRef, Arc<PreparedImage>>,
    /// All that were handed out, for as long as somebody holds them.
    handed_out: Vec<Weak<PreparedImage>>,
    /// Unix time of the last start from each image, in milliseconds.
    last_used: HashMap<ImageRef, u64>,
}

impl Images {
    /// Images of one containerd namespace.
    #[must_use]
    pub fn new(client: Client, images: ContainerdImages, snapshotter: &str) -> Self {
        Self { client, images, snapshotter: snapshotter.to_owned(), table: Arc::default(), views: Arc::default() }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // Plain maps: whole even after a panic elsewhere.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The containerd side, for import and list.
    #[must_use]
    pub fn store(&self) -> &ContainerdImages {
        &self.images
    }

    /// An image, ready for starts.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn prepare(&self, reference: &ImageRef) -> Result<Arc<PreparedImage>, ImageError> {
        if let Some(image) = self.used(reference) {
            return Ok(image);
        }
        let _views = self.views.read().await;
        let resolved = self.images.get(reference).await.map_err(|error| match error {
            ContainerdImageError::NotFound { .. } => ImageError::Missing,
            error => ImageError::Records(Box::new(error)),
        })?;
        let chain_id = resolved.chain_id.to_string();
        let layers = self.client.ensure_view(&self.snapshotter, &chain_id).await?;
        let account = resolve(&layers, &resolved.config.user)?;
        let image = PreparedImage { reference: reference.clone(), chain_id, layers, config: resolved.config, account };
        let image = Arc::new(image);
        let mut table = self.table();
        table.prepared.insert(reference.clone(), image.clone());
        table.handed_out.retain(|image| image.strong_count() > 0);
        table.handed_out.push(Arc::downgrade(&image));
        table.last_used.insert(reference.clone(), unix_ms());
        Ok(image)
    }

    /// An image that was looked up before; counts as its use.
    fn used(&self, reference: &ImageRef) -> Option<Arc<PreparedImage>> {
        let mut table = self.table();
        let image = table.prepared.get(reference)?.clone();
        table.last_used.insert(reference.clone(), unix_ms());
        Some(image)
    }

    /// Whether an image was looked up before.
    #[must_use]
    pub fn is_prepared(&self, reference: &ImageRef) -> bool {
        self.table().prepared.contains_key(reference)
    }

    /// Last starts that this daemon knows of, as Unix times in milliseconds.
    #[must_use]
    pub fn last_used(&self) -> HashMap<ImageRef, u64> {
        self.table().last_used.clone()
    }

    /// Forgets what was looked up of an image that changed or goes.
    pub fn forget(&self, reference: &ImageRef) {
        self.table().prepared.remove(reference);
    }

    /// Lets go of the layers of images that are no more, as soon as nothing
    /// runs on them. `going` is about to be removed: it counts as gone.
    ///
    /// # Errors
    /// When containerd does not answer; what is left is for the next time.
    pub async fn sweep(&self, going: Option<&ImageRef>) -> Result<(), ImageError> {
        let _views = self.views.write().await;
        let records = |error| ImageError::Records(Box::new(error));
        let mut kept: HashSet<String> = self.images.chains(going).await.map_err(records)?.into_iter().collect();
        for container in self.client.list_containers().await? {
            // Made by an older daemon, it may run on any.
            let Some(chain_id) = container.chain_id else { return Ok(()) };
            kept.insert(chain_id);
        }
        kept.extend(self.held());
        for chain_id in self.client.list_views(&self.snapshotter).await? {
            if !kept.contains(&chain_id) {
                tracing::info!(chain_id, "layers of an image that is gone are let go");
                self.client.remove_view(&self.snapshotter, &chain_id).await?;
            }
        }
        Ok(())
    }

    /// Layers that a start may be about to use.
    fn held(&self) -> Vec<String> {
        let table = self.table();
        let is_only_kept = |image: &Arc<PreparedImage>| {
            table.prepared.get(&image.reference).is_some_and(|kept| Arc::ptr_eq(kept, image))
                && Arc::strong_count(image) <= 2
        };
        let held = table.handed_out.iter().filter_map(Weak::upgrade).filter(|image| !is_only_kept(image));
        held.map(|image| image.chain_id.clone()).collect()
    }
}
