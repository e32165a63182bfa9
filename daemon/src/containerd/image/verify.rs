//! Every blob is hashed and counted on its way, whatever its source.

use async_stream::try_stream;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::task::spawn_blocking;

use super::digest::Hasher;
use super::error::{ImageError, LayerError};
use super::source::{Blob, BlobStream};

/// Passes a blob's bytes on and fails at its end unless size and digest are
/// right. What came out before is then to be thrown away. `name` is for the
/// error. Of a blob that is read from `offset_bytes` on only the size is
/// checked here: containerd hashes all of it when it is committed.
pub(super) fn verified(
    mut stream: BlobStream,
    blob: Blob,
    offset_bytes: u64,
    name: String,
) -> impl Stream<Item = Result<Bytes, ImageError>> + Send {
    try_stream! {
        let mut hasher = Hasher::default();
        let mut size_bytes = offset_bytes;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            size_bytes += piece.len() as u64;
            if size_bytes > blob.size_bytes {
                Err(damaged(&name, format!("more than {} bytes came", blob.size_bytes)))?;
            }
            if offset_bytes > 0 {
                yield piece;
                continue;
            }
            // Half a millisecond and more for a piece: not on a worker. The
            // piece goes and comes back, so that it is never copied.
            let (hashed, piece) = hash(hasher, piece).await.ok_or_else(|| damaged(&name, "it was not hashed".into()))?;
            hasher = hashed;
            yield piece;
        }
        if size_bytes != blob.size_bytes {
            Err(damaged(&name, format!("{size_bytes} bytes came instead of {}", blob.size_bytes)))?;
        }
        let digest = hasher.finish();
        if offset_bytes == 0 && digest != blob.digest {
            Err(damaged(&name, format!("its bytes are {digest}")))?;
        }
    }
}

/// None if the runtime is ending.
async fn hash(mut hasher: Hasher, piece: Bytes) -> Option<(Hasher, Bytes)> {
    let hashed = spawn_blocking(move || {
        hasher.update(&piece);
        (hasher, piece)
    });
    hashed.await.ok()
}

fn damaged(name: &str, problem: String) -> ImageError {
    LayerError::Damaged { object: name.to_owned(), problem }.into()
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, stream};

    use super::*;
    use crate::containerd::image::digest::Digest;

    async fn passed(pieces: &'static [&'static str], size_bytes: u64, digest: Digest) -> Result<Vec<Bytes>, String> {
        let pieces = stream::iter(pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))));
        let blob = Blob { digest, size_bytes };
        verified(pieces.boxed(), blob, 0, "layer 1".into()).try_collect().await.map_err(|e: ImageError| e.to_string())
    }

    #[tokio::test]
    async fn what_is_right_passes_unchanged() {
        assert_eq!(passed(&["ab", "c"], 3, Digest::of(b"abc")).await.unwrap(), ["ab", "c"]);
        assert!(passed(&[], 0, Digest::of(b"")).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn too_short_too_long_and_changed_bytes_are_told_apart() {
        let digest = Digest::of(b"abc");
        assert!(passed(&["ab"], 3, digest).await.unwrap_err().contains("2 bytes came instead of 3"));
        assert!(passed(&["abc", "d"], 3, digest).await.unwrap_err().contains("more than 3 bytes"));
        let changed = passed(&["abd"], 3, digest).await.unwrap_err();
        assert!(changed.contains("layer 1 is damaged: its bytes are sha256:"), "{changed}");
    }
}
