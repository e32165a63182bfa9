//! TLS to PostgreSQL, with rustls and ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What makes a plain connection a TLS connection.
pub(super) type Tls = MakeRustlsConnect;

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// The file of certificates cannot be used.
    #[error("store.ca_file {} holds no certificate in PEM that can be read", .0.display())]
    CaFile(PathBuf, #[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The library refused.
    #[error("TLS cannot be set up")]
    Library(#[from] rustls::Error),
}

/// A client that trusts the certificates in `ca_file`, or the system's.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Tls, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            let fault = |source| TlsError::CaFile(path.to_owned(), source);
            let read = CertificateDer::pem_file_iter(path).map_err(|error| fault(Some(Box::new(error))))?;
            for certificate in read {
                let certificate = certificate.map_err(|error| fault(Some(Box::new(error))))?;
                roots.add(certificate).map_err(|error| fault(Some(Box::new(error))))?;
            }
            if roots.is_empty() {
                return Err(fault(None));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}
