//! Registries as a source of images.
//!
//! A reference becomes a list of endpoints (mirrors first, `host.rs`, pure);
//! each is spoken to by an [`http::Api`], which knows credentials, tokens and
//! retries. `resolve.rs` finds manifest and configuration, `signature.rs`
//! asks whether they may be used, and [`RegistrySource`] hands the layers to
//! the one import that archives go through as well. This room checks what it
//! needs itself; that blobs are what their digests say is the import's to
//! check.

mod advice;
mod auth;
mod blob;
pub mod credentials;
pub mod error;
mod guard;
mod host;
mod http;
mod resolve;
mod retry;
mod route;
pub mod signature;
mod source;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use roost_proto::model::ImageRef;

pub use error::RegistryError;
pub use source::RegistrySource;

use crate::config::{ImagesConfig, RegistryConfig};
use crate::containerd::image::Progress;
use credentials::{Credential, Credentials};
use http::Api;
use route::Route;

/// All registries, as configured; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registries {
    config: Arc<ImagesConfig>,
    /// The way to each host.
    routes: Arc<Mutex<HashMap<String, KnownRoute>>>,
    /// What credentials were ever read, for [`Registries::secrets`].
    secrets: Arc<Mutex<BTreeSet<String>>>,
}

/// A way that was made, and what proxies were told on it.
#[derive(Debug)]
struct KnownRoute {
    logins: Vec<Option<Credential>>,
    route: Route,
}

impl Registries {
    /// Registries; nothing is asked or read yet.
    #[must_use]
    pub fn new(config: ImagesConfig) -> Self {
        Self { config: Arc::new(config), routes: Arc::default(), secrets: Arc::default() }
    }

    /// Every secret for registries and proxies that this process has read,
    /// also those that the file no longer holds, with what it holds now. A
    /// file that cannot be read now adds nothing: what was never read is in no
    /// log either.
    pub async fn secrets(&self) -> Vec<String> {
        if let Err(error) = self.credentials().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "no credentials of registries");
        }
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Read each time, so that new ones need no restart.
    async fn credentials(&self) -> Result<Credentials, RegistryError> {
        let credentials = Credentials::load(self.config.credentials_file.as_ref()).await?;
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).extend(credentials.secrets());
        Ok(credentials)
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
                    signature::check(&apis[n..], reference, &digests, &self.config.signatures).await?;
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

    /// The endpoints of a reference, ready to be asked.
    async fn apis(&self, reference: &ImageRef) -> Result<Vec<Arc<Api>>, RegistryError> {
        let endpoints = host::endpoints(reference, &self.config.registries);
        let credentials = self.credentials().await?;
        let mut apis = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let route = self.route(&endpoint, &credentials).await?;
            let credential = credentials.of_host(&endpoint.host).cloned();
            let token_hosts = self.entry(&endpoint.host).map(|entry| entry.token_hosts.clone()).unwrap_or_default();
            let api = Api::new(route, endpoint, reference.clone(), credential);
            apis.push(Arc::new(api.with_attempts(self.config.attempts).with_token_hosts(token_hosts)));
        }
        Ok(apis)
    }

    /// The way to a host, with its pool of connections; made anew when what a
    /// proxy is told has changed.
    async fn route(&self, endpoint: &host::Endpoint, credentials: &Credentials) -> Result<Route, RegistryError> {
        let known = || self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let logins = route::logins(&self.config.proxy, credentials);
        if let Some(known) = known().get(&endpoint.host).filter(|known| known.logins == logins) {
            return Ok(known.route.clone());
        }
        let entry = self.entry(&endpoint.host);
        let ca = match entry.and_then(|entry| entry.ca_file.as_ref()) {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        let is_mirror = || self.config.registries.iter().any(|registry| registry.mirrors.contains(&endpoint.host));
        let own = (entry.is_some() || is_mirror()).then_some(&*endpoint.host);
        let token_hosts = entry.into_iter().flat_map(|entry| &entry.token_hosts).map(String::as_str);
        let trusted: Vec<&str> = own.into_iter().chain(token_hosts).collect();
        let route = route::route(endpoint, ca.as_deref(), &self.config.proxy, credentials, &trusted)?;
        known().insert(endpoint.host.clone(), KnownRoute { logins, route: route.clone() });
        Ok(route)
    }

    fn entry(&self, host: &str) -> Option<&RegistryConfig> {
        self.config.registries.iter().find(|registry| registry.host == host)
    }
}

/// Reads a small file of the configuration.
async fn read(path: &PathBuf) -> Result<Vec<u8>, RegistryError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| RegistryError::File { path: path.clone(), source: Box::new(source) })
}
