//! How one host is reached: TLS, proxy, where it may lead.

use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy};

use super::credentials::{Credential, Credentials};
use super::error::RegistryError;
use super::guard::Guard;
use super::host::Endpoint;
use crate::config::ProxyConfig;

/// Longest time for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to one host; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// For the registry itself; follows its redirects.
    pub(super) client: Client,
    /// For its token service; follows none, as the request's body may be a
    /// secret.
    pub(super) tokens: Client,
    /// Where answers may lead.
    pub(super) guard: Guard,
    /// `host:port` of the proxy on the way, if there is one.
    pub(super) proxy: Option<String>,
}

/// What proxies are told, in the order of [`proxies`].
pub(super) fn logins(config: &ProxyConfig, credentials: &Credentials) -> Vec<Option<Credential>> {
    proxies(config).map(|(url, _)| credentials.of_host(host_of(url)).cloned()).collect()
}

/// Makes the way to one host. `trusted` are the hosts of the configuration that
/// it may lead to, wherever they lie.
///
/// # Errors
/// The certificates or the proxy cannot be used.
pub(super) fn route(
    endpoint: &Endpoint,
    ca: Option<&[u8]>,
    config: &ProxyConfig,
    credentials: &Credentials,
    trusted: &[&str],
) -> Result<Route, RegistryError> {
    let wrong = |source: reqwest::Error| RegistryError::File {
        path: format!("the TLS or proxy settings of {}", endpoint.host).into(),
        source: Box::new(source),
    };
    let proxy_hosts = proxies(config).map(|(url, _)| host_of(url));
    let guard = Guard::new(trusted.iter().copied().chain(proxy_hosts));
    let build = |policy: Policy| {
        let mut builder = Client::builder()
            .user_agent(concat!("roostd/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .dns_resolver(guard.clone())
            .redirect(policy)
            .no_proxy();
        builder = with_proxies(builder, config, credentials)?;
        builder = match ca {
            Some(ca) => builder.tls_certs_merge(Certificate::from_pem_bundle(ca)?),
            // No root certificates are needed, and a machine may have none.
            None if endpoint.is_plain() => builder.tls_certs_only([]),
            None => builder,
        };
        builder.build()
    };
    let client = build(guard.policy()).map_err(wrong)?;
    let tokens = build(Policy::none()).map_err(wrong)?;
    Ok(Route { client, tokens, proxy: proxy_of(&endpoint.base, config), guard })
}

fn with_proxies(
    mut builder: ClientBuilder,
    config: &ProxyConfig,
    credentials: &Credentials,
) -> Result<ClientBuilder, reqwest::Error> {
    let no_proxy = NoProxy::from_string(&config.no_proxy.join(","));
    for (url, is_tls) in proxies(config) {
        let mut proxy = if is_tls { Proxy::https(url) } else { Proxy::http(url) }?;
        if let Some(Credential::Password { username, password }) = credentials.of_host(host_of(url)) {
            proxy = proxy.basic_auth(username, password);
        }
        builder = builder.proxy(proxy.no_proxy(no_proxy.clone()));
    }
    Ok(builder)
}

/// The proxies that are configured, and whether each is for TLS.
fn proxies(config: &ProxyConfig) -> impl Iterator<Item = (&str, bool)> {
    let named = [(config.http.as_deref(), false), (config.https.as_deref(), true)];
    named.into_iter().filter_map(|(url, is_tls)| Some((url?, is_tls)))
}

/// `host:port` of a proxy's URL: its name in the credentials.
fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host.trim_end_matches('/'))
}

/// The proxy that a URL is asked through. The rules are those of the client,
/// which are this crate's.
fn proxy_of(base: &str, config: &ProxyConfig) -> Option<String> {
    let text = |url: &Option<String>| url.clone().unwrap_or_default();
    let matcher = Matcher::builder().http(text(&config.http)).https(text(&config.https));
    let found = matcher.no(config.no_proxy.join(",")).build().intercept(&base.parse().ok()?)?;
    Some(found.uri().authority()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_on_the_way_is_known_by_scheme_and_exception() {
        let config = ProxyConfig {
            http: None,
            https: Some("http://proxy.example:3128".into()),
            no_proxy: vec![".local".into(), "10.0.0.0/8".into(), "own.example".into()],
        };
        let proxy = |base: &str| proxy_of(base, &config);
        assert_eq!(proxy("https://registry.example").as_deref(), Some("proxy.example:3128"));
        assert_eq!(proxy("http://registry.example"), None);
        for direct in ["https://a.local", "https://10.2.3.4:5000", "https://own.example:5000", "https://a.own.example"]
        {
            assert_eq!(proxy(direct), None, "{direct}");
        }
    }
}
