//! Registries as a source of images.
//!
//! A reference becomes a list of endpoints (mirrors first, `host.rs`, pure);
//! each is spoken to by an [`http::Api`], which knows credentials, tokens and
//! retries. `resolve.rs` finds manifest and configuration, `signature.rs`
//! asks whether they may be used, and [`RegistrySource`] hands the layers to
//! the one import that archives go through as well. This room checks what it
//! needs itself; that blobs are what their digests say is the import's to
//! check.

mod auth;
mod blob;
pub mod credentials;
pub mod error;
mod host;
mod http;
mod resolve;
mod retry;
pub mod signature;
mod source;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use roost_proto::model::ImageRef;

pub use error::RegistryError;
pub use source::RegistrySource;

use crate::config::ImagesConfig;
use crate::containerd::image::Progress;
use credentials::Credentials;
use http::Api;

/// All registries, as configured; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registries {
    config: Arc<ImagesConfig>,
    /// One connection pool for each host.
    clients: Arc<Mutex<HashMap<String, reqwest::Client>>>,
}

impl Registries {
    /// Registries; nothing is asked or read yet.
    #[must_use]
    pub fn new(config: ImagesConfig) -> Self {
        Self { config: Arc::new(config), clients: Arc::default() }
    }

    /// Finds an image for this machine: its manifest and configuration, from
    /// the first mirror that has them, and their signature where a rule asks
    /// for one.
    ///
    /// # Errors
    /// See [`RegistryError`]: that of the registry itself, or of its only
    /// mirror that answered.
    pub async fn find(&self, reference: &ImageRef, progress: &Progress) -> Result<RegistrySource, RegistryError> {
        let apis = self.apis(reference).await?;
        let mut last = None;
        for (n, api) in apis.iter().enumerate() {
            progress.source(api.host());
            match resolve::resolve(api, reference).await {
                Ok(resolved) => {
                    let mut digests = vec![resolved.top, resolved.found.documents.manifest.blob().digest];
                    digests.dedup();
                    signature::check(api, reference, &digests, &self.config.signatures).await?;
                    let layers_at_once = self.config.layers_at_once;
                    return Ok(RegistrySource::new(reference, resolved.found, apis, n, layers_at_once));
                }
                Err(error) => {
                    if n + 1 < apis.len() {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(image = %reference, mirror = api.host(), error, "mirror does not give the image");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::NoRegistry { reference: reference.clone() }))
    }

    /// The endpoints of a reference, ready to be asked. Credentials are read
    /// each time, so that new ones need no restart.
    async fn apis(&self, reference: &ImageRef) -> Result<Vec<Arc<Api>>, RegistryError> {
        let endpoints = host::endpoints(reference, &self.config.registries);
        let credentials = Credentials::load(self.config.credentials_file.as_ref()).await?;
        let mut apis = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let client = self.client(&endpoint, &credentials).await?;
            let credential = credentials.of_host(&endpoint.host).cloned();
            apis.push(Arc::new(Api::new(client, endpoint, reference.clone(), credential, self.config.attempts)));
        }
        Ok(apis)
    }

    async fn client(
        &self,
        endpoint: &host::Endpoint,
        credentials: &Credentials,
    ) -> Result<reqwest::Client, RegistryError> {
        let known = || self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known().get(&endpoint.host) {
            return Ok(client.clone());
        }
        let ca = match self.ca_file(&endpoint.host) {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        let client = http::client(endpoint, ca.as_deref(), &self.config.proxy, credentials)?;
        known().insert(endpoint.host.clone(), client.clone());
        Ok(client)
    }

    fn ca_file(&self, host: &str) -> Option<&PathBuf> {
        self.config.registries.iter().find(|registry| registry.host == host)?.ca_file.as_ref()
    }
}

/// Reads a small file of the configuration.
async fn read(path: &PathBuf) -> Result<Vec<u8>, RegistryError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| RegistryError::File { path: path.clone(), source: Box::new(source) })
}
