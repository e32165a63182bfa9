//! Central's own certificate authorities: for nodes only, never for people.
//!
//! The keys live in the state directory (0600) and nowhere else. Nodes trust
//! the CA by its SHA-256 in their join token, which is why the server sends it
//! along in its chain. A node's certificate names the node in one SPIFFE-style
//! URI and nothing else counts.

mod authority;
mod rotation;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use roost_proto::id::NodeId;
use roost_proto::model::NodeCertificate;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::secret::hex;

pub use authority::Authority;
pub use rotation::{Authorities, Keeper};

/// What a node's URI begins with; the node id follows.
const NODE_URI_PREFIX: &str = "spiffe://roost/node/";
/// Life of a CA: ten years; it is rotated, never renewed.
const CA_VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far clocks may be apart before a new certificate is "not yet valid".
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// What goes wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the CA cannot be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Key or certificate of the CA is damaged.
    #[error("{} is damaged: restore the directory of the CA from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A node's request cannot be read, or its signature is wrong.
    #[error("the certificate request is invalid: send a PKCS#10 request in DER, signed with its own key")]
    Request(#[source] rcgen::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate for {subject}")]
    Sign {
        /// For whom.
        subject: String,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// A presented certificate does not name a node.
    #[error("the client certificate does not name a node: enrol again")]
    NoNode,
    /// There is a next CA already.
    #[error("a rotation of the CA is under way: see `roost-central ca status`, then `roost-central ca retire`")]
    UnderWay,
    /// There is no next CA.
    #[error("no rotation of the CA is under way: begin one with `roost-central ca rotate`")]
    NoRotation,
}

/// A certificate and when it ends.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate in PEM, without the CA.
    pub certificate_pem: String,
    /// Unix time of its end, in milliseconds.
    pub not_after_unix_ms: u64,
}

/// Central's identity as a server.
pub struct ServerIdentity {
    /// Its certificate and then the CA's.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerIdentity(…)")
    }
}

/// Reads a request and proves that its sender holds the key.
///
/// # Errors
/// [`CaError::Request`].
pub fn read_request(csr_der: &[u8]) -> Result<impl PublicKeyData + use<>, CaError> {
    let request = CertificateSigningRequestDer::from(csr_der);
    let request = CertificateSigningRequestParams::from_der(&request).map_err(CaError::Request)?;
    Ok(request.public_key)
}

/// The node that a verified client certificate names.
///
/// # Errors
/// [`CaError::NoNode`] unless it has exactly one URI and that is a node's.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, CaError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CaError::NoNode)?;
    let names = parsed.subject_alternative_name().map_err(|_| CaError::NoNode)?.ok_or(CaError::NoNode)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return Err(CaError::NoNode) };
    uri.strip_prefix(NODE_URI_PREFIX).and_then(|id| id.parse().ok()).ok_or(CaError::NoNode)
}

/// Who issued a node's certificate, and when it ends.
///
/// # Errors
/// [`CaError::NoNode`] when it does not name the key of its issuer.
pub fn describe(certificate: &CertificateDer<'_>) -> Result<NodeCertificate, CaError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CaError::NoNode)?;
    let issuer = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
        _ => None,
    });
    let ca_key_id = hex(issuer.ok_or(CaError::NoNode)?.0);
    Ok(NodeCertificate { ca_key_id, not_after_unix_ms: end_of(&parsed) })
}

/// End of a certificate, Unix time in milliseconds.
fn end_of(certificate: &X509Certificate<'_>) -> u64 {
    u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1000)
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// [`CaError::File`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), CaError> {
    let temporary = path.with_extension("new");
    let write = || {
        // What an earlier crash left, or a link that somebody put there: opened,
        // it would keep its mode or lead elsewhere.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
    };
    write().map_err(|source| file_error("write", path, source))
}

fn file_error(operation: &'static str, path: &Path, source: std::io::Error) -> CaError {
    CaError::File { operation, path: path.to_owned(), source }
}

fn damaged(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CaError {
    CaError::Damaged { path: path.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::clock;

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://roost/node/somebody-else".try_into().unwrap())];
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_names_the_node_that_central_chose_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = Authorities::open_or_create(dir.path()).unwrap();
        let node = NodeId::random();
        let key = read_request(&request()).unwrap();
        let issued = authorities.issuing().issue(&key, &node, Duration::from_secs(60)).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
        assert_eq!(node_of(&der).unwrap(), node);
        assert!(issued.not_after_unix_ms <= clock::now_unix_ms() + 60_000);
        let described = describe(&der).unwrap();
        assert_eq!(described.ca_key_id, authorities.serving().key_id());
        assert_eq!(described.not_after_unix_ms, issued.not_after_unix_ms);
    }

    #[test]
    fn a_request_with_a_foreign_signature_is_refused() {
        let mut request = request();
        let last = request.len() - 1;
        request[last] ^= 1;
        assert!(read_request(&request).is_err());
        assert!(read_request(b"hello").is_err());
    }

    #[test]
    fn a_private_file_follows_no_link_and_takes_over_no_mode() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("x.key"), dir.path().join("victim"));
        std::fs::write(&victim, "theirs").unwrap();
        symlink(&victim, dir.path().join("x.new")).unwrap();
        write_private(&path, b"secret").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "theirs");
        std::fs::write(dir.path().join("x.new"), "left open to all").unwrap();
        write_private(&path, b"secret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_ca_itself_is_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = Authorities::open_or_create(dir.path()).unwrap();
        assert!(matches!(node_of(authorities.serving().certificate()), Err(CaError::NoNode)));
    }
}
