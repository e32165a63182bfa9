//! Configuration of images: registries, limits, garbage collection.

use std::net::IpAddr;
use std::path::PathBuf;

use roost_proto::model::ImageRef;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Images of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesConfig {
    /// Images that are never collected or pruned, besides the display images.
    pub keep: Vec<ImageRef>,
    /// File with the credentials of registries; only root may read it.
    pub credentials_file: Option<PathBuf>,
    /// Layers of one image that come in at the same time.
    pub layers_at_once: usize,
    /// Tries of one request before the next mirror is asked.
    pub attempts: u32,
    /// Largest image, unpacked, in bytes.
    pub max_unpacked_bytes: u64,
    /// Most files, directories and links of one image.
    pub max_files: u64,
    /// When unused images go by themselves.
    pub gc: GcConfig,
    /// Proxy between the node and registries.
    pub proxy: ProxyConfig,
    /// Registries that need more than their name.
    pub registries: Vec<RegistryConfig>,
    /// Which images must be signed.
    pub signatures: Vec<SignatureConfig>,
}

/// When unused images go by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcConfig {
    /// Whether they do.
    pub enabled: bool,
    /// Use of containerd's file system from which images are removed, in
    /// percent.
    pub high_percent: u8,
    /// Use at which that stops, in percent.
    pub low_percent: u8,
    /// Images that were used later than this stay, in seconds.
    pub min_unused_s: u64,
    /// Between two looks, in seconds.
    pub period_s: u64,
}

/// Proxy between the node and registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// For plain HTTP, e.g. `http://proxy.example:3128`.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Hosts, domains and networks that are asked directly.
    pub no_proxy: Vec<String>,
}

/// One registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Its host, as references name it, with the port if there is one.
    pub host: String,
    /// Hosts that are asked before it, in this order. One that needs more
    /// than its name has an entry of its own.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// PEM file with certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether it is spoken to by plain HTTP.
    #[serde(default)]
    pub insecure: bool,
    /// Hosts besides its own that its credentials may go to for a token,
    /// without a port.
    #[serde(default)]
    pub token_hosts: Vec<String>,
}

/// Which images must be signed, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureConfig {
    /// Registry, or registry and the first parts of a path. The rule with the
    /// longest scope counts.
    pub scope: String,
    /// PEM files of cosign public keys (ECDSA P-256); a signature by one of
    /// them is enough. Empty = images of this scope need none.
    pub cosign_keys: Vec<PathBuf>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            keep: Vec::new(),
            credentials_file: None,
            // What docker and containerd do: more only compete for the disk.
            layers_at_once: 3,
            attempts: 5,
            max_unpacked_bytes: 64 << 30,
            // Four times the largest desktop images.
            max_files: 2_000_000,
            gc: GcConfig::default(),
            proxy: ProxyConfig::default(),
            registries: Vec::new(),
            signatures: Vec::new(),
        }
    }
}

impl Default for GcConfig {
    /// The thresholds of Kubernetes' kubelet are 85 and 80; images of
    /// desktops are larger, so that one round should last longer.
    fn default() -> Self {
        Self { enabled: true, high_percent: 85, low_percent: 75, min_unused_s: 3600, period_s: 60 }
    }
}

impl ImagesConfig {
    /// Finds values that cannot work.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        require((1..=16).contains(&self.layers_at_once), "images.layers_at_once", "must be 1 to 16")?;
        require((1..=20).contains(&self.attempts), "images.attempts", "must be 1 to 20")?;
        require(self.max_unpacked_bytes > 0, "images.max_unpacked_bytes", "must be above 0")?;
        require(self.max_files > 0, "images.max_files", "must be above 0")?;
        let gc = self.gc;
        let percents = gc.low_percent < gc.high_percent && gc.high_percent <= 100;
        require(percents, "images.gc.high_percent", "must be above low_percent and at most 100")?;
        require(gc.period_s >= 1, "images.gc.period_s", "must be at least 1")?;
        let plain = |url: &&String| is_proxy(url);
        let proxies_ok = self.proxy.http.iter().chain(&self.proxy.https).all(|url| plain(&url));
        let rule = "must be such as \"http://proxy.example:3128\"; its password belongs into images.credentials_file";
        require(proxies_ok, "images.proxy", rule)?;
        let rule = "must be a host such as \"registry.example\" or \"registry.local:5000\", without scheme and path";
        let hosts = || self.registries.iter().flat_map(|r| r.mirrors.iter().chain([&r.host]));
        require(hosts().all(|host| is_host(host)), "images.registries", rule)?;
        let rule = "must be hosts such as \"auth.example\", without scheme, port and path";
        let token_hosts = || self.registries.iter().flat_map(|r| &r.token_hosts);
        require(token_hosts().all(|host| is_name(host)), "images.registries.token_hosts", rule)?;
        let rule = "must be hosts, domains or networks such as \".local\" or \"10.0.0.0/8\", without scheme and port";
        require(self.proxy.no_proxy.iter().all(|entry| is_no_proxy(entry)), "images.proxy.no_proxy", rule)?;
        let rule = "must be a registry with or without the beginning of a path, such as \"registry.example/team\"";
        require(self.signatures.iter().all(|s| is_scope(&s.scope)), "images.signatures", rule)
    }
}

fn require(ok: bool, field: &'static str, problem: &str) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError::Invalid { field, problem: problem.to_owned() }) }
}

fn is_host(host: &str) -> bool {
    format!("{host}/x").parse::<ImageRef>().is_ok_and(|reference| reference.registry() == Some(host))
}

fn is_scope(scope: &str) -> bool {
    let host = scope.split('/').next().unwrap_or_default();
    let rest = &scope[host.len()..];
    is_host(host) && (rest.is_empty() || format!("{host}{rest}").parse::<ImageRef>().is_ok())
}

fn is_proxy(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| is_host(rest.trim_end_matches('/')))
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// A port would make the entry match nothing.
fn is_no_proxy(entry: &str) -> bool {
    let (address, prefix) = entry.split_once('/').map_or((entry, None), |(address, prefix)| (address, Some(prefix)));
    match address.parse::<IpAddr>() {
        Ok(address) => {
            let most = if address.is_ipv4() { 32 } else { 128 };
            prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|prefix| prefix <= most))
        }
        Err(_) => entry == "*" || is_name(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(edit: impl FnOnce(&mut ImagesConfig)) -> &'static str {
        let mut config = ImagesConfig::default();
        edit(&mut config);
        match config.check() {
            Err(ConfigError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        ImagesConfig::default().check().unwrap();
        assert_eq!(refused(|c| c.gc.low_percent = 90), "images.gc.high_percent");
        assert_eq!(refused(|c| c.layers_at_once = 0), "images.layers_at_once");
        let host = |host: &str| RegistryConfig { host: host.into(), ..RegistryConfig::default() };
        assert_eq!(refused(|c| c.registries.push(host("https://r.example"))), "images.registries");
        assert_eq!(refused(|c| c.registries.push(host("plain"))), "images.registries");
        let proxy = |url: &str| ProxyConfig { http: Some(url.into()), ..ProxyConfig::default() };
        assert_eq!(refused(|c| c.proxy = proxy("http://user:secret@p.example:1")), "images.proxy");
        for wrong in ["registry.local:5000", "http://a.example", "10.0.0.0/33", "", "a.example,b.example"] {
            assert_eq!(refused(|c| c.proxy.no_proxy.push(wrong.into())), "images.proxy.no_proxy", "{wrong}");
        }
        let mut right = ImagesConfig::default();
        right.proxy.no_proxy = [".local", "10.0.0.0/8", "fd00::/8", "::1", "*", "own.example"].map(Into::into).into();
        right.check().unwrap();
        let token_host = RegistryConfig { token_hosts: vec!["https://auth.example".into()], ..host("r.example") };
        assert_eq!(refused(|c| c.registries.push(token_host.clone())), "images.registries.token_hosts");
        let rule = |scope: &str| SignatureConfig { scope: scope.into(), cosign_keys: Vec::new() };
        assert_eq!(refused(|c| c.signatures.push(rule("team"))), "images.signatures");
    }
}
