//! Which hosts are asked for an image, and in which order. Pure.

use roost_proto::model::ImageRef;

use crate::config::RegistryConfig;

/// One host that may have the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Its name in configuration and credentials.
    pub(super) host: String,
    /// E.g. `https://registry.example`.
    pub(super) base: String,
    /// Path of the image there.
    pub(super) repository: String,
    /// The registry that this is a mirror of.
    pub(super) mirror_of: Option<String>,
}

impl Endpoint {
    /// Whether it is spoken to by plain HTTP.
    pub(super) fn is_plain(&self) -> bool {
        self.base.starts_with("http://")
    }
}

/// Mirrors in their order, then the registry itself; none for a reference
/// that names no registry.
pub(super) fn endpoints(reference: &ImageRef, registries: &[RegistryConfig]) -> Vec<Endpoint> {
    let Some(registry) = reference.registry() else { return Vec::new() };
    let find = |host: &str| registries.iter().find(|r| r.host == host);
    let endpoint = |host: &str| {
        let scheme = if find(host).is_some_and(|r| r.insecure) { "http" } else { "https" };
        Endpoint {
            host: host.to_owned(),
            base: format!("{scheme}://{}", api_host(host)),
            repository: repository(registry, reference.repository()),
            mirror_of: (host != registry).then(|| registry.to_owned()),
        }
    };
    let mirrors = find(registry).map(|r| r.mirrors.as_slice()).unwrap_or_default();
    mirrors.iter().map(String::as_str).chain([registry]).map(endpoint).collect()
}

/// Docker's registry answers under another name than references give it.
fn api_host(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

fn repository(registry: &str, path: &str) -> String {
    if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(reference: &str, registries: &[RegistryConfig]) -> Vec<String> {
        let endpoints = endpoints(&reference.parse().unwrap(), registries);
        endpoints.into_iter().map(|e| format!("{}/v2/{}", e.base, e.repository)).collect()
    }

    #[test]
    fn mirrors_come_first_and_only_hosts_that_are_named_are_plain() {
        let config = |host: &str, mirrors: &[&str], insecure| RegistryConfig {
            host: host.into(),
            mirrors: mirrors.iter().map(|&m| m.into()).collect(),
            insecure,
            ..RegistryConfig::default()
        };
        let registries = [config("r.example", &["m.local:5000", "n.local"], false), config("m.local:5000", &[], true)];
        assert_eq!(
            asked("r.example/team/app:1", &registries),
            ["http://m.local:5000/v2/team/app", "https://n.local/v2/team/app", "https://r.example/v2/team/app"]
        );
        assert_eq!(asked("other.example/app", &registries), ["https://other.example/v2/app"]);
        assert!(asked("roost/desktop", &registries).is_empty());
    }

    #[test]
    fn dockers_registry_has_its_own_names() {
        assert_eq!(asked("docker.io/debian:12", &[]), ["https://registry-1.docker.io/v2/library/debian"]);
    }
}
