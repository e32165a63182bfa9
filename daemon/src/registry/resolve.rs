//! From a reference to the manifest and configuration for this machine.

use oci_spec::image::MediaType;
use reqwest::header::CONTENT_TYPE;
use roost_proto::model::ImageRef;
use serde::Deserialize;

use super::error::RegistryError;
use super::http::{Api, read_body};
use super::retry;
use crate::containerd::image::Digest;
use crate::containerd::image::document::{
    Document, DocumentError, MAX_DOCUMENT_BYTES, Manifest, Platform, blob_of, parse_index,
};
use crate::containerd::image::media::{MANIFEST_TYPES, TargetKind, target_kind};
use crate::containerd::image::select::choose_platform;
use crate::containerd::image::source::{Blob, Found};
use crate::sandbox::failure::chain;

/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 3;

/// What a reference stands for.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Digest of what the reference names itself: of the index, if it is one.
    pub(super) top: Digest,
    /// The image for this machine.
    pub(super) found: Found,
}

/// Only what tells an index from a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
}

/// Finds the image at one endpoint.
///
/// # Errors
/// See [`RegistryError`].
pub(super) async fn resolve(api: &Api, reference: &ImageRef) -> Result<Resolved, RegistryError> {
    let pinned: Option<Digest> = reference.digest().and_then(|digest| digest.parse().ok());
    let name = reference.digest().or_else(|| reference.tag()).unwrap_or("latest");
    let mut document = manifest(api, name, pinned).await?;
    let top = document.blob().digest;
    let platform = Platform::host();
    let invalid = |error: DocumentError| api.wrong(chain(&error));
    for _ in 0..MAX_DEPTH {
        if target_kind(&document.media_type) != Some(TargetKind::Index) {
            break;
        }
        let index = parse_index(&document.bytes).map_err(invalid)?;
        let chosen = choose_platform(index.manifests(), &platform).map_err(|error| api.wrong(error.to_string()))?;
        let blob = blob_of("image index", chosen).map_err(invalid)?;
        document = manifest(api, &blob.digest.to_string(), Some(blob.digest)).await?;
    }
    let manifest = Manifest::parse(document).map_err(invalid)?;
    let config = small_blob(api, manifest.config()).await?;
    let documents = manifest.with_config(config, &platform).map_err(invalid)?;
    Ok(Resolved { top, found: Found { reference: reference.clone(), documents } })
}

/// A manifest or index by tag or digest.
///
/// # Errors
/// See [`RegistryError`]; other bytes than `expected`, if that is given.
pub(super) async fn manifest(api: &Api, name: &str, expected: Option<Digest>) -> Result<Document, RegistryError> {
    let accept = MANIFEST_TYPES.join(", ");
    let (bytes, header) = document(api, &format!("manifests/{name}"), &accept, MAX_DOCUMENT_BYTES).await?;
    let document = Document { media_type: MediaType::from(media_type(&bytes, header).as_str()), bytes };
    let found = document.blob().digest;
    match expected {
        Some(expected) if expected != found => {
            Err(api.wrong(format!("manifest {expected} is damaged: its bytes are {found}")))
        }
        _ => Ok(document),
    }
}

/// A blob that is a document.
///
/// # Errors
/// See [`RegistryError`]; other bytes than its digest says.
pub(super) async fn small_blob(api: &Api, blob: Blob) -> Result<Vec<u8>, RegistryError> {
    let max_bytes = blob.size_bytes.min(MAX_DOCUMENT_BYTES);
    let (bytes, _) = document(api, &format!("blobs/{}", blob.digest), "*/*", max_bytes).await?;
    let found = Digest::of(&bytes);
    if found == blob.digest { Ok(bytes) } else { Err(api.wrong(format!("{blob} is damaged: its bytes are {found}"))) }
}

/// Reads a document whole, again if the connection breaks within it. Also
/// gives its content type.
async fn document(
    api: &Api,
    path: &str,
    accept: &str,
    max_bytes: u64,
) -> Result<(Vec<u8>, Option<String>), RegistryError> {
    let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut attempt = 1;
    loop {
        let response = api.get(path, accept, 0).await?;
        let header = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        match read_body(api, response, max_bytes).await {
            Ok(body) => return Ok((body.into(), header)),
            Err(error) if !error.is_transient() || attempt >= api.attempts() => return Err(error),
            Err(_) => {
                attempt += 1;
                tokio::time::sleep(retry::pause(attempt, rand::random())).await;
            }
        }
    }
}

/// The document's own word counts; older manifests have none.
fn media_type(bytes: &[u8], header: Option<String>) -> String {
    let own = serde_json::from_slice::<Kind>(bytes).ok().and_then(|kind| kind.media_type);
    let header = header.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    own.or(header).unwrap_or_default()
}
