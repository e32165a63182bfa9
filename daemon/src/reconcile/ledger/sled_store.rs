//! The ledger on sled.
//!
//! sled's `flush` does not sync on Linux: it writes back the pages and leaves
//! them in the disk's cache. Every commit therefore ends with an fsync of
//! sled's one file through a descriptor of our own (fsync is per inode).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::volume::VolumeKey;

use super::{
    Change, Contents, DecodeRecordError, LedgerError, MAX_RECORD_BYTES, Progress, Record, Store, decode, encode,
};

/// Prefix of the keys of sandbox records.
const SANDBOX_PREFIX: &str = "sandbox/";
/// Prefix of the keys of how far sandboxes came.
const PROGRESS_PREFIX: &str = "progress/";
/// Prefix of the keys of pools.
const POOL_PREFIX: &str = "pool/";
/// Prefix of the keys of volumes; tenant and name follow.
const VOLUME_PREFIX: &str = "volume/";
/// Key of central's generation: eight bytes, big endian.
const CENTRAL_GENERATION_KEY: &str = "central-generation";
/// Key of node time.
const UPTIME_KEY: &str = "uptime";
/// Page cache of sled, in bytes: a thousand records are about 2 MB.
const CACHE_BYTES: u64 = 4 << 20;

/// A sled database in a directory of its own.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    db: sled::Db,
    /// sled's file, for our own fsync.
    file: File,
}

impl SledStore {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let error = |source: io::Error| store_error("open", dir, source);
        std::fs::create_dir_all(dir).map_err(error)?;
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .open()
            .map_err(|e| store_error("open", dir, e))?;
        let file = File::open(dir.join("db")).map_err(error)?;
        // A new file is only there for good once its directories are synced.
        for path in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(path).and_then(|d| d.sync_all()).map_err(error)?;
        }
        Ok(Self { dir: dir.to_owned(), db, file })
    }

    fn batch(changes: &[Change]) -> Result<sled::Batch, LedgerError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put(record) => {
                    let id = &record.desired.id;
                    batch.insert(key(SANDBOX_PREFIX, id).as_str(), checked(id, record)?);
                }
                Change::Progress(id, progress) => {
                    batch.insert(key(PROGRESS_PREFIX, id).as_str(), checked(id, progress)?);
                }
                Change::Remove(id) => {
                    batch.remove(key(SANDBOX_PREFIX, id).as_str());
                    batch.remove(key(PROGRESS_PREFIX, id).as_str());
                }
                Change::CentralGeneration(g) => batch.insert(CENTRAL_GENERATION_KEY, &g.to_be_bytes()),
                Change::PutPool(pool) => {
                    batch.insert(key(POOL_PREFIX, &pool.name).as_str(), checked(&pool.name, pool)?);
                }
                Change::RemovePool(name) => batch.remove(key(POOL_PREFIX, name).as_str()),
                Change::PutVolume(volume) => {
                    let id = volume.key();
                    batch.insert(volume_key(&id).as_str(), checked(&id, volume)?);
                }
                Change::RemoveVolume(id) => batch.remove(volume_key(id).as_str()),
                Change::Uptime(uptime) => batch.insert(UPTIME_KEY, checked(&UPTIME_KEY, uptime)?),
            }
        }
        Ok(batch)
    }
}

fn key(prefix: &str, id: &impl std::fmt::Display) -> String {
    format!("{prefix}{id}")
}

fn volume_key(volume: &VolumeKey) -> String {
    format!("{VOLUME_PREFIX}{}/{}", volume.tenant, volume.name)
}

fn record_error(id: &impl ToString, error: DecodeRecordError) -> LedgerError {
    LedgerError::Record { id: id.to_string(), source: Arc::new(error) }
}

/// The stored form, if it is small enough to be durable.
fn checked<T: Serialize>(id: &impl ToString, content: &T) -> Result<Vec<u8>, LedgerError> {
    let bytes = encode(content).map_err(|e| record_error(id, DecodeRecordError::Json(e)))?;
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(LedgerError::TooLarge { id: id.to_string(), bytes: bytes.len() });
    }
    Ok(bytes)
}

fn store_error(
    operation: &'static str,
    dir: &Path,
    source: impl std::error::Error + Send + Sync + 'static,
) -> LedgerError {
    LedgerError::Store { operation, path: dir.to_owned(), source: Arc::new(source) }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<Contents, LedgerError> {
        let error = |e: sled::Error| store_error("read", &self.dir, e);
        let mut contents = Contents::default();
        for entry in self.db.scan_prefix(SANDBOX_PREFIX) {
            let (key_bytes, value) = entry.map_err(error)?;
            let broken = |e| record_error(&String::from_utf8_lossy(&key_bytes), e);
            let record: Record = decode(&value).map_err(broken)?;
            let progress = self.db.get(key(PROGRESS_PREFIX, &record.desired.id)).map_err(error)?;
            let progress = progress.map(|value| decode::<Progress>(&value)).transpose().map_err(broken)?;
            contents.records.push((record, progress.unwrap_or_default()));
        }
        for entry in self.db.scan_prefix(POOL_PREFIX) {
            let (key_bytes, value) = entry.map_err(error)?;
            let pool = decode(&value).map_err(|e| record_error(&String::from_utf8_lossy(&key_bytes), e))?;
            contents.pools.push(pool);
        }
        for entry in self.db.scan_prefix(VOLUME_PREFIX) {
            let (key_bytes, value) = entry.map_err(error)?;
            let volume = decode(&value).map_err(|e| record_error(&String::from_utf8_lossy(&key_bytes), e))?;
            contents.volumes.push(volume);
        }
        if let Some(value) = self.db.get(UPTIME_KEY).map_err(error)? {
            contents.uptime = Some(decode(&value).map_err(|e| record_error(&UPTIME_KEY, e))?);
        }
        if let Some(value) = self.db.get(CENTRAL_GENERATION_KEY).map_err(error)? {
            let bytes = value.as_ref().try_into().map_err(|_| {
                let text = format!("{CENTRAL_GENERATION_KEY} has {} bytes instead of 8", value.len());
                store_error("read", &self.dir, io::Error::new(io::ErrorKind::InvalidData, text))
            })?;
            contents.central_generation = u64::from_be_bytes(bytes);
        }
        Ok(contents)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), LedgerError> {
        let error = |e: sled::Error| store_error("write", &self.dir, e);
        self.db.apply_batch(Self::batch(changes)?).map_err(error)?;
        self.db.flush().map_err(error)?;
        self.file.sync_data().map_err(|e| store_error("sync", &self.dir, e))
    }

    fn size_on_disk(&self) -> u64 {
        self.file.metadata().map(|m| m.len()).unwrap_or_default()
    }
}
