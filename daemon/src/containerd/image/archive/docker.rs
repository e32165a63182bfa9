//! Archives that `docker save` writes: no manifest with digests, so one is
//! made. It depends on nothing but the image, so that the same image always
//! gets the same digest.

use std::collections::HashMap;

use oci_spec::image::MediaType;
use roost_proto::model::ImageRef;
use serde::Deserialize;
use serde_json::{Value, json};

use super::entries::Extent;
use super::{ArchiveError, Reader, Resolved};
use crate::containerd::image::digest::{Digest, Hasher};
use crate::containerd::image::document::{Document, MAX_LAYERS, Manifest, Platform, diff_ids, parse_config};
use crate::containerd::image::error::{ImageError, LayerError};
use crate::containerd::image::media::Packing;
use crate::containerd::image::select::{Named, choose_image};
use crate::containerd::image::source::{Blob, Found};

const INDEX: &str = "manifest.json";

/// One image in `manifest.json`. Other fields are of no interest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// One layer as it lies in the archive.
struct PackedLayer {
    blob: Blob,
    packing: Packing,
    extent: Extent,
}

/// Finds one image of the archive.
///
/// # Errors
/// A missing or unusable document or layer.
pub(super) fn resolve(
    reader: &Reader<'_>,
    wanted: Option<&ImageRef>,
    platform: &Platform,
) -> Result<Resolved, ImageError> {
    let items: Vec<Item> = serde_json::from_slice(&reader.document(INDEX, "layout")?)
        .map_err(|source| ArchiveError::Json { path: INDEX.to_owned(), source })?;
    let named = |item: Item| Named { names: item.repo_tags.clone().unwrap_or_default(), item };
    let (reference, item) = choose_image(items.into_iter().map(named).collect(), wanted)?;
    let config = reader.document(&item.config, INDEX)?;
    check_name(&item.config, &Digest::of(&config))?;
    let diff_ids = diff_ids(&parse_config(&config)?)?;
    if item.layers.len() != diff_ids.len() || item.layers.len() > MAX_LAYERS {
        let problem = "it must list as many layers as the image's configuration, and at most 128";
        return Err(ArchiveError::Entry { path: INDEX.to_owned(), problem }.into());
    }
    let packed = item.layers.iter().zip(diff_ids).map(|(path, diff_id)| packed_layer(reader, path, diff_id));
    let packed: Vec<PackedLayer> = packed.collect::<Result<_, ImageError>>()?;
    let documents = Manifest::parse(make_manifest(&config, &packed))?.with_config(config, platform)?;
    let layers: HashMap<_, _> = packed.iter().map(|layer| (layer.blob.digest, layer.extent)).collect();
    Ok(Resolved { found: Found { reference, documents }, layers })
}

/// A layer's blob. Of a plain tar the digest is known, it is the diff id, and
/// checked when the import reads it; of a packed one it is computed.
fn packed_layer(reader: &Reader<'_>, path: &str, diff_id: Digest) -> Result<PackedLayer, ImageError> {
    let extent = reader.expect(path, INDEX)?;
    let first = Extent { size_bytes: extent.size_bytes.min(4), ..extent };
    let packing = Packing::of_first_bytes(&first.read(reader.file).map_err(ArchiveError::Io)?);
    let digest = if packing == Packing::Plain {
        diff_id
    } else {
        let digest = hash(reader, extent).map_err(ArchiveError::Io)?;
        check_name(path, &digest)?;
        digest
    };
    Ok(PackedLayer { blob: Blob { digest, size_bytes: extent.size_bytes }, packing, extent })
}

fn hash(reader: &Reader<'_>, extent: Extent) -> std::io::Result<Digest> {
    let mut hasher = Hasher::default();
    for piece in extent.pieces() {
        hasher.update(&piece.read(reader.file)?);
    }
    Ok(hasher.finish())
}

/// Where a file's name is a digest it must be its own.
fn check_name(path: &str, digest: &Digest) -> Result<(), ImageError> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once('.').map_or(file, |(stem, _)| stem);
    match Digest::from_hex(stem) {
        Some(named) if named != *digest => Err(LayerError::Damaged {
            object: format!("the archive's {path}"),
            problem: format!("its bytes are {digest}"),
        }
        .into()),
        _ => Ok(()),
    }
}

fn make_manifest(config: &[u8], layers: &[PackedLayer]) -> Document {
    let config = Blob { digest: Digest::of(config), size_bytes: config.len() as u64 };
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(&layer.packing.media_type(), &layer.blob)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.as_ref(),
        "config": descriptor(&MediaType::ImageConfig, &config),
        "layers": layers,
    });
    Document { media_type: MediaType::ImageManifest, bytes: manifest.to_string().into_bytes() }
}

fn descriptor(media_type: &MediaType, blob: &Blob) -> Value {
    json!({ "mediaType": media_type.as_ref(), "digest": blob.digest.to_string(), "size": blob.size_bytes })
}
