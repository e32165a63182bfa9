use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn amd64() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into() }
}

fn config() -> Value {
    json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"one").to_string(), Digest::of(b"two").to_string()] },
        "config": { "Entrypoint": ["/init"], "Cmd": ["-x"], "Env": ["A=b"], "WorkingDir": "/home", "User": "1000" },
    })
}

fn manifest_of(config: &Value) -> Value {
    let bytes = config.to_string().into_bytes();
    let layer = |data: &[u8]| json!({ "mediaType": LAYER, "digest": Digest::of(data).to_string(), "size": data.len() });
    json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&bytes).to_string(),
            "size": bytes.len(),
        },
        "layers": [layer(b"one"), layer(b"two")],
    })
}

fn parse(manifest: &Value, config: &Value) -> Result<Documents, DocumentError> {
    let bytes = manifest.to_string().into_bytes();
    let document = Document { media_type: MediaType::ImageManifest, bytes };
    Manifest::parse(document)?.with_config(config.to_string().into_bytes(), &amd64())
}

/// The refusal of the good image after one change to its manifest.
fn manifest_refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut manifest = manifest_of(&config());
    change(&mut manifest);
    parse(&manifest, &config()).unwrap_err().to_string()
}

/// The refusal of the good image after one change to its configuration.
fn config_refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut config = config();
    change(&mut config);
    parse(&manifest_of(&config), &config).unwrap_err().to_string()
}

#[test]
fn a_good_image_gives_its_layers_and_its_program() {
    let documents = parse(&manifest_of(&config()), &config()).unwrap();
    let diff_ids: Vec<_> = documents.layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(diff_ids, [Digest::of(b"one"), Digest::of(b"two")]);
    assert_eq!(documents.top_chain_id(), chain_ids(&diff_ids).last().copied());
    assert_eq!(documents.size_bytes(), 6 + config().to_string().len() as u64);
    let expected = ImageConfig {
        entrypoint: vec!["/init".into()],
        cmd: vec!["-x".into()],
        env: vec!["A=b".into()],
        working_dir: "/home".into(),
        user: "1000".into(),
    };
    assert_eq!(documents.image_config, expected);
}

#[test]
fn an_image_without_a_program_has_an_empty_one() {
    let mut config = config();
    config.as_object_mut().unwrap().remove("config");
    let documents = parse(&manifest_of(&config), &config).unwrap();
    assert_eq!(documents.image_config, ImageConfig::default());
}

#[test]
fn docker_media_types_are_as_good() {
    let mut manifest = manifest_of(&config());
    manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    manifest["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
    let documents = parse(&manifest, &config()).unwrap();
    assert_eq!(documents.layers[0].packing, Packing::Gzip);
}

#[test]
fn the_configuration_must_be_the_one_that_the_manifest_names() {
    let mut other = config();
    other["config"]["User"] = json!("0");
    let error = parse(&manifest_of(&config()), &other).unwrap_err();
    assert!(matches!(error, DocumentError::Configuration { .. }), "{error}");
}

#[test]
fn an_image_for_another_machine_is_refused_with_both_names() {
    let text = config_refusal(|config| config["architecture"] = json!("arm64"));
    assert!(text.contains("linux/arm64") && text.contains("linux/amd64"), "{text}");
    assert!(config_refusal(|config| config["os"] = json!("windows")).contains("windows/amd64"));
}

#[test]
fn no_layers_too_many_and_other_numbers_than_diff_ids_are_refused() {
    assert!(manifest_refusal(|m| m["layers"] = json!([])).contains("1 to 128 layers"));
    let layer = manifest_of(&config())["layers"][0].clone();
    let many = vec![layer.clone(); 129];
    assert!(manifest_refusal(|m| m["layers"] = json!(many)).contains("\"129\""));
    assert!(manifest_refusal(|m| m["layers"] = json!([layer])).contains("as many layers"));
}

#[test]
fn every_digest_must_be_sha256() {
    let sha512 = format!("sha512:{}", "0".repeat(128));
    for path in ["/config/digest", "/layers/1/digest"] {
        let mut manifest = manifest_of(&config());
        *manifest.pointer_mut(path).unwrap() = json!(sha512);
        let error = parse(&manifest, &config()).unwrap_err();
        assert!(matches!(error, DocumentError::Digest { document: "image manifest", .. }), "{error}");
    }
    let text = config_refusal(|config| config["rootfs"]["diff_ids"][0] = json!(sha512));
    assert!(text.contains("image configuration names a digest"), "{text}");
}

#[test]
fn a_plain_layer_must_be_its_own_diff_id() {
    let text = manifest_refusal(|m| m["layers"][0]["digest"] = json!(Digest::of(b"other").to_string()));
    assert!(text.contains("layers[0].digest"), "{text}");
}

#[test]
fn unknown_kinds_of_documents_and_layers_are_refused() {
    assert!(manifest_refusal(|m| m["schemaVersion"] = json!(1)).contains("only version 2"));
    let index = "application/vnd.oci.image.index.v1+json";
    assert!(manifest_refusal(|m| m["mediaType"] = json!(index)).contains("the document's own kind"));
    assert!(manifest_refusal(|m| m["config"]["mediaType"] = json!("application/wasm")).contains("config.mediaType"));
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    assert!(manifest_refusal(|m| m["layers"][1]["mediaType"] = json!(foreign)).contains("layers[1].mediaType"));
    assert!(config_refusal(|config| config["rootfs"]["type"] = json!("btrfs")).contains("rootfs.type"));
}

#[test]
fn a_document_that_is_an_index_and_a_manifest_is_neither() {
    let refused = manifest_refusal(|m| m["manifests"] = json!([]));
    assert!(refused.contains("not both"), "{refused}");
    let index = json!({ "schemaVersion": 2, "manifests": [], "layers": [] });
    assert!(parse_index(index.to_string().as_bytes()).unwrap_err().to_string().contains("not both"));
}

#[test]
fn what_could_break_a_container_spec_is_refused() {
    assert!(config_refusal(|config| config["config"]["Env"] = json!(["A=\0"])).contains("config.Env"));
    assert!(config_refusal(|config| config["config"]["WorkingDir"] = json!("home")).contains("absolute path"));
}

#[test]
fn huge_documents_and_sizes_are_refused_before_they_cost_anything() {
    let text = manifest_refusal(|m| m["config"]["size"] = json!(MAX_DOCUMENT_BYTES + 1));
    assert!(text.contains("at most 4194304"), "{text}");
    assert!(manifest_refusal(|m| m["layers"][0]["size"] = json!(u64::MAX)).contains("below 2^63"));
    let bytes = vec![b' '; usize::try_from(MAX_DOCUMENT_BYTES).unwrap() + 1];
    let result = Manifest::parse(Document { media_type: MediaType::ImageManifest, bytes });
    assert!(matches!(result, Err(DocumentError::TooLarge { .. })), "{result:?}");
}

#[test]
fn an_error_does_not_repeat_a_hostile_text_at_length() {
    let text = manifest_refusal(|m| m["layers"][0]["mediaType"] = json!("x".repeat(100_000)));
    assert!(text.len() < 500, "{}", text.len());
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in any::<Vec<u8>>(), json in r#"[\{\}\[\]",:a-z0-9]{0,64}"#) {
        for bytes in [bytes, json.into_bytes()] {
            let _ = parse_index(&bytes);
            let _ = parse_config(&bytes);
            let _ = Manifest::parse(Document { media_type: MediaType::ImageManifest, bytes });
        }
    }
}
