//! How central is dialled.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::CENTRAL_TLS_NAME;
use roost_proto::protocol::RETRY_AFTER_MS;
use rustls::{AlertDescription, CertificateError};
use tonic::Status;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::identity::Identity;
use super::pin::{PinnedCa, tls_errors};

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

/// A handshake that failed because the clocks of node and central differ, or
/// because a certificate was really not renewed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClockProblem {
    #[error(
        "by this node's clock central's certificate begins {0} s from now: this clock is behind, or central's is \
         ahead; set up time synchronisation on both"
    )]
    NotYet(u64),
    #[error(
        "by this node's clock central's certificate ended {0} s ago: this clock is ahead, or central did not renew; \
         set up time synchronisation on both"
    )]
    Ended(u64),
    #[error(
        "by central's clock this node's certificate has ended or not begun: compare the clocks, then make a join \
         token (`roost node join-token`)"
    )]
    Refused,
}

impl ClockProblem {
    /// The problem behind an error of the transport, if it is one.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        tls_errors(error).find_map(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
                Some(Self::NotYet(not_before.as_secs().saturating_sub(time.as_secs())))
            }
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
                Some(Self::Ended(time.as_secs().saturating_sub(not_after.as_secs())))
            }
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Some(Self::Refused),
            _ => None,
        })
    }
}

/// When central wants to be asked again, if a refusal says so.
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    let text = status.metadata().get(RETRY_AFTER_MS)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
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
