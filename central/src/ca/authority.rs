//! One certificate authority: its key, its certificate, and what it signs.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use roost_proto::CENTRAL_TLS_NAME;
use roost_proto::id::NodeId;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::{CA_VALIDITY, CLOCK_SKEW, CaError, Issued, NODE_URI_PREFIX, ServerIdentity, damaged, file_error};
use crate::clock;
use crate::secret::{hex, sha256_hex};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    certificate: CertificateDer<'static>,
    fingerprint: String,
    key_id: String,
    not_after_unix_ms: u64,
}

impl Authority {
    /// Reads one from its two files.
    pub(super) fn open(key_path: &Path, ca_path: &Path) -> Result<Self, CaError> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|source| file_error("read", path, source));
        Self::parse(&read(key_path)?, read(ca_path)?, (key_path, ca_path))
    }

    /// Reads one from the text of its files; their names are for errors.
    pub(super) fn parse(key_pem: &str, ca_pem: String, (key_path, ca_path): (&Path, &Path)) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| damaged(key_path, e))?;
        let certificate = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|e| damaged(ca_path, e))?;
        let (key_id, not_after_unix_ms) = subject_key(&certificate).ok_or_else(|| {
            damaged(ca_path, std::io::Error::other("it is no certificate of a CA with a key identifier"))
        })?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|e| damaged(ca_path, e))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(damaged(key_path, std::io::Error::other("it is not the key of the certificate beside it")));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| damaged(ca_path, e))?;
        Ok(Self { issuer, fingerprint: sha256_hex(&certificate), certificate, ca_pem, key_id, not_after_unix_ms })
    }

    /// The CA's certificate in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The CA's certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the CA's certificate in DER, in lower-case hex.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Key identifier in lower-case hex, which every certificate of this CA
    /// names as its issuer's.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Unix time of the end of the CA, in milliseconds.
    #[must_use]
    pub fn not_after_unix_ms(&self) -> u64 {
        self.not_after_unix_ms
    }

    /// Makes a key and a certificate for the NodeLink listener.
    ///
    /// # Errors
    /// [`CaError::Sign`].
    pub fn server_identity(&self, validity: Duration) -> Result<ServerIdentity, CaError> {
        let sign = |source| CaError::Sign { subject: CENTRAL_TLS_NAME.into(), source };
        let key = KeyPair::generate().map_err(sign)?;
        let mut params = params(CENTRAL_TLS_NAME, validity);
        let name = CENTRAL_TLS_NAME.try_into().map_err(sign)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign)?;
        Ok(ServerIdentity {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
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

/// A new CA: the PEM of its key and of its certificate.
pub(super) fn generate() -> Result<(String, String), CaError> {
    let sign = |source| CaError::Sign { subject: "the CA".into(), source };
    let key = KeyPair::generate().map_err(sign)?;
    // A name of its own, so that a chain is never built over the wrong one.
    let name = format!("Roost node CA {}", hex(&serial()[..4]));
    let mut params = params(&name, CA_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let certificate = params.self_signed(&key).map_err(sign)?;
    Ok((key.serialize_pem(), certificate.pem()))
}

/// What every certificate of a CA has.
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
    use rand::RngExt;
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[0] &= 0x7f;
    bytes
}

/// Key identifier and end of a CA's certificate.
fn subject_key(certificate: &CertificateDer<'_>) -> Option<(String, u64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let key_id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
        _ => None,
    })?;
    Some((key_id, super::end_of(&parsed)))
}
