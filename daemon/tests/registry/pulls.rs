//! Pulls as a daemon makes them.

use std::sync::Arc;

use roost_proto::model::ImageInfo;
use roostd::config::{ImagesConfig, RegistryConfig};
use roostd::containerd::image::{DEFAULT_SNAPSHOTTER, ImageError, UnpackLimits};
use roostd::pull::{PullError, Puller};
use roostd::registry::{Registries, RegistryError};
use roostd::sandbox::image::Images;
use roostd::tasks::Tasks;

use crate::private_containerd::PrivateContainerd;

pub(crate) fn entry(host: &str, mirrors: &[&str]) -> RegistryConfig {
    let mirrors = mirrors.iter().map(|&mirror| mirror.to_owned()).collect();
    RegistryConfig { host: host.to_owned(), mirrors, insecure: true, ca_file: None, token_hosts: Vec::new() }
}

/// Plain HTTP to these hosts; few tries, so that failures come soon.
pub(crate) fn config(hosts: &[&str]) -> ImagesConfig {
    let registries = hosts.iter().map(|host| entry(host, &[])).collect();
    ImagesConfig { registries, attempts: 3, ..ImagesConfig::default() }
}

/// A daemon's pulls: made anew it is a daemon that started again.
pub(crate) fn puller(containerd: &PrivateContainerd, config: ImagesConfig) -> Puller {
    let limits = UnpackLimits { max_bytes: config.max_unpacked_bytes, max_files: config.max_files, reserve_bytes: 0 };
    let store = containerd.images().with_limits(limits);
    let images = Images::new(containerd.client.clone(), store, DEFAULT_SNAPSHOTTER);
    Puller::new(images, Registries::new(config), Tasks::default())
}

pub(crate) async fn pull(puller: &Puller, reference: &str) -> Result<ImageInfo, Arc<ImageError>> {
    match puller.pull(&reference.parse().unwrap()).done().await {
        Ok(image) => Ok(image),
        Err(PullError::Image(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn registry_error(error: &ImageError) -> &RegistryError {
    match error {
        ImageError::Registry(error) => error,
        error => panic!("{error:?}"),
    }
}

/// A file of credentials with one section for each host.
pub(crate) fn credentials(entries: &[(&str, &str, &str)]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let section = |(host, user, password): &(&str, &str, &str)| {
        format!("[registry.\"{host}\"]\nusername = \"{user}\"\npassword = \"{password}\"\n")
    };
    std::fs::write(file.path(), entries.iter().map(section).collect::<String>()).unwrap();
    file
}

/// An error with all its causes.
pub(crate) fn told(error: &ImageError) -> String {
    roostd::sandbox::failure::chain(error)
}
