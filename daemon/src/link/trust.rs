//! Which certificates the node trusts for central, and what may change that.
//! Pure.
//!
//! A new list comes over a connection that the present list has verified, and
//! must keep one certificate of it. So a central that rotates its CA passes
//! through a time in which both are trusted, and a list of strangers is never
//! taken, whoever sends it.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Most certificates of a list: a rotation needs two.
const CERTIFICATES_MAX: usize = 4;

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrustError {
    #[error("central's list of CA certificates is no PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("central's list has {0} CA certificates: 1 to {CERTIFICATES_MAX} are accepted")]
    Count(usize),
    #[error("central's list holds a certificate that cannot be a CA")]
    Unusable(#[source] rustls::Error),
    #[error(
        "central's list has none of the CA certificates that the node trusts now: a CA is rotated in two steps, \
         see docs/operations.md"
    )]
    Strangers,
}

/// Whether `offered_pem` says anything else than `present_pem`, and may: the
/// new list where it does, none where both are the same.
pub(super) fn replace(present_pem: &str, offered_pem: &str) -> Result<Option<String>, TrustError> {
    let (present, offered) = (read(present_pem)?, read(offered_pem)?);
    if !(1..=CERTIFICATES_MAX).contains(&offered.len()) {
        return Err(TrustError::Count(offered.len()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in &offered {
        roots.add(certificate.clone()).map_err(TrustError::Unusable)?;
    }
    if !offered.iter().any(|certificate| present.contains(certificate)) {
        return Err(TrustError::Strangers);
    }
    let is_same = present.len() == offered.len() && offered.iter().all(|certificate| present.contains(certificate));
    Ok((!is_same).then(|| offered_pem.to_owned()))
}

fn read(pem: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(TrustError::Pem)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn ca() -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap().as_ref().pem()
    }

    #[test]
    fn a_rotation_passes_through_both() {
        let (old, new) = (ca(), ca());
        let both = format!("{old}{new}");
        assert_eq!(replace(&old, &both).unwrap().as_deref(), Some(both.as_str()));
        assert_eq!(replace(&both, &new).unwrap().as_deref(), Some(new.as_str()));
        assert_eq!(replace(&both, &format!("{new}{old}")).unwrap(), None, "the order means nothing");
    }

    #[test]
    fn strangers_alone_are_never_taken() {
        assert!(matches!(replace(&ca(), &ca()), Err(TrustError::Strangers)));
    }

    #[test]
    fn what_is_no_list_of_certificates_is_refused() {
        let old = ca();
        assert!(matches!(replace(&old, ""), Err(TrustError::Count(0))));
        assert!(matches!(replace(&old, &old.repeat(5)), Err(TrustError::Count(5))));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(replace(&old, &format!("{old}{nonsense}")), Err(TrustError::Unusable(_))));
    }
}
