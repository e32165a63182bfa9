//! Signatures that cosign made, checked in process.
//!
//! cosign keeps the signatures of `name@sha256:X` as an image of the tag
//! `sha256-X.sig` in the same repository. Each of its layers is a small JSON
//! document that names the digest, with an ECDSA signature as annotation.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{Descriptor, ImageManifest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use roost_proto::model::ImageRef;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::error::RegistryError;
use super::http::Api;
use super::{read, resolve};
use crate::config::SignatureConfig;
use crate::containerd::image::Digest;
use crate::containerd::image::document::blob_of;

/// What the signed documents are.
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation that holds the signature, base64 of ASN.1.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What such a document says it is.
const PAYLOAD_KIND: &str = "cosign container image signature";
/// Largest document that is looked at, in bytes: they have some hundred.
const MAX_PAYLOAD_BYTES: u64 = 64 << 10;
/// Most signatures of one image that are looked at.
const MAX_SIGNATURES: usize = 32;
/// Head of the DER of every P-256 public key (RFC 5480); the uncompressed
/// point follows.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Length of an uncompressed point, in bytes.
const POINT_LEN: usize = 65;

/// Why an image's signature is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("the rule for \"{scope}\" wants a cosign signature and there is none: sign it with `cosign sign --key`")]
    Absent {
        /// The rule's scope.
        scope: String,
    },
    /// There are some, none by an accepted key.
    #[error("none of its {count} signatures is by a key of the rule for \"{scope}\", over this digest")]
    Untrusted {
        /// The rule's scope.
        scope: String,
        /// How many there are.
        count: usize,
    },
    /// A key file holds no such key.
    #[error("{} holds no ECDSA P-256 public key in PEM, as cosign writes it", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: SignedImage,
}

#[derive(Deserialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// A public key, as a point on the curve.
type Key = Vec<u8>;

/// Checks an image against the rule that is about it, if there is one. Any of
/// `digests` may be signed: that of the index or that of the manifest. A
/// mirror may have the image and not its signatures: each of `apis` is asked
/// until one gives an accepted one.
///
/// # Errors
/// [`RegistryError::Signature`], or the signatures cannot be read.
pub(super) async fn check(
    apis: &[Arc<Api>],
    reference: &ImageRef,
    digests: &[Digest],
    rules: &[SignatureConfig],
) -> Result<(), RegistryError> {
    let Some(rule) = rule_for(reference, rules).filter(|rule| !rule.cosign_keys.is_empty()) else { return Ok(()) };
    let refuse = |source| RegistryError::Signature { reference: reference.clone(), source: Box::new(source) };
    let mut keys = Vec::new();
    for path in &rule.cosign_keys {
        keys.push(parse_key(&read(path).await?).ok_or_else(|| refuse(SignatureError::Key { path: path.clone() }))?);
    }
    let mut count = 0;
    for (n, api) in apis.iter().enumerate() {
        match accepted(api, digests, &keys, &mut count).await {
            Ok(Some(digest)) => {
                tracing::info!(image = %reference, %digest, scope = rule.scope, "signature accepted");
                return Ok(());
            }
            Ok(None) => {}
            Err(error) if n + 1 == apis.len() => return Err(error),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(image = %reference, mirror = api.host(), error, "mirror does not give signatures");
            }
        }
    }
    let scope = rule.scope.clone();
    Err(refuse(if count == 0 { SignatureError::Absent { scope } } else { SignatureError::Untrusted { scope, count } }))
}

/// The digest that one endpoint has an accepted signature of; counts all that
/// it has.
async fn accepted(
    api: &Api,
    digests: &[Digest],
    keys: &[Key],
    count: &mut usize,
) -> Result<Option<Digest>, RegistryError> {
    for digest in digests {
        for layer in signatures(api, digest).await? {
            *count += 1;
            if let Some((payload, signature)) = signature_of(api, &layer).await?
                && is_signed(&payload, &signature, digest, keys)
            {
                return Ok(Some(*digest));
            }
        }
    }
    Ok(None)
}

/// The rule with the longest scope that the image lies in.
fn rule_for<'a>(reference: &ImageRef, rules: &'a [SignatureConfig]) -> Option<&'a SignatureConfig> {
    let name = format!("{}/{}", reference.registry()?, reference.repository());
    let covers = |scope: &str| name.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    rules.iter().filter(|rule| covers(&rule.scope)).max_by_key(|rule| rule.scope.len())
}

/// What the manifest of a digest's signatures names; nothing if there is none.
async fn signatures(api: &Api, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
    let manifest = match resolve::manifest(api, &format!("sha256-{}.sig", digest.hex()), None).await {
        Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
        manifest => manifest?,
    };
    let wrong = |_| api.wrong("the manifest of its signatures cannot be read");
    let manifest: ImageManifest = serde_json::from_slice(&manifest.bytes).map_err(wrong)?;
    let is_payload = |layer: &&Descriptor| layer.media_type().as_ref() == PAYLOAD_TYPE;
    Ok(manifest.layers().iter().filter(is_payload).take(MAX_SIGNATURES).cloned().collect())
}

/// A document with its signature; none if that is no signature of any kind:
/// whoever may push can add such, and the good ones must still be found.
async fn signature_of(api: &Api, layer: &Descriptor) -> Result<Option<(Vec<u8>, Vec<u8>)>, RegistryError> {
    let text = layer.annotations().as_ref().and_then(|annotations| annotations.get(SIGNATURE));
    let signature = text.and_then(|text| STANDARD.decode(text).ok());
    let blob = blob_of("signature manifest", layer).ok().filter(|blob| blob.size_bytes <= MAX_PAYLOAD_BYTES);
    let Some((signature, blob)) = signature.zip(blob) else { return Ok(None) };
    match resolve::small_blob(api, blob).await {
        Ok(payload) => Ok(Some((payload, signature))),
        Err(error @ (RegistryError::NotFound { .. } | RegistryError::Answer { .. })) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(host = api.host(), error, "signature passed over");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether one of the keys signed a document, and that is about the digest.
fn is_signed(payload: &[u8], signature: &[u8], digest: &Digest, keys: &[Key]) -> bool {
    let verifies = |key: &Key| UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(payload, signature).is_ok();
    let names_it =
        |payload: Payload| payload.critical.kind == PAYLOAD_KIND && payload.critical.image.digest == digest.to_string();
    keys.iter().any(verifies) && serde_json::from_slice(payload).is_ok_and(names_it)
}

fn parse_key(pem: &[u8]) -> Option<Key> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let point = der.strip_prefix(&P256_PREFIX)?;
    (point.len() == POINT_LEN).then(|| point.to_vec())
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn rule(scope: &str, key: &str) -> SignatureConfig {
        SignatureConfig { scope: scope.into(), cosign_keys: vec![key.into()] }
    }

    #[test]
    fn the_longest_scope_counts_and_ends_at_a_slash() {
        let rules = [rule("r.example", "a"), rule("r.example/team", "b")];
        let key = |text: &str| rule_for(&text.parse().unwrap(), &rules).map(|r| r.cosign_keys[0].display().to_string());
        assert_eq!(key("r.example/team/app:1").as_deref(), Some("b"));
        assert_eq!(key("r.example/teamwork/app").as_deref(), Some("a"));
        assert_eq!(key("other.example/team/app"), None);
        assert_eq!(key("roost/desktop"), None);
    }

    #[test]
    fn only_a_signature_over_this_digest_by_this_key_counts() {
        let random = SystemRandom::new();
        let pair = || {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap()
        };
        let (ours, other) = (pair(), pair());
        let digest = Digest::of(b"manifest");
        let payload = |kind: &str| {
            format!(
                r#"{{"critical":{{"type":"{kind}","image":{{"docker-manifest-digest":"{digest}"}}}},"optional":null}}"#
            )
        };
        let (other_kind, payload) = (payload("policy of another program"), payload(PAYLOAD_KIND));
        let signature = ours.sign(&random, payload.as_bytes()).unwrap();
        let key = |pair: &EcdsaKeyPair| pair.public_key().as_ref().to_vec();
        assert!(is_signed(payload.as_bytes(), signature.as_ref(), &digest, &[key(&other), key(&ours)]));
        assert!(!is_signed(payload.as_bytes(), signature.as_ref(), &digest, &[key(&other)]));
        assert!(!is_signed(payload.as_bytes(), signature.as_ref(), &Digest::of(b"other"), &[key(&ours)]));
        let signed = ours.sign(&random, other_kind.as_bytes()).unwrap();
        assert!(!is_signed(other_kind.as_bytes(), signed.as_ref(), &digest, &[key(&ours)]));
        assert!(!is_signed(&payload.as_bytes()[1..], signature.as_ref(), &digest, &[key(&ours)]));
    }

    #[test]
    fn keys_are_read_as_cosign_writes_them() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = parse_key(pair.public_key_pem().as_bytes()).unwrap();
        assert_eq!(key, pair.public_key_raw());
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert_eq!(parse_key(other.public_key_pem().as_bytes()), None);
    }
}
