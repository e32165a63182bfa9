//! Trust at first contact: a node that knows no certificate yet, only the
//! fingerprint of central's CA from its join string.
//!
//! Central presents its certificate and the CA. The CA with exactly that
//! fingerprint becomes the only root, and then the usual verification runs:
//! chain, name, validity, signatures.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

/// Marks, inside the error of a handshake, that the fingerprint did not match.
#[derive(Debug, thiserror::Error)]
#[error("the fingerprint of the CA does not match")]
struct PinMismatch;

/// Whether a connection failed because the fingerprint did not match.
pub(super) fn is_mismatch(error: &(dyn std::error::Error + 'static)) -> bool {
    tls_errors(error).any(|error| matches!(error, Error::InvalidCertificate(CertificateError::Other(OtherError(why))) if why.is::<PinMismatch>()))
}

/// What TLS said, anywhere among the causes of an error.
pub(super) fn tls_errors<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a Error> {
    std::iter::successors(Some(error), |error| error.source()).filter_map(|error| {
        // An I/O error shows what is in it by `get_ref` only.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()))
    })
}

/// Verifies central by the fingerprint of its CA.
#[derive(Debug)]
pub(super) struct PinnedCa {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    pub(super) fn new(sha256: [u8; 32]) -> Self {
        Self { sha256, provider: Arc::new(rustls::crypto::ring::default_provider()) }
    }

    fn pinned<'a>(&self, chain: &'a [CertificateDer<'static>]) -> Option<&'a CertificateDer<'static>> {
        chain.iter().find(|certificate| Sha256::digest(certificate)[..] == self.sha256)
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<CertificateDer<'static>> = intermediates.iter().map(|c| c.clone().into_owned()).collect();
        let mismatch = || CertificateError::Other(OtherError(Arc::new(PinMismatch)));
        let ca = self.pinned(&chain).ok_or_else(mismatch)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn ca() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, ca).unwrap().der().clone()
    }

    fn pin(certificate: &CertificateDer<'_>) -> PinnedCa {
        PinnedCa::new(Sha256::digest(certificate).into())
    }

    fn verify(pin: &PinnedCa, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let name = ServerName::try_from("central.test").unwrap();
        pin.verify_server_cert(leaf, chain, &name, &[], UnixTime::now()).map(|_| ())
    }

    #[test]
    fn a_leaf_of_the_pinned_ca_is_trusted() {
        let ca = ca();
        let ca_der = ca.as_ref().der().clone();
        assert_eq!(verify(&pin(&ca_der), &leaf(&ca, "central.test"), &[ca_der]), Ok(()));
    }

    #[test]
    fn another_ca_is_refused_even_with_the_right_name() {
        let (ours, theirs) = (ca(), ca());
        let theirs_der = theirs.as_ref().der().clone();
        let error = verify(&pin(ours.as_ref().der()), &leaf(&theirs, "central.test"), &[theirs_der]).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(CertificateError::Other(_))), "{error:?}");
    }

    #[test]
    fn presenting_the_pinned_ca_beside_a_foreign_leaf_does_not_help() {
        let (ours, theirs) = (ca(), ca());
        let ours_der = ours.as_ref().der().clone();
        assert!(verify(&pin(&ours_der), &leaf(&theirs, "central.test"), &[ours_der]).is_err());
    }

    #[test]
    fn the_pinned_ca_must_sign_for_the_right_name() {
        let ca = ca();
        let ca_der = ca.as_ref().der().clone();
        assert!(verify(&pin(&ca_der), &leaf(&ca, "elsewhere.test"), &[ca_der]).is_err());
    }
}
