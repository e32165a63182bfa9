//! Writing an OCI archive: headers are made here, blobs are streamed.
//!
//! The same image always gives the same bytes.

use oci_spec::image::MediaType;
use roost_proto::model::ImageRef;
use serde_json::json;
use tar::{EntryType, Header};

use crate::containerd::image::digest::Digest;
use crate::containerd::image::document::Documents;
use crate::containerd::image::source::Blob;

/// Size of a tar's blocks, in bytes.
const BLOCK: u64 = 512;

/// One piece of an archive, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of a blob.
    Blob(Blob),
}

/// An archive that is to be written.
#[derive(Debug, Default)]
pub struct ArchiveWriter {
    parts: Vec<Part>,
    total_bytes: u64,
}

impl ArchiveWriter {
    /// The archive of one image under its name.
    #[must_use]
    pub fn new(reference: &ImageRef, documents: &Documents) -> Self {
        let manifest = documents.manifest.blob();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageIndex.as_ref(),
            "manifests": [{
                "mediaType": documents.manifest.media_type.as_ref(),
                "digest": manifest.digest.to_string(),
                "size": manifest.size_bytes,
                "annotations": {
                    "io.containerd.image.name": reference.as_str(),
                    "org.opencontainers.image.ref.name": reference.tag().unwrap_or("latest"),
                },
            }],
        });
        let mut writer = Self::default();
        writer.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        writer.file("index.json", index.to_string().into_bytes());
        writer.file(&path(&manifest.digest), documents.manifest.bytes.clone());
        writer.file(&path(&documents.config.blob().digest), documents.config.bytes.clone());
        let mut written = Vec::new();
        for layer in &documents.layers {
            if !written.contains(&layer.blob.digest) {
                written.push(layer.blob.digest);
                writer.header(&path(&layer.blob.digest), layer.blob.size_bytes);
                writer.push(Part::Blob(layer.blob), layer.blob.size_bytes);
                writer.pad(layer.blob.size_bytes);
            }
        }
        // Two empty blocks end an archive.
        writer.bytes(vec![0; 2 * BLOCK as usize]);
        writer
    }

    /// Size of the whole archive, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Its pieces.
    #[must_use]
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    fn file(&mut self, path: &str, bytes: Vec<u8>) {
        let size_bytes = bytes.len() as u64;
        self.header(path, size_bytes);
        self.bytes(bytes);
        self.pad(size_bytes);
    }

    fn header(&mut self, path: &str, size_bytes: u64) {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        // All paths are short and plain: this cannot fail.
        if let Err(error) = header.set_path(path) {
            tracing::error!(path, %error, "path of an archive is not one");
        }
        header.set_size(size_bytes);
        header.set_mode(0o444);
        header.set_cksum();
        self.bytes(header.as_bytes().to_vec());
    }

    fn pad(&mut self, size_bytes: u64) {
        let padding = size_bytes.next_multiple_of(BLOCK) - size_bytes;
        self.bytes(vec![0; usize::try_from(padding).unwrap_or_default()]);
    }

    fn bytes(&mut self, bytes: Vec<u8>) {
        let length = bytes.len() as u64;
        if length > 0 {
            self.push(Part::Bytes(bytes), length);
        }
    }

    fn push(&mut self, part: Part, length: u64) {
        self.total_bytes += length;
        self.parts.push(part);
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
