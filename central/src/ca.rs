//! Central's own certificate authority: for nodes only, never for people.
//!
//! The key lives in the state directory (0600) and nowhere else. Nodes trust
//! the CA by its SHA-256 in their join token, which is why the server sends it
//! along in its chain. A node's certificate names the node in one SPIFFE-style
//! URI and nothing else counts.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use roost_proto::CENTRAL_TLS_NAME;
use roost_proto::id::NodeId;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::clock;
use crate::secret::sha256_hex;

/// What a node's URI begins with; the node id follows.
const NODE_URI_PREFIX: &str = "spiffe://roost/node/";
/// Life of the CA and of central's own certificate, which is made anew with
/// each start: ten years.
const CA_VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far clocks may be apart before a new certificate is "not yet valid".
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// What goes wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the CA cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// "read" or "write".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Key or certificate of the CA is damaged.
    #[error("the CA in {} is damaged: restore both of its files from a backup", path.display())]
    Damaged {
        /// The directory.
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
    /// Its certificate and then the CA's, in PEM.
    pub chain_pem: String,
    /// Its private key in PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerIdentity(…)")
    }
}

/// The certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    fingerprint: String,
}

impl Authority {
    /// Opens the CA in `dir`, or makes one where there is none.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn open_or_create(dir: &Path) -> Result<Self, CaError> {
        let (key_path, ca_path) = (dir.join("ca.key"), dir.join("ca.crt"));
        if !key_path.exists() && !ca_path.exists() {
            create(dir, &key_path, &ca_path)?;
        }
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|source| file_error("read", path, source));
        let (key_pem, ca_pem) = (read(&key_path)?, read(&ca_path)?);
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| CaError::Damaged { path: dir.into(), source };
        let key = KeyPair::from_pem(&key_pem).map_err(|e| damaged(e.into()))?;
        let der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|e| damaged(e.into()))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged(e.into()))?;
        Ok(Self { issuer, fingerprint: sha256_hex(&der), ca_pem })
    }

    /// The CA's certificate in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA's certificate in DER, in lower-case hex.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Makes a key and a certificate for the NodeLink listener.
    ///
    /// # Errors
    /// [`CaError::Sign`].
    pub fn server_identity(&self) -> Result<ServerIdentity, CaError> {
        let sign = |source| CaError::Sign { subject: CENTRAL_TLS_NAME.into(), source };
        let key = KeyPair::generate().map_err(sign)?;
        let mut params = params(CENTRAL_TLS_NAME, CA_VALIDITY);
        let name = CENTRAL_TLS_NAME.try_into().map_err(sign)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign)?;
        Ok(ServerIdentity { chain_pem: format!("{}{}", certificate.pem(), self.ca_pem), key_pem: key.serialize_pem() })
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

    /// Certifies a node's key. Nothing of the node's request counts but the key.
    ///
    /// # Errors
    /// [`CaError::Sign`].
    pub fn issue(&self, key: &impl PublicKeyData, node: &NodeId, validity: Duration) -> Result<Issued, CaError> {
        let sign = |source| CaError::Sign { subject: node.to_string(), source };
        let mut params = params(node.as_str(), validity);
        let uri = format!("{NODE_URI_PREFIX}{node}").try_into().map_err(sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let not_after_unix_ms = u64::try_from(params.not_after.unix_timestamp()).unwrap_or(0) * 1000;
        let certificate = params.signed_by(key, &self.issuer).map_err(sign)?;
        Ok(Issued { certificate_pem: certificate.pem(), not_after_unix_ms })
    }
}

/// The node that a verified client certificate names.
///
/// # Errors
/// [`CaError::NoNode`] unless it has exactly one URI and that is a node's.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, CaError> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CaError::NoNode)?;
    let names = parsed.subject_alternative_name().map_err(|_| CaError::NoNode)?.ok_or(CaError::NoNode)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return Err(CaError::NoNode) };
    uri.strip_prefix(NODE_URI_PREFIX).and_then(|id| id.parse().ok()).ok_or(CaError::NoNode)
}

/// What every certificate of this CA has.
fn params(common_name: &str, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // Whole seconds, as certificates know no less.
    let now = epoch + Duration::from_secs(clock::now_unix_ms() / 1000);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + validity;
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// 127 random bits: positive, as X.509 wants it.
fn serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[0] &= 0x7f;
    bytes
}

fn create(dir: &Path, key_path: &Path, ca_path: &Path) -> Result<(), CaError> {
    let sign = |source| CaError::Sign { subject: "the CA".into(), source };
    let key = KeyPair::generate().map_err(sign)?;
    let mut params = params("Roost node CA", CA_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let certificate = params.self_signed(&key).map_err(sign)?;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(|source| file_error("write", dir, source))?;
    // The certificate last: with it, the CA exists.
    write_private(key_path, key.serialize_pem().as_bytes())?;
    write_private(ca_path, certificate.pem().as_bytes())?;
    tracing::info!(dir = %dir.display(), "certificate authority created");
    Ok(())
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// [`CaError::File`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), CaError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://roost/node/somebody-else".try_into().unwrap())];
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_key_is_private_and_the_ca_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        let first = Authority::open_or_create(&ca).unwrap();
        let mode = std::fs::metadata(ca.join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Authority::open_or_create(&ca).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn a_lost_key_is_not_replaced_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open_or_create(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Authority::open_or_create(dir.path()), Err(CaError::File { .. })));
    }

    #[test]
    fn a_certificate_names_the_node_that_central_chose_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path()).unwrap();
        let node = NodeId::random();
        let key = Authority::read_request(&request()).unwrap();
        let issued = authority.issue(&key, &node, Duration::from_secs(60)).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
        assert_eq!(node_of(&der).unwrap(), node);
        assert!(issued.not_after_unix_ms <= clock::now_unix_ms() + 60_000);
    }

    #[test]
    fn a_request_with_a_foreign_signature_is_refused() {
        let mut request = request();
        let last = request.len() - 1;
        request[last] ^= 1;
        assert!(Authority::read_request(&request).is_err());
        assert!(Authority::read_request(b"hello").is_err());
    }

    #[test]
    fn the_ca_itself_is_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path()).unwrap();
        let der = CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap();
        assert!(matches!(node_of(&der), Err(CaError::NoNode)));
    }
}
