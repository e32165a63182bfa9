//! Small image archives, good ones and ones that are spoilt on purpose.

// Several suites share this file, and none uses all of it.
#![allow(dead_code)]

use std::collections::HashSet;
use std::io::Write;

use roostd::containerd::image::Digest;
use roostd::containerd::image::document::Platform;
use serde_json::{Value, json};

pub(crate) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A tar of some files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for &(path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, data).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One entry of a tar, written without the checks of the tar library.
/// `extensions` go into an extended header before it.
pub(crate) fn entry(
    kind: tar::EntryType,
    path: &str,
    link: &str,
    data: &[u8],
    extensions: &[(&str, &[u8])],
) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(extensions.iter().copied()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(data.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..path.len()].copy_from_slice(path.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    builder.append(&header, data).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    // Others may follow: the two blocks that end an archive go.
    bytes.truncate(bytes.len() - 1024);
    bytes
}

/// A tar of such entries.
pub(crate) fn tar_of(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// One layer: how it is packed, its bytes, and the diff id that is claimed.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) diff_id: Digest,
}

impl Layer {
    pub(crate) fn new(media_type: &'static str, files: &[(&str, &[u8])]) -> Self {
        let plain = tar(files);
        let diff_id = Digest::of(&plain);
        let bytes = match media_type {
            GZIP => gzip(&plain),
            ZSTD => zstd::encode_all(&*plain, 3).unwrap(),
            _ => plain,
        };
        Self { media_type, bytes, diff_id }
    }

    /// A layer of this tar.
    pub(crate) fn of_tar(bytes: Vec<u8>) -> Self {
        Self { media_type: PLAIN, diff_id: Digest::of(&bytes), bytes }
    }

    /// A layer with a block device.
    pub(crate) fn device(path: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Block);
        header.set_size(0);
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, path, std::io::empty()).unwrap();
        let bytes = builder.into_inner().unwrap();
        Self { media_type: PLAIN, diff_id: Digest::of(&bytes), bytes }
    }
}

/// An image, to be written as an archive of either form.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) architecture: String,
    pub(crate) layers: Vec<Layer>,
}

impl Image {
    pub(crate) fn new(layers: Vec<Layer>) -> Self {
        Self { architecture: Platform::host().architecture, layers }
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let config = json!({ "Cmd": ["/hello"], "Env": ["PATH=/"], "User": "7:8" });
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        let document = json!({ "os": "linux", "architecture": self.architecture, "config": config, "rootfs": rootfs });
        document.to_string().into_bytes()
    }

    pub(crate) fn manifest(&self) -> Vec<u8> {
        let layers: Vec<_> = self.layers.iter().map(|layer| descriptor(layer.media_type, &layer.bytes)).collect();
        let config = descriptor(CONFIG, &self.config());
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }).to_string().into()
    }

    /// The image's entry in an index.
    pub(crate) fn entry(&self) -> Value {
        let mut entry = descriptor(MANIFEST, &self.manifest());
        entry["platform"] = json!({ "os": "linux", "architecture": self.architecture });
        entry
    }

    /// Its blobs as files of a layout.
    pub(crate) fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let layers = self.layers.iter().map(|layer| layer.bytes.clone());
        let blobs = layers.chain([self.config(), self.manifest()]).map(|bytes| (blob_path(&bytes), bytes));
        let mut seen = HashSet::new();
        blobs.filter(|(path, _)| seen.insert(path.clone())).collect()
    }

    /// An OCI archive of this image alone.
    pub(crate) fn oci(&self, name: &str) -> Vec<u8> {
        let mut entry = self.entry();
        entry["annotations"] = json!({ "io.containerd.image.name": name });
        layout(self.blobs(), &[entry])
    }

    /// What `docker save` would write of it.
    pub(crate) fn docker(&self, name: &str) -> Vec<u8> {
        let config = self.config();
        let config_path = format!("{}.json", Digest::of(&config).hex());
        let paths: Vec<_> = (0..self.layers.len()).map(|n| format!("{n}/layer.tar")).collect();
        let index = json!([{ "Config": config_path, "RepoTags": [name], "Layers": paths }]).to_string();
        let layers = paths.into_iter().zip(self.layers.iter().map(|layer| layer.bytes.clone()));
        let files: Vec<_> =
            layers.chain([(config_path, config), ("manifest.json".to_owned(), index.into_bytes())]).collect();
        archive(&files)
    }
}

/// An OCI archive with these blobs and entries of `index.json`.
pub(crate) fn layout(blobs: Vec<(String, Vec<u8>)>, entries: &[Value]) -> Vec<u8> {
    let mut files = blobs;
    files.push(("index.json".to_owned(), index(entries)));
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    archive(&files)
}

/// An index as a blob, with its entry for the index above it.
pub(crate) fn nested(entries: &[Value]) -> ((String, Vec<u8>), Value) {
    let bytes = index(entries);
    let entry = descriptor(INDEX, &bytes);
    ((blob_path(&bytes), bytes), entry)
}

fn index(entries: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string().into_bytes()
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (&**path, &**bytes)).collect();
    tar(&files)
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}
