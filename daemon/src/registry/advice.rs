//! What to do when a registry cannot be reached. Pure.

use std::error::Error;

use crate::sandbox::failure::chain;

/// What the HTTP client's tunnels say of a 407; it gives them no type.
const TUNNEL_WANTS_LOGIN: &str = "tunnel error: proxy authorization required";
/// What they say of any other refusal.
const TUNNEL_REFUSED: &str = "tunnel error: unsuccessful";

/// The next step when a user's reference names a host like `localhost`.
pub(super) const NAME_IT: &str =
    "only this machine reaches that host, so it must be named: give it an entry in images.registries";

/// A proxy's 407, where the request goes to it without a tunnel.
#[derive(Debug, thiserror::Error)]
#[error("the proxy wants a login")]
pub(super) struct LoginWanted;

/// Whether another try would end in the same way.
pub(super) fn is_final(source: &(dyn Error + 'static)) -> bool {
    wants_login(source) || super::guard::detour(source).is_some()
}

/// The next step for a person. `proxy`: `host:port` of the one on the way.
pub(super) fn advice(host: &str, proxy: Option<&str>, source: &(dyn Error + 'static)) -> String {
    let Some(proxy) = proxy else { return "check network and images.registries, then pull again".into() };
    if wants_login(source) {
        return format!(
            "proxy {proxy} does not accept this node's login: give username and password for [registry.\"{proxy}\"] in images.credentials_file"
        );
    }
    if chain(source).contains(TUNNEL_REFUSED) {
        return format!(
            "proxy {proxy} does not connect to it: let it, check [registry.\"{proxy}\"] in images.credentials_file, or name the host in images.proxy.no_proxy"
        );
    }
    format!("{host} is asked through proxy {proxy}: check that and images.proxy, then pull again")
}

fn wants_login(source: &(dyn Error + 'static)) -> bool {
    source.is::<LoginWanted>() || chain(source).contains(TUNNEL_WANTS_LOGIN)
}
