//! Manifest and configuration of an image: parsed and checked, no I/O.

use std::fmt;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::digest::{Digest, ParseDigestError, chain_ids};
use super::media::{Packing, TargetKind, is_config, target_kind};
use super::source::Blob;

/// Largest JSON document of an image, in bytes: registries take no larger.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of an image: overlayfs mounts of more do not fit a page.
pub const MAX_LAYERS: usize = 128;

/// Most characters of a document that an error quotes.
const MAX_QUOTED_CHARS: usize = 200;

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the right form.
    #[error("the {document} cannot be read")]
    Json {
        /// Which document.
        document: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Larger than allowed.
    #[error("the {document} has {size_bytes} bytes, at most {MAX_DOCUMENT_BYTES} are accepted")]
    TooLarge {
        /// Which document.
        document: &'static str,
        /// Its size.
        size_bytes: u64,
    },
    /// A digest that is not SHA-256.
    #[error("the {document} names a digest that is not accepted")]
    Digest {
        /// Which document.
        document: &'static str,
        /// What it says.
        #[source]
        source: ParseDigestError,
    },
    /// Something in a field that Roost cannot use.
    #[error("the {document}: {field} is \"{value}\": {rule}")]
    Field {
        /// Which document.
        document: &'static str,
        /// Path of the field.
        field: String,
        /// What it says.
        value: String,
        /// What would be right.
        rule: &'static str,
    },
    /// The configuration is not the one that the manifest names.
    #[error("the image configuration is damaged: the manifest names {expected}, this is {found}")]
    Configuration {
        /// What the manifest names.
        expected: Blob,
        /// What was found.
        found: Blob,
    },
    /// The image is for another kind of machine.
    #[error("the image is for {found}, this node is {wanted}: build or choose one for {wanted}")]
    Platform {
        /// What the image is for.
        found: String,
        /// What the node is.
        wanted: Platform,
    },
}

/// Operating system and processor, in the words of the image specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// E.g. `linux`.
    pub os: String,
    /// E.g. `amd64`.
    pub architecture: String,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// One layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// The blob, as it is packed.
    pub blob: Blob,
    /// How it is packed.
    pub packing: Packing,
    /// Digest of its plain tar.
    pub diff_id: Digest,
    /// Name of this layer on those below it.
    pub chain_id: Digest,
}

/// What an image says about the programs it is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Program and first arguments; may be empty.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the whole command if there is no entrypoint.
    pub cmd: Vec<String>,
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// `user[:group]` by name or number; empty means root.
    pub user: String,
}

/// A document as it lies in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What kind of document.
    pub media_type: MediaType,
    /// Its exact bytes.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Digest and size of the bytes.
    #[must_use]
    pub fn blob(&self) -> Blob {
        Blob { digest: Digest::of(&self.bytes), size_bytes: self.bytes.len() as u64 }
    }
}

/// A manifest that was parsed, whose configuration is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    document: Document,
    parsed: ImageManifest,
    config: Blob,
}

impl Manifest {
    /// Parses a manifest. Its own digest is the caller's to check: it knows
    /// what was asked for.
    ///
    /// # Errors
    /// Not the manifest of a container image, too many or no layers, other
    /// algorithms than SHA-256.
    pub fn parse(document: Document) -> Result<Self, DocumentError> {
        let parsed = parse_manifest(&document.bytes)?;
        let config = blob_of("image manifest", parsed.config())?;
        if config.size_bytes > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge { document: "image configuration", size_bytes: config.size_bytes });
        }
        Ok(Self { document, parsed, config })
    }

    /// The configuration that belongs to it; at most [`MAX_DOCUMENT_BYTES`].
    #[must_use]
    pub fn config(&self) -> Blob {
        self.config
    }

    /// Joins it with its configuration.
    ///
    /// # Errors
    /// Another configuration, another platform, unknown layer media types,
    /// or a configuration that does not fit the manifest.
    pub fn with_config(self, bytes: Vec<u8>, platform: &Platform) -> Result<Documents, DocumentError> {
        let config = Document { media_type: self.parsed.config().media_type().clone(), bytes };
        if config.blob() != self.config {
            return Err(DocumentError::Configuration { expected: self.config, found: config.blob() });
        }
        let configuration = parse_config(&config.bytes)?;
        check_platform(&configuration, platform)?;
        let layers = layers(&self.parsed, &configuration)?;
        Ok(Documents { manifest: self.document, config, layers, image_config: image_config(&configuration)? })
    }
}

/// Manifest and configuration of one image, checked against each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The manifest.
    pub manifest: Document,
    /// The configuration.
    pub config: Document,
    /// The layers, lowest first; at least one.
    pub layers: Vec<Layer>,
    /// What the configuration says about programs.
    pub image_config: ImageConfig,
}

impl Documents {
    /// Size of configuration and packed layers, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.layers.iter().fold(self.config.bytes.len() as u64, |sum, layer| sum.saturating_add(layer.blob.size_bytes))
    }

    /// Chain id of the highest layer: the parent of every container's root.
    #[must_use]
    pub fn top_chain_id(&self) -> Option<Digest> {
        self.layers.last().map(|layer| layer.chain_id)
    }
}

/// Digest and size out of a descriptor.
///
/// # Errors
/// A digest that is not SHA-256, or a size that no store can hold.
pub fn blob_of(document: &'static str, descriptor: &Descriptor) -> Result<Blob, DocumentError> {
    let digest = Digest::try_from(descriptor.digest()).map_err(|source| DocumentError::Digest { document, source })?;
    if i64::try_from(descriptor.size()).is_err() {
        let rule = "sizes must be below 2^63 bytes";
        return Err(field_error(document, "size", descriptor.size().to_string(), rule));
    }
    Ok(Blob { digest, size_bytes: descriptor.size() })
}

/// Parses an image index.
///
/// # Errors
/// Too large, not JSON of this form, or of another schema.
pub fn parse_index(bytes: &[u8]) -> Result<ImageIndex, DocumentError> {
    let index: ImageIndex = parse_json("image index", bytes)?;
    refuse_double("image index", &parse_json("image index", bytes)?)?;
    let kind = index.media_type().as_ref().map_or(Some(TargetKind::Index), target_kind);
    check_schema("image index", index.schema_version(), kind == Some(TargetKind::Index))?;
    Ok(index)
}

/// Parses a configuration.
///
/// # Errors
/// Too large or not JSON of this form.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration, DocumentError> {
    parse_json("image configuration", bytes)
}

/// The diff ids that a configuration lists, lowest first.
///
/// # Errors
/// An unknown kind of root file system, or a digest that is not SHA-256.
pub fn diff_ids(configuration: &ImageConfiguration) -> Result<Vec<Digest>, DocumentError> {
    let document = "image configuration";
    let rootfs = configuration.rootfs();
    if rootfs.typ() != "layers" {
        return Err(field_error(document, "rootfs.type", rootfs.typ().clone(), "must be \"layers\""));
    }
    let parse = |text: &String| text.parse().map_err(|source| DocumentError::Digest { document, source });
    rootfs.diff_ids().iter().map(parse).collect()
}

fn parse_manifest(bytes: &[u8]) -> Result<ImageManifest, DocumentError> {
    let document = "image manifest";
    let manifest: ImageManifest = parse_json(document, bytes)?;
    refuse_double(document, &parse_json(document, bytes)?)?;
    let kind = manifest.media_type().as_ref().map_or(Some(TargetKind::Manifest), target_kind);
    check_schema(document, manifest.schema_version(), kind == Some(TargetKind::Manifest))?;
    let config_type = manifest.config().media_type();
    if !is_config(config_type) {
        let rule = "this is not the manifest of a container image";
        return Err(field_error(document, "config.mediaType", config_type.to_string(), rule));
    }
    let count = manifest.layers().len();
    if count == 0 || count > MAX_LAYERS {
        let rule = "images of 1 to 128 layers are accepted: build it again with fewer steps";
        return Err(field_error(document, "number of layers", count.to_string(), rule));
    }
    Ok(manifest)
}

/// What tells an index from a manifest, whatever either claims to be.
#[derive(Deserialize)]
struct Shape {
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// A document that is an index to one reader and a manifest to another could
/// be signed as the one and used as the other.
fn refuse_double(document: &'static str, shape: &Shape) -> Result<(), DocumentError> {
    if shape.manifests.is_some() && shape.layers.is_some() {
        let rule = "a document is an index or a manifest, not both";
        return Err(field_error(document, "manifests", "there beside layers".into(), rule));
    }
    Ok(())
}

fn parse_json<T: DeserializeOwned>(document: &'static str, bytes: &[u8]) -> Result<T, DocumentError> {
    let size_bytes = bytes.len() as u64;
    if size_bytes > MAX_DOCUMENT_BYTES {
        return Err(DocumentError::TooLarge { document, size_bytes });
    }
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { document, source })
}

fn check_schema(document: &'static str, version: u32, is_right_type: bool) -> Result<(), DocumentError> {
    if version != 2 {
        return Err(field_error(document, "schemaVersion", version.to_string(), "only version 2 is known"));
    }
    if !is_right_type {
        return Err(field_error(document, "mediaType", "another kind".into(), "must be the document's own kind"));
    }
    Ok(())
}

fn check_platform(configuration: &ImageConfiguration, wanted: &Platform) -> Result<(), DocumentError> {
    let found = Platform { os: configuration.os().to_string(), architecture: configuration.architecture().to_string() };
    if found == *wanted {
        return Ok(());
    }
    Err(DocumentError::Platform { found: found.to_string(), wanted: wanted.clone() })
}

fn layers(manifest: &ImageManifest, configuration: &ImageConfiguration) -> Result<Vec<Layer>, DocumentError> {
    let diff_ids = diff_ids(configuration)?;
    if diff_ids.len() != manifest.layers().len() {
        let value = diff_ids.len().to_string();
        let rule = "must list as many layers as the manifest: the two do not belong together";
        return Err(field_error("image configuration", "rootfs.diff_ids", value, rule));
    }
    let chain_ids = chain_ids(&diff_ids);
    let ids = diff_ids.into_iter().zip(chain_ids);
    manifest.layers().iter().enumerate().zip(ids).map(|((n, layer), ids)| one_layer(n, layer, ids)).collect()
}

fn one_layer(n: usize, layer: &Descriptor, ids: (Digest, Digest)) -> Result<Layer, DocumentError> {
    let document = "image manifest";
    let (diff_id, chain_id) = ids;
    let blob = blob_of(document, layer)?;
    let packing = Packing::of_media_type(layer.media_type()).ok_or_else(|| {
        let rule = "layers must be tar, tar+gzip or tar+zstd";
        field_error(document, format!("layers[{n}].mediaType"), layer.media_type().to_string(), rule)
    })?;
    if packing == Packing::Plain && blob.digest != diff_id {
        let rule = "a layer that is not packed must have its own digest as diff id";
        return Err(field_error(document, format!("layers[{n}].digest"), blob.digest.to_string(), rule));
    }
    Ok(Layer { blob, packing, diff_id, chain_id })
}

fn image_config(configuration: &ImageConfiguration) -> Result<ImageConfig, DocumentError> {
    let Some(config) = configuration.config() else { return Ok(ImageConfig::default()) };
    let image_config = ImageConfig {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
    };
    let lists = [("config.Entrypoint", &image_config.entrypoint), ("config.Cmd", &image_config.cmd)];
    let words = lists.into_iter().chain([("config.Env", &image_config.env)]);
    let words = words.flat_map(|(field, list)| list.iter().map(move |word| (field, word)));
    let single = [("config.WorkingDir", &image_config.working_dir), ("config.User", &image_config.user)];
    for (field, word) in words.chain(single) {
        if word.contains('\0') {
            let rule = "must not contain a NUL character";
            return Err(field_error("image configuration", field, word.escape_debug().to_string(), rule));
        }
    }
    if !image_config.working_dir.is_empty() && !image_config.working_dir.starts_with('/') {
        let value = image_config.working_dir;
        return Err(field_error("image configuration", "config.WorkingDir", value, "must be an absolute path"));
    }
    Ok(image_config)
}

fn field_error(
    document: &'static str,
    field: impl Into<String>,
    mut value: String,
    rule: &'static str,
) -> DocumentError {
    // A hostile document does not get to write pages into a log.
    if let Some((at, _)) = value.char_indices().nth(MAX_QUOTED_CHARS) {
        value.truncate(at);
        value.push('…');
    }
    DocumentError::Field { document, field: field.into(), value, rule }
}

#[cfg(test)]
mod tests;
