//! Signatures as cosign writes them, made by `openssl` so that nothing of the
//! code under test takes part: a simple-signing document, signed with ECDSA
//! P-256 over SHA-256, kept as an image of the tag `sha256-….sig`.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use roostd::config::{ImagesConfig, SignatureConfig};
use roostd::containerd::image::Digest;
use roostd::registry::RegistryError;
use serde_json::{Value, json};

use crate::archives::descriptor;
use crate::image;
use crate::private_containerd::PrivateContainerd;
use crate::pulls::{config, entry, pull, puller, registry_error};
use crate::server::Registry;

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// A key pair in files, as `cosign generate-key-pair` would leave the public
/// half.
struct Key {
    directory: tempfile::TempDir,
}

impl Key {
    fn new() -> Self {
        let key = Self { directory: tempfile::tempdir().unwrap() };
        let (private, public) = (key.path("key.pem"), key.public());
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"], &private);
        openssl(&["ec", "-pubout", "-in", private.to_str().unwrap(), "-out"], &public);
        key
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn public(&self) -> PathBuf {
        self.path("cosign.pub")
    }

    /// The signature of a document, as the annotation holds it.
    fn sign(&self, payload: &[u8]) -> String {
        let (input, output) = (self.path("payload"), self.path("signature"));
        std::fs::write(&input, payload).unwrap();
        let private = self.path("key.pem");
        let out = output.to_str().unwrap();
        openssl(&["dgst", "-sha256", "-sign", private.to_str().unwrap(), "-out", out], &input);
        base64::engine::general_purpose::STANDARD.encode(std::fs::read(output).unwrap())
    }
}

fn openssl(arguments: &[&str], last: &Path) {
    let output = Command::new("openssl").args(arguments).arg(last).output().expect("these tests need openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The document that cosign signs.
fn payload(about: Digest, kind: &str) -> Vec<u8> {
    let critical = json!({
        "identity": { "docker-reference": "registry.example/team/app" },
        "image": { "docker-manifest-digest": about.to_string() },
        "type": kind,
    });
    json!({ "critical": critical, "optional": null }).to_string().into_bytes()
}

fn cosign(about: Digest) -> Vec<u8> {
    payload(about, "cosign container image signature")
}

/// A layer of the image of signatures.
fn layer(payload: &[u8], signature: &str) -> Value {
    let mut layer = descriptor(PAYLOAD, payload);
    layer["annotations"] = json!({ ANNOTATION: signature, "dev.sigstore.cosign/bundle": "{}" });
    layer
}

/// Stores signatures of a digest, in place of those that are there.
async fn attach(registry: &Registry, repository: &str, digest: Digest, layers: &[Value]) {
    let config = br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}"#;
    registry.push_blob(repository, config).await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    });
    let tag = format!("sha256-{}.sig", digest.hex());
    registry.push_manifest(repository, &tag, manifest.to_string().as_bytes()).await;
}

fn rule(registry: &Registry, keys: &[&Key]) -> SignatureConfig {
    let cosign_keys = keys.iter().map(|key| key.public()).collect();
    SignatureConfig { scope: format!("{}/team", registry.host), cosign_keys }
}

#[tokio::test]
async fn only_what_a_trusted_key_signed_is_pulled_where_a_rule_asks_for_it() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let digest = registry.push(&image(), "team/app", "1").await;
    let (ours, next, other) = (Key::new(), Key::new(), Key::new());
    let rules = vec![rule(&registry, &[&ours, &next])];
    let puller = puller(&containerd, ImagesConfig { signatures: rules, ..config(&[&registry.host]) });
    let reference = registry.reference("team/app:1");
    let document = cosign(digest);
    registry.push_blob("team/app", &document).await;

    let absent = pull(&puller, &reference).await.unwrap_err();
    assert!(matches!(registry_error(&absent), RegistryError::Signature { .. }), "{absent}");
    assert!(absent.to_string().contains("cosign sign"), "{absent}");
    attach(&registry, "team/app", digest, &[layer(&document, &other.sign(&document))]).await;
    let untrusted = pull(&puller, &reference).await.unwrap_err();
    assert!(untrusted.to_string().contains("none of its 1 signatures"), "{untrusted}");
    containerd.expect_left(0, 0).await;

    for key in [&ours, &next] {
        let signatures = [layer(&document, &other.sign(&document)), layer(&document, &key.sign(&document))];
        attach(&registry, "team/app", digest, &signatures).await;
        pull(&puller, &reference).await.unwrap();
    }
    registry.push(&image(), "free/app", "1").await;
    pull(&puller, &registry.reference("free/app:1")).await.unwrap();
}

#[tokio::test]
async fn whatever_is_wrong_with_a_signature_the_image_is_refused() {
    let (containerd, registry) = (PrivateContainerd::start().await, Registry::start().await);
    let digest = registry.push(&image(), "team/app", "1").await;
    let key = Key::new();
    let rules = vec![rule(&registry, &[&key])];
    let puller = puller(&containerd, ImagesConfig { signatures: rules, ..config(&[&registry.host]) });
    let (right, another) = (cosign(digest), cosign(Digest::of(b"another image")));
    let (other_kind, tampered) = (payload(digest, "statement of another program"), cosign(Digest::of(b"tampered")));
    for document in [&right, &another, &other_kind, &tampered] {
        registry.push_blob("team/app", document).await;
    }
    let mut bits = base64::engine::general_purpose::STANDARD.decode(key.sign(&right)).unwrap();
    *bits.last_mut().unwrap() ^= 1;
    let mut huge = layer(&right, &key.sign(&right));
    huge["size"] = json!(1_u64 << 30);
    let mut of_another_type = layer(&right, &key.sign(&right));
    of_another_type["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    for (what, layers) in [
        ("a document about another image", vec![layer(&another, &key.sign(&another))]),
        ("a signature of another document", vec![layer(&right, &key.sign(&another))]),
        ("a changed signature", vec![layer(&right, &base64::engine::general_purpose::STANDARD.encode(bits))]),
        ("no base64", vec![layer(&right, "%%%")]),
        ("no annotation", vec![descriptor(PAYLOAD, &right)]),
        ("a document of another kind", vec![layer(&other_kind, &key.sign(&other_kind))]),
        ("a document of a gigabyte", vec![huge]),
        ("no layer", vec![]),
        ("a layer of another type", vec![of_another_type]),
    ] {
        attach(&registry, "team/app", digest, &layers).await;
        let error = pull(&puller, &registry.reference("team/app:1")).await.unwrap_err();
        assert!(matches!(registry_error(&error), RegistryError::Signature { .. }), "{what}: {error}");
    }
    // Named by the manifest and not there: the registry takes no such
    // manifest, so the document goes afterwards.
    attach(&registry, "team/app", digest, &[layer(&tampered, &key.sign(&tampered))]).await;
    registry.delete_blob("team/app", &tampered).await;
    let error = pull(&puller, &registry.reference("team/app:1")).await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::Signature { .. }), "{error}");
    containerd.expect_left(0, 0).await;
}

#[tokio::test]
async fn a_mirror_without_signatures_is_made_up_for_by_the_registry() {
    let (containerd, registry, mirror) =
        (PrivateContainerd::start().await, Registry::start().await, Registry::start().await);
    let digest = registry.push(&image(), "team/app", "1").await;
    mirror.push(&image(), "team/app", "1").await;
    let (key, document) = (Key::new(), cosign(digest));
    registry.push_blob("team/app", &document).await;
    let mut mirrored = config(&[&mirror.host]);
    mirrored.registries.push(entry(&registry.host, &[&mirror.host]));
    mirrored.signatures.push(rule(&registry, &[&key]));
    let puller = puller(&containerd, mirrored);
    let error = pull(&puller, &registry.reference("team/app:1")).await.unwrap_err();
    assert!(matches!(registry_error(&error), RegistryError::Signature { .. }), "{error}");
    attach(&registry, "team/app", digest, &[layer(&document, &key.sign(&document))]).await;
    pull(&puller, &registry.reference("team/app:1")).await.unwrap();
}
