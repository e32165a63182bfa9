//! What Roost notes on containerd's image record, so that a list needs no
//! other call.

use std::collections::HashMap;

use containerd_client::services::v1::Image;
use containerd_client::types::Descriptor;
use roost_proto::model::ImageInfo;

use super::digest::Digest;
use super::document::Documents;

const IMPORTED_AT: &str = "roost.io/imported-at-unix-ms";
const SIZE: &str = "roost.io/size-bytes";
const UNPACKED_BYTES: &str = "roost.io/unpacked-bytes";
const PLATFORM: &str = "roost.io/platform";
/// Set while it is pinned.
pub(super) const PINNED: &str = "roost.io/pinned";
/// Written now and then: the daemon knows better while it runs.
pub(super) const LAST_USED: &str = "roost.io/last-used-at-unix-ms";
/// With the snapshotter's name behind it: the highest snapshot's.
const UNPACKED: &str = "roost.io/unpacked";

/// The record of an image that is whole.
pub(super) fn make(info: &ImageInfo, documents: &Documents, snapshotter: &str) -> Image {
    let blob = documents.manifest.blob();
    let target = Descriptor {
        media_type: documents.manifest.media_type.to_string(),
        digest: blob.digest.to_string(),
        size: blob.size_bytes.cast_signed(),
        ..Descriptor::default()
    };
    let unpacked = documents.top_chain_id().map(|id| (format!("{UNPACKED}.{snapshotter}"), id.to_string()));
    let labels = [
        (IMPORTED_AT.to_owned(), info.imported_at_unix_ms.to_string()),
        (SIZE.to_owned(), info.size_bytes.to_string()),
        (UNPACKED_BYTES.to_owned(), info.unpacked_bytes.to_string()),
        (PLATFORM.to_owned(), info.platform.clone()),
        (LAST_USED.to_owned(), info.last_used_at_unix_ms.to_string()),
    ];
    let pinned = info.pinned.then(|| (PINNED.to_owned(), "true".to_owned()));
    Image {
        name: info.reference.to_string(),
        labels: labels.into_iter().chain(unpacked).chain(pinned).collect(),
        target: Some(target),
        ..Image::default()
    }
}

/// The highest snapshot of a record's image.
pub(super) fn chain_id<'a>(image: &'a Image, snapshotter: &str) -> Option<&'a str> {
    label(&image.labels, &format!("{UNPACKED}.{snapshotter}"))
}

/// Reads a record; none if Roost did not write it or another snapshotter has
/// its layers.
pub(super) fn info(image: &Image, snapshotter: &str) -> Option<ImageInfo> {
    let number = |key| label(&image.labels, key)?.parse::<u64>().ok();
    chain_id(image, snapshotter)?.parse::<Digest>().ok()?;
    let digest = image.target.as_ref()?.digest.parse::<Digest>().ok()?.to_string();
    let imported_at = number(IMPORTED_AT)?;
    Some(ImageInfo {
        unpacked_bytes: number(UNPACKED_BYTES).unwrap_or_default(),
        pinned: image.labels.contains_key(PINNED),
        last_used_at_unix_ms: number(LAST_USED).unwrap_or(imported_at),
        platform: label(&image.labels, PLATFORM).unwrap_or_default().to_owned(),
        ..ImageInfo::new(image.name.parse().ok()?, digest, number(SIZE)?, imported_at)
    })
}

fn label<'a>(labels: &'a HashMap<String, String>, key: &str) -> Option<&'a str> {
    labels.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(labels: &[(&str, &str)]) -> Image {
        let digest = Digest::of(b"manifest").to_string();
        Image {
            name: "roost/a:1".into(),
            labels: labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            target: Some(Descriptor { digest, ..Descriptor::default() }),
            ..Image::default()
        }
    }

    #[test]
    fn only_records_that_roost_wrote_for_this_snapshotter_count() {
        let chain_id = Digest::of(b"chain").to_string();
        let whole = [("roost.io/unpacked.overlayfs", &*chain_id), (SIZE, "7"), (IMPORTED_AT, "8")];
        let found = info(&image(&whole), "overlayfs").unwrap();
        assert_eq!((found.reference.as_str(), found.size_bytes, found.imported_at_unix_ms), ("roost/a:1", 7, 8));
        assert_eq!((found.last_used_at_unix_ms, found.pinned), (8, false));
        assert_eq!(info(&image(&whole), "native"), None);
        assert_eq!(info(&image(&whole[1..]), "overlayfs"), None);
        assert_eq!(info(&image(&[]), "overlayfs"), None);
    }
}
