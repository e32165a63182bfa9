//! Where checkpoints are kept: a directory, or a bucket that speaks S3.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::Hash;
use super::manifest::ZSTD_LEVEL;
use crate::config::S3Config;

/// Why the store does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It cannot be used as it is configured.
    #[error("{0}")]
    Config(String),
    /// A request failed.
    #[error("cannot {operation} {key} in the store of checkpoints")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// On what.
        key: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// An object does not hold what it should.
    #[error("{key} in the store of checkpoints is damaged: {problem}")]
    Damaged {
        /// Which.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The daemon shuts down.
    #[error("the daemon is shutting down")]
    Ended,
}

/// An object of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: String,
    /// Unix time of its last writing, in milliseconds.
    pub written_at_unix_ms: i64,
}

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    prefix: object_store::path::Path,
}

impl Blobs {
    /// A store in a directory, which is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn in_directory(dir: &Path) -> Result<Self, BlobError> {
        let wrong = |error: &dyn std::fmt::Display| {
            BlobError::Config(format!("checkpoints.directory: {}: {error}", dir.display()))
        };
        std::fs::create_dir_all(dir).map_err(|error| wrong(&error))?;
        crate::host::files::set_mode(dir, 0o700).map_err(|error| wrong(&error))?;
        let store = LocalFileSystem::new_with_prefix(dir).map_err(|error| wrong(&error))?;
        // What was promised durable must survive a power cut.
        Ok(Self { store: Arc::new(store.with_fsync(true)), prefix: object_store::path::Path::default() })
    }

    /// A bucket. The keys come from the environment.
    ///
    /// # Errors
    /// When it cannot be used as it is configured.
    pub fn in_bucket(config: &S3Config) -> Result<Self, BlobError> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_allow_http(config.allow_http);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|error| BlobError::Config(format!("checkpoints.s3: {error}")))?;
        Ok(Self { store: Arc::new(store), prefix: config.prefix.as_str().into() })
    }

    fn path(&self, key: &str) -> object_store::path::Path {
        if self.prefix.as_ref().is_empty() { key.into() } else { format!("{}/{key}", self.prefix).into() }
    }

    /// Writes an object, whole or not at all.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), BlobError> {
        let put = self.store.put(&self.path(key), PutPayload::from(bytes)).await;
        put.map(drop).map_err(|source| BlobError::Store { operation: "write", key: key.to_owned(), source })
    }

    /// Reads an object.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, BlobError> {
        let read = async { self.store.get(&self.path(key)).await?.bytes().await };
        let bytes = read.await.map_err(|source| BlobError::Store { operation: "read", key: key.to_owned(), source })?;
        Ok(bytes.into())
    }

    /// Objects whose names begin with `prefix`, which ends with a slash.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, BlobError> {
        let own = self.prefix.as_ref().len() + usize::from(!self.prefix.as_ref().is_empty());
        let listed = self.store.list(Some(&self.path(prefix))).map_ok(|meta| Object {
            key: meta.location.as_ref()[own..].to_owned(),
            written_at_unix_ms: meta.last_modified.timestamp_millis(),
        });
        let listed: Result<Vec<_>, _> = listed.try_collect().await;
        listed.map_err(|source| BlobError::Store { operation: "list", key: prefix.to_owned(), source })
    }

    /// Removes an object; none there is success.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn delete(&self, key: &str) -> Result<(), BlobError> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(BlobError::Store { operation: "remove", key: key.to_owned(), source }),
        }
    }

    /// When an object was written, in Unix milliseconds; none if it is not
    /// there.
    async fn written_at(&self, key: &str) -> Result<Option<i64>, BlobError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.last_modified.timestamp_millis())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(BlobError::Store { operation: "look at", key: key.to_owned(), source }),
        }
    }

    /// Keeps a piece, unless it is there and was written after
    /// `fresh_since_unix_ms`: what is older might be collected meanwhile.
    /// Returns what it took.
    pub(super) async fn put_piece(
        &self,
        hash: Hash,
        data: Vec<u8>,
        fresh_since_unix_ms: i64,
    ) -> Result<u64, BlobError> {
        let key = piece_key(hash);
        if self.written_at(&key).await?.is_some_and(|at| at > fresh_since_unix_ms) {
            return Ok(0);
        }
        let packed = tokio::task::spawn_blocking(move || zstd::bulk::compress(&data, ZSTD_LEVEL));
        let packed = packed.await.map_err(|_| BlobError::Ended)?;
        let packed = packed.map_err(|e| BlobError::Damaged { key: key.clone(), problem: e.to_string() })?;
        let stored = packed.len() as u64;
        self.put(&key, packed).await?;
        Ok(stored)
    }

    /// A piece, checked.
    pub(super) async fn piece(&self, hash: Hash, len: u32) -> Result<Vec<u8>, BlobError> {
        let key = piece_key(hash);
        let packed = self.get(&key).await?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let unpacked = tokio::task::spawn_blocking(move || {
            let data = zstd::bulk::decompress(&packed, len).map_err(|error| error.to_string())?;
            match data.len() == len && Hash::of(&data) == hash {
                true => Ok(data),
                false => Err("its content is not the one that was saved".to_owned()),
            }
        });
        unpacked.await.map_err(|_| BlobError::Ended)?.map_err(|problem| BlobError::Damaged { key, problem })
    }
}

/// Where pieces are.
pub(super) const PIECES: &str = "chunks/";

fn piece_key(hash: Hash) -> String {
    let text = hash.to_string();
    format!("{PIECES}{}/{text}", &text[..2])
}

/// The piece that an object is.
pub(super) fn piece_of(key: &str) -> Option<Hash> {
    key.strip_prefix(PIECES)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_piece_comes_back_and_a_damaged_one_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_directory(dir.path()).unwrap();
        let data = b"content ".repeat(1000);
        let (hash, len) = (Hash::of(&data), u32::try_from(data.len()).unwrap());
        assert!(blobs.put_piece(hash, data.clone(), 0).await.unwrap() > 0);
        assert_eq!(blobs.put_piece(hash, data.clone(), 0).await.unwrap(), 0, "it is there");
        assert!(blobs.put_piece(hash, data.clone(), i64::MAX).await.unwrap() > 0, "an old one is written again");
        assert_eq!(blobs.piece(hash, len).await.unwrap(), data);
        let listed = blobs.list(PIECES).await.unwrap();
        assert_eq!(listed.iter().map(|object| piece_of(&object.key)).collect::<Vec<_>>(), [Some(hash)]);
        blobs.put(&listed[0].key, zstd::bulk::compress(b"other", 1).unwrap()).await.unwrap();
        assert!(matches!(blobs.piece(hash, len).await, Err(BlobError::Damaged { .. })));
        blobs.delete(&listed[0].key).await.unwrap();
        blobs.delete(&listed[0].key).await.unwrap();
        assert!(matches!(blobs.piece(hash, len).await, Err(BlobError::Store { .. })));
    }
}
