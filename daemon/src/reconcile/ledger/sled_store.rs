//! The ledger on sled, and what sled alone does not promise.
//!
//! - sled's `flush` does not sync on Linux: it writes back the pages and leaves
//!   them in the disk's cache. Every commit therefore ends with an fsync of
//!   sled's one file through a descriptor of our own (fsync is per inode).
//! - sled takes a log that ends early for one that was written no further, and
//!   says nothing. Commits are numbered, and the number of the last one that
//!   was durable is kept beside it ([`Mark`]): a log that ends before it is
//!   damaged.
//! - sled panics on some kinds of damage. A panic is damage.
//! - After a write error sled takes nothing more, and may wait for ever, also
//!   while it is closed. So room on the disk is taken before each commit, and
//!   a store whose writing failed all the same is of no more use
//!   ([`Store::is_usable`]).
//! - sled moves pages above about 128 KiB to files of their own, which it never
//!   syncs: records are smaller, and a page of a few large ones is synced here.

mod mark;

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::volume::VolumeKey;

use super::{
    Change, Contents, DecodeRecordError, LedgerError, MAX_RECORD_BYTES, Progress, Record, Store, decode, encode,
};
use crate::host::{disk, fault};
use mark::Mark;

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
/// Key of the number of the last commit: eight bytes, big endian. A ledger of
/// an earlier daemon has none, and begins with 0.
const COMMITS_KEY: &str = "commits";
/// Page cache of sled, in bytes: a thousand records are about 2 MB.
const CACHE_BYTES: u64 = 4 << 20;
/// What sled may write for a commit besides its records, in bytes: two of its
/// segments.
const COMMIT_SLACK_BYTES: u64 = 1 << 20;
/// And in files of their own, in bytes.
const FILES_SLACK_BYTES: u64 = 1 << 20;

/// Keys with their values; none removes.
type Writes = Vec<(String, Option<Vec<u8>>)>;

/// A sled database in a directory of its own.
#[derive(Debug)]
pub struct SledStore {
    dir: PathBuf,
    /// Gone only while it is dropped.
    db: Option<sled::Db>,
    /// sled's file, for our own fsync.
    file: File,
    mark: Mark,
    /// Whether a write failed in the middle: nobody knows what is durable.
    is_failed: bool,
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if self.is_failed
            && let Some(db) = self.db.take()
        {
            // sled would wait for ever.
            std::mem::forget(db);
        }
    }
}

impl SledStore {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// When another process holds it, it cannot be read, or it is damaged.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let error = |source: io::Error| store_error("open", dir, source);
        std::fs::create_dir_all(dir).map_err(error)?;
        let mark = Mark::open(dir);
        let db = catch_unwind(|| sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).open());
        let db = db.map_err(|_| panicked(dir))?.map_err(|e| store_error("open", dir, e))?;
        let file = File::options().read(true).write(true).open(dir.join("db")).map_err(error)?;
        // A new file is only there for good once its directories are synced.
        for path in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(path).and_then(|d| d.sync_all()).map_err(error)?;
        }
        let store = Self { dir: dir.to_owned(), db: Some(db), file, mark, is_failed: false };
        let (held, durable) = (store.commits()?, store.mark.durable());
        if held < durable {
            let what = format!("it ends with commit {held}, and commit {durable} was durable");
            return Err(LedgerError::Damaged { path: dir.to_owned(), what });
        }
        Ok(store)
    }

    /// Number of the last commit.
    fn commits(&self) -> Result<u64, LedgerError> {
        self.read(|db| self.number(db, COMMITS_KEY))
    }

    /// Reads from the database; where sled panics, it is damaged.
    fn read<T>(&self, read: impl FnOnce(&sled::Db) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let db = self.db.as_ref().ok_or(LedgerError::Closed)?;
        catch_unwind(AssertUnwindSafe(|| read(db))).unwrap_or_else(|_| Err(panicked(&self.dir)))
    }

    /// A number of eight bytes; 0 where there is none.
    fn number(&self, db: &sled::Db, key: &str) -> Result<u64, LedgerError> {
        let Some(value) = db.get(key).map_err(|e| store_error("read", &self.dir, e))? else { return Ok(0) };
        let bytes = value.as_ref().try_into().map_err(|_| LedgerError::Damaged {
            path: self.dir.clone(),
            what: format!("{key} has {} bytes instead of 8", value.len()),
        })?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Writes all or nothing; durable when it returns.
    fn write(&self, writes: &Writes) -> Result<(), LedgerError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key.as_str(), value.as_slice()),
                None => batch.remove(key.as_str()),
            }
        }
        let error = |e: sled::Error| store_error("write", &self.dir, e);
        self.read(|db| {
            db.apply_batch(batch).map_err(error)?;
            fault::pass("ledger.written");
            db.flush().map(drop).map_err(error)
        })?;
        fault::point("ledger.flushed").map_err(|e| store_error("sync", &self.dir, e))?;
        self.file.sync_data().and_then(|()| self.sync_pages()).map_err(|e| store_error("sync", &self.dir, e))?;
        fault::pass("ledger.synced");
        Ok(())
    }

    /// Syncs pages that sled keeps in files of their own: almost always none.
    fn sync_pages(&self) -> io::Result<()> {
        let dir = self.dir.join("blobs");
        let mut is_any = false;
        for page in std::fs::read_dir(&dir)? {
            // sled may remove an old one meanwhile.
            if let Ok(file) = File::open(page?.path()) {
                file.sync_all()?;
                is_any = true;
            }
        }
        if is_any { File::open(&dir)?.sync_all() } else { Ok(()) }
    }

    /// Makes sure that the disk has room for a commit.
    fn take_room(&self, writes: &Writes) -> Result<(), LedgerError> {
        let bytes: usize = writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(COMMIT_SLACK_BYTES);
        let error = |e: io::Error| store_error("make room for", &self.dir, e);
        disk::reserve_behind(&self.file, bytes).map_err(error)?;
        let space = disk::space(&self.dir).map_err(|e| store_error("make room for", &self.dir, e))?;
        if space.free_bytes < FILES_SLACK_BYTES {
            return Err(error(nix::Error::ENOSPC.into()));
        }
        Ok(())
    }
}

/// What changes write.
fn writes(changes: &[Change]) -> Result<Writes, LedgerError> {
    let mut writes = Writes::new();
    for change in changes {
        match change {
            Change::Put(record) => {
                let id = &record.desired.id;
                writes.push((key(SANDBOX_PREFIX, id), Some(checked(id, record)?)));
            }
            Change::Progress(id, progress) => {
                writes.push((key(PROGRESS_PREFIX, id), Some(checked(id, progress)?)));
            }
            Change::Remove(id) => {
                writes.extend([SANDBOX_PREFIX, PROGRESS_PREFIX].map(|prefix| (key(prefix, id), None)));
            }
            Change::CentralGeneration(g) => {
                writes.push((CENTRAL_GENERATION_KEY.to_owned(), Some(g.to_be_bytes().to_vec())));
            }
            Change::PutPool(pool) => {
                writes.push((key(POOL_PREFIX, &pool.name), Some(checked(&pool.name, pool)?)));
            }
            Change::RemovePool(name) => writes.push((key(POOL_PREFIX, name), None)),
            Change::PutVolume(volume) => {
                let id = volume.key();
                writes.push((volume_key(&id), Some(checked(&id, volume)?)));
            }
            Change::RemoveVolume(id) => writes.push((volume_key(id), None)),
            Change::Uptime(uptime) => writes.push((UPTIME_KEY.to_owned(), Some(checked(&UPTIME_KEY, uptime)?))),
        }
    }
    Ok(writes)
}

fn panicked(dir: &Path) -> LedgerError {
    LedgerError::Damaged { path: dir.to_owned(), what: "sled cannot make sense of it, and panicked".into() }
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
        self.read(|db| {
            let mut contents = Contents::default();
            for entry in db.scan_prefix(SANDBOX_PREFIX) {
                let (key_bytes, value) = entry.map_err(error)?;
                let broken = |e| record_error(&String::from_utf8_lossy(&key_bytes), e);
                let record: Record = decode(&value).map_err(broken)?;
                let progress = db.get(key(PROGRESS_PREFIX, &record.desired.id)).map_err(error)?;
                let progress = progress.map(|value| decode::<Progress>(&value)).transpose().map_err(broken)?;
                contents.records.push((record, progress.unwrap_or_default()));
            }
            for entry in db.scan_prefix(POOL_PREFIX) {
                let (key_bytes, value) = entry.map_err(error)?;
                let pool = decode(&value).map_err(|e| record_error(&String::from_utf8_lossy(&key_bytes), e))?;
                contents.pools.push(pool);
            }
            for entry in db.scan_prefix(VOLUME_PREFIX) {
                let (key_bytes, value) = entry.map_err(error)?;
                let volume = decode(&value).map_err(|e| record_error(&String::from_utf8_lossy(&key_bytes), e))?;
                contents.volumes.push(volume);
            }
            if let Some(value) = db.get(UPTIME_KEY).map_err(error)? {
                contents.uptime = Some(decode(&value).map_err(|e| record_error(&UPTIME_KEY, e))?);
            }
            contents.central_generation = self.number(db, CENTRAL_GENERATION_KEY)?;
            Ok(contents)
        })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), LedgerError> {
        let mut writes = writes(changes)?;
        if self.is_failed {
            return Err(LedgerError::Closed);
        }
        fault::point("ledger.begun").map_err(|e| store_error("write", &self.dir, e))?;
        self.take_room(&writes)?;
        let number = self.commits()? + 1;
        writes.push((COMMITS_KEY.to_owned(), Some(number.to_be_bytes().to_vec())));
        let written = self.write(&writes);
        match &written {
            Ok(()) => self.mark.set(number),
            Err(_) => self.is_failed = true,
        }
        written
    }

    fn is_usable(&self) -> bool {
        !self.is_failed
    }

    fn size_on_disk(&self) -> u64 {
        self.file.metadata().map(|m| m.len()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
