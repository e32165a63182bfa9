//! Images as a start needs them: layer directories, program, user.
//!
//! Looked up once per image and kept until the image changes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use roost_proto::model::ImageRef;

use crate::containerd::image::{ImageConfig, ImageError as ContainerdImageError, Images as ContainerdImages};
use crate::containerd::{self, Client};
use crate::host::passwd::{Account, AccountError, resolve};

/// Why an image cannot be used for a start.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The node does not have it.
    #[error("the node does not have it")]
    Missing,
    /// containerd does not give its layers.
    #[error("its layers are not there")]
    Layers(#[from] containerd::Error),
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
    prepared: Arc<Mutex<HashMap<ImageRef, Arc<PreparedImage>>>>,
}

impl Images {
    /// Images of one containerd namespace.
    #[must_use]
    pub fn new(client: Client, images: ContainerdImages, snapshotter: &str) -> Self {
        Self { client, images, snapshotter: snapshotter.to_owned(), prepared: Arc::default() }
    }

    fn prepared(&self) -> std::sync::MutexGuard<'_, HashMap<ImageRef, Arc<PreparedImage>>> {
        // A plain map: whole even after a panic elsewhere.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(image) = self.prepared().get(reference) {
            return Ok(image.clone());
        }
        let resolved = self.images.get(reference).await.map_err(|error| match error {
            ContainerdImageError::NotFound { .. } => ImageError::Missing,
            error => ImageError::Records(Box::new(error)),
        })?;
        let layers = self.client.ensure_view(&self.snapshotter, &resolved.chain_id.to_string()).await?;
        let account = resolve(&layers, &resolved.config.user)?;
        let image = PreparedImage { reference: reference.clone(), layers, config: resolved.config, account };
        let image = Arc::new(image);
        self.prepared().insert(reference.clone(), image.clone());
        Ok(image)
    }

    /// The highest layer of an image; none if the node does not have it.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub async fn chain(&self, reference: &ImageRef) -> Result<Option<String>, ImageError> {
        match self.images.get(reference).await {
            Ok(resolved) => Ok(Some(resolved.chain_id.to_string())),
            Err(ContainerdImageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(ImageError::Records(Box::new(error))),
        }
    }

    /// Forgets what was looked up of an image that changed or goes.
    pub fn forget(&self, reference: &ImageRef) {
        self.prepared().remove(reference);
    }

    /// Lets go of layers that no sandbox has mounted any more.
    ///
    /// # Errors
    /// When containerd keeps the view.
    pub async fn release(&self, chain: &str) -> Result<(), ImageError> {
        Ok(self.client.remove_view(&self.snapshotter, chain).await?)
    }
}
