//! How central is dialled.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::CENTRAL_TLS_NAME;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::identity::Identity;
use super::pin::PinnedCa;

/// Time for TCP, and again for TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A central that answers no ping within both is gone. Together well below
/// the 45 s after which central counts the node as stale.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that one tunnel may have under way, and all of them: a screenshot
/// of the largest screen in one round trip.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Why an address is no address of central.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It cannot be parsed.
    #[error("\"{address}\" is no address: write e.g. \"https://central.example:7701\"")]
    Parse {
        /// What was given.
        address: String,
        /// What the parser said.
        #[source]
        source: tonic::transport::Error,
    },
    /// It is not encrypted, or names no host.
    #[error("\"{address}\" must begin with \"https://\" and name a host, e.g. \"https://central.example:7701\"")]
    Scheme {
        /// What was given.
        address: String,
    },
}

/// An endpoint without trust yet.
pub(super) fn endpoint(address: &str) -> Result<Endpoint, AddressError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| AddressError::Parse { address: address.into(), source })?;
    let uri = endpoint.uri();
    if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
        return Err(AddressError::Scheme { address: address.into() });
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

/// First contact: no certificate of our own, central by its fingerprint.
pub(super) fn pinned(endpoint: &Endpoint, ca_sha256: [u8; 32]) -> Result<Endpoint, tonic::transport::Error> {
    endpoint.clone().tls_config_with_verifier(tls(), Arc::new(PinnedCa::new(ca_sha256)))
}

/// Ever after: both sides by certificate. Fails if key and certificate do not
/// belong together.
pub(super) fn mutual(endpoint: &Endpoint, identity: &Identity) -> Result<Endpoint, tonic::transport::Error> {
    let own = tonic::transport::Identity::from_pem(&identity.certificate_pem, &identity.key_pem);
    endpoint.clone().tls_config(tls().ca_certificate(Certificate::from_pem(&identity.ca_pem)).identity(own))
}

fn tls() -> ClientTlsConfig {
    ClientTlsConfig::new().domain_name(CENTRAL_TLS_NAME).timeout(CONNECT_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_encrypted_address_is_accepted() {
        assert!(endpoint("https://10.0.0.1:7443").is_ok());
        assert!(matches!(endpoint("http://10.0.0.1:7443"), Err(AddressError::Scheme { .. })));
        assert!(matches!(endpoint("10.0.0.1:7443"), Err(AddressError::Scheme { .. })));
        assert!(matches!(endpoint("https://a b"), Err(AddressError::Parse { .. })));
    }
}
