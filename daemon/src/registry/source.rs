//! An image at a registry, found and ready to be read.

use std::sync::{Arc, Mutex, PoisonError};

use roost_proto::model::ImageRef;

use super::blob;
use super::http::Api;
use crate::containerd::image::ImageError;
use crate::containerd::image::source::{Blob, BlobStream, Found, Source};

/// One image at its endpoints. Its layers come from where its manifest came
/// from, and from the others when they are not to be had there.
#[derive(Debug)]
pub struct RegistrySource {
    reference: ImageRef,
    found: Found,
    layers_at_once: usize,
    /// The one to ask first is the first.
    apis: Mutex<Vec<Arc<Api>>>,
}

impl RegistrySource {
    /// `chosen`: number of the endpoint that gave the manifest.
    pub(super) fn new(
        reference: &ImageRef,
        found: Found,
        mut apis: Vec<Arc<Api>>,
        chosen: usize,
        layers_at_once: usize,
    ) -> Self {
        // Those before it have failed already: they are asked last.
        apis.rotate_left(chosen);
        Self { reference: reference.clone(), found, layers_at_once, apis: Mutex::new(apis) }
    }

    fn apis(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Api>>> {
        self.apis.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for RegistrySource {
    fn found(&self) -> &Found {
        &self.found
    }

    async fn open(&self, blob: &Blob, offset_bytes: u64) -> Result<BlobStream, ImageError> {
        Ok(blob::open(self.apis().clone(), *blob, offset_bytes))
    }

    fn layers_at_once(&self) -> usize {
        self.layers_at_once
    }

    fn is_resumable(&self) -> bool {
        true
    }

    fn distrust(&self, blob: &Blob) -> bool {
        let mut apis = self.apis();
        if apis.len() < 2 {
            return false;
        }
        let liar = apis.remove(0);
        tracing::warn!(image = %self.reference, host = liar.host(), %blob, "a mirror gave a damaged layer");
        true
    }
}
