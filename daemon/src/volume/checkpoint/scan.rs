//! Reading a home: its entries, and the pieces of its files that are not
//! known yet. Blocking.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fastcdc::v2020::FastCDC;
use tokio::sync::mpsc;

use super::CheckpointError;
use super::manifest::{Entry, Hash, Kind, Manifest, Piece, VERSION};
use crate::host::home::{self, Found, Home, data_segments};

/// Shortest, usual and longest piece, in bytes: small enough that a change in
/// a large file moves little, large enough that an object is worth a request.
const PIECE_BYTES: (usize, usize, usize) = (256 << 10, 1 << 20, 4 << 20);

/// A piece on its way to the store.
pub(super) type Moving = (Hash, Vec<u8>);

/// Reads a home.
pub(super) struct Scan {
    home: Home,
    /// What an earlier reading found.
    before: Arc<Manifest>,
    /// Pieces that are in the store.
    known: HashSet<Hash>,
    out: mpsc::Sender<Moving>,
    stop: Arc<AtomicBool>,
    tree: Manifest,
    /// First name of each file that has several.
    firsts: HashMap<u64, PathBuf>,
    buffer: Vec<u8>,
}

/// Now, in nanoseconds since 1970.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Scan {
    /// Reads the home at `path`. What is as it was in `before` is not read
    /// again. Ends early when `stop` is set.
    pub(super) fn run(
        path: &Path,
        before: Arc<Manifest>,
        out: mpsc::Sender<Moving>,
        stop: Arc<AtomicBool>,
    ) -> Result<Manifest, CheckpointError> {
        let known = before.pieces().map(|piece| piece.0).collect();
        let tree = Manifest { version: VERSION, began_ns: now_ns(), entries: Vec::new() };
        let earlier = before.clone();
        let index: HashMap<&Path, &Entry> =
            earlier.entries.iter().map(|entry| (entry.path.0.as_path(), entry)).collect();
        let home = Home::open(path)?;
        let mut scan = Self {
            home: Home::open(path)?,
            before,
            known,
            out,
            stop,
            tree,
            firsts: HashMap::new(),
            buffer: Vec::new(),
        };
        home.walk(&mut |found| scan.take(found, &index))?;
        Ok(scan.tree)
    }

    fn take(&mut self, found: Found, before: &HashMap<&Path, &Entry>) -> Result<(), CheckpointError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(CheckpointError::Stopped);
        }
        let Found { path, kind, meta, stamp, links } = found;
        let kind = match kind {
            home::Kind::Dir => Kind::Dir,
            home::Kind::Fifo => Kind::Fifo,
            home::Kind::Link(target) => Kind::Link(super::manifest::Name(target)),
            // It means nothing without its process.
            home::Kind::Socket => return Ok(()),
            home::Kind::Device => {
                let problem = "it is a device: remove it".into();
                return Err(CheckpointError::Entry { path: path.display().to_string(), problem });
            }
            home::Kind::File => {
                if let Some(first) = self.firsts.get(&stamp.inode) {
                    Kind::Same(super::manifest::Name(first.clone()))
                } else {
                    let unchanged = before.get(path.as_path());
                    let unchanged = unchanged.and_then(|old| old.pieces_if_unchanged(&stamp, self.before.began_ns));
                    let pieces = match unchanged {
                        Some(pieces) => pieces.to_vec(),
                        None => match self.home.file(&path)? {
                            Some(file) => self.read(&path, file, stamp.size)?,
                            None => return Ok(()),
                        },
                    };
                    if links > 1 {
                        self.firsts.insert(stamp.inode, path.clone());
                    }
                    Kind::File { size: stamp.size, inode: stamp.inode, ctime_ns: stamp.ctime_ns, pieces }
                }
            }
        };
        self.tree.entries.push(Entry::new(path, kind, meta));
        Ok(())
    }

    /// The pieces of a file; those that are not known yet are on their way.
    fn read(&mut self, path: &Path, mut file: File, size: u64) -> Result<Vec<Piece>, CheckpointError> {
        let broken = |error: std::io::Error| crate::host::Error::path("read", path, error);
        let mut pieces = Vec::new();
        for (mut offset, len) in data_segments(&file, size).map_err(broken)? {
            file.seek(SeekFrom::Start(offset)).map_err(broken)?;
            let mut rest = (&mut file).take(len);
            self.buffer.clear();
            loop {
                let room = (PIECE_BYTES.2 - self.buffer.len()) as u64;
                (&mut rest).take(room).read_to_end(&mut self.buffer).map_err(broken)?;
                if self.buffer.is_empty() {
                    break;
                }
                let (min, usual, max) = PIECE_BYTES;
                let cut = FastCDC::new(&self.buffer, min, usual, max).next().map_or(self.buffer.len(), |c| c.length);
                let data: Vec<u8> = self.buffer.drain(..cut).collect();
                let (hash, len) = (Hash::of(&data), data.len());
                pieces.push(Piece(hash, offset, u32::try_from(len).map_err(|e| broken(std::io::Error::other(e)))?));
                offset += len as u64;
                if self.known.insert(hash) {
                    self.out.blocking_send((hash, data)).map_err(|_| CheckpointError::Stopped)?;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Err(CheckpointError::Stopped);
                }
            }
        }
        Ok(pieces)
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("home", &self.home).finish_non_exhaustive()
    }
}
