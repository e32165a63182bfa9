//! Archives that are an OCI image layout.

use oci_spec::image::{Descriptor, OciLayout};
use roost_proto::model::ImageRef;

use super::{ArchiveError, Reader, Resolved};
use crate::containerd::image::digest::Digest;
use crate::containerd::image::document::{Document, Layer, Manifest, Platform, blob_of, parse_index};
use crate::containerd::image::error::{ImageError, LayerError};
use crate::containerd::image::media::{TargetKind, target_kind};
use crate::containerd::image::select::{SelectError, choose_image, choose_platform, named_images};
use crate::containerd::image::source::{Blob, Found};

/// Most indexes between `index.json` and a manifest. Exporters nest one.
const MAX_DEPTH: usize = 4;

/// Finds one image of the layout.
///
/// # Errors
/// A missing, damaged or unusable document or blob.
pub(super) fn resolve(
    reader: &Reader<'_>,
    wanted: Option<&ImageRef>,
    platform: &Platform,
) -> Result<Resolved, ImageError> {
    check_version(reader)?;
    let index = parse_index(&reader.document("index.json", "layout")?)?;
    let (reference, entries) = choose_image(named_images(&index), wanted)?;
    let manifest = Manifest::parse(descend(reader, &entries, platform)?)?;
    let config = read_blob(reader, &manifest.config(), "image manifest")?;
    let documents = manifest.with_config(config, platform)?;
    let layers = documents.layers.iter().enumerate().map(|(n, layer)| {
        let extent = reader.expect(&blob_path(&layer.blob.digest), "image manifest")?;
        check_size(n, layer, extent.size_bytes)?;
        Ok((layer.blob.digest, extent))
    });
    let layers = layers.collect::<Result<_, ImageError>>()?;
    Ok(Resolved { found: Found { reference, documents }, layers })
}

fn check_version(reader: &Reader<'_>) -> Result<(), ArchiveError> {
    let path = "oci-layout";
    let bytes = reader.document(path, "layout")?;
    let layout: OciLayout =
        serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Json { path: path.to_owned(), source })?;
    if layout.image_layout_version().starts_with("1.") {
        return Ok(());
    }
    Err(ArchiveError::Entry { path: path.to_owned(), problem: "only image layouts of version 1 are known" })
}

/// Follows indexes down to the manifest for the platform.
fn descend(reader: &Reader<'_>, entries: &[Descriptor], platform: &Platform) -> Result<Document, ImageError> {
    let mut chosen = choose_platform(entries, platform)?.clone();
    for _ in 0..MAX_DEPTH {
        let blob = blob_of("image index", &chosen)?;
        let bytes = read_blob(reader, &blob, "image index")?;
        match target_kind(chosen.media_type()) {
            Some(TargetKind::Manifest) => return Ok(Document { media_type: chosen.media_type().clone(), bytes }),
            Some(TargetKind::Index) => {
                chosen = choose_platform(parse_index(&bytes)?.manifests(), platform)?.clone();
            }
            None => return Err(SelectError::Empty.into()),
        }
    }
    let problem = "indexes are nested more than 4 deep";
    Err(ArchiveError::Entry { path: "index.json".to_owned(), problem }.into())
}

/// Reads a small blob and checks it against its name.
fn read_blob(reader: &Reader<'_>, blob: &Blob, named_by: &'static str) -> Result<Vec<u8>, ImageError> {
    let bytes = reader.document(&blob_path(&blob.digest), named_by)?;
    let found = Blob { digest: Digest::of(&bytes), size_bytes: bytes.len() as u64 };
    if found == *blob {
        return Ok(bytes);
    }
    let problem = format!("the archive holds {found} in its place");
    Err(LayerError::Damaged { object: blob.to_string(), problem }.into())
}

fn check_size(n: usize, layer: &Layer, found_bytes: u64) -> Result<(), ImageError> {
    if found_bytes == layer.blob.size_bytes {
        return Ok(());
    }
    let problem = format!("the archive holds {found_bytes} bytes of it");
    Err(LayerError::Damaged { object: format!("layer {} ({})", n + 1, layer.blob), problem }.into())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
