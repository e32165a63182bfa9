//! The ledger: what is desired and allocated on this node, durable.
//!
//! One thread owns the [`Store`]. Requests that arrive while it writes are
//! written together and made durable by one sync (group commit). A commit
//! that returned survives a power cut.

mod record;
mod sled_store;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use roost_proto::id::{PoolName, SandboxId};
use roost_proto::model::PoolSpec;
use tokio::sync::{mpsc, oneshot};

use crate::sandbox::node_time::Uptime;

#[cfg(test)]
pub(crate) use record::tests::record;
pub use record::{
    Comeback, DecodeRecordError, Failure, OomProgress, Progress, ReadyRecord, Record, Recovery, decode, encode,
};
pub use sled_store::SledStore;

use crate::volume::{VolumeKey, VolumeRecord};

/// Commits that may wait for the thread: one per request handler that can be
/// in flight at once (the API's concurrency limit is the same number).
const QUEUE_DEPTH: usize = 256;
/// Largest record, in bytes: sled moves values above about 128 KiB to files
/// that it never syncs.
const MAX_RECORD_BYTES: usize = 64 << 10;
/// A commit that takes longer hangs in a disk that does not answer.
const COMMIT_LIMIT: Duration = Duration::from_secs(120);

/// Why the ledger did not take or give something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The store failed.
    #[error("cannot {operation} the ledger in {}", path.display())]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// What the store said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A record that this build cannot read.
    #[error("cannot read the record of {id} in the ledger")]
    Record {
        /// Key of the record.
        id: String,
        /// What is wrong with it.
        #[source]
        source: Arc<DecodeRecordError>,
    },
    /// A record above the size that is made durable.
    #[error("the record of {id} takes {bytes} bytes, at most {MAX_RECORD_BYTES} are kept: shorten command and env")]
    TooLarge {
        /// Whose record.
        id: String,
        /// Its size.
        bytes: usize,
    },
    /// Something that was durable is not there, or cannot be read.
    #[error("the ledger in {} is damaged: {what}", path.display())]
    Damaged {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The ledger's thread has ended.
    #[error("the ledger is closed")]
    Closed,
}

/// One change of the ledger.
#[derive(Debug, Clone)]
pub enum Change {
    /// Writes a sandbox's record.
    Put(Box<Record>),
    /// Writes how far a sandbox came.
    Progress(SandboxId, Box<Progress>),
    /// Removes all that is stored of a sandbox.
    Remove(SandboxId),
    /// Sets the generation of central's desired state.
    CentralGeneration(u64),
    /// Writes what a pool is to be.
    PutPool(Box<PoolSpec>),
    /// Removes a pool.
    RemovePool(PoolName),
    /// Writes what a volume is.
    PutVolume(Box<VolumeRecord>),
    /// Removes a volume.
    RemoveVolume(VolumeKey),
    /// Writes node time down.
    Uptime(Uptime),
}

/// Everything that a ledger holds.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Every sandbox, and how far it came.
    pub records: Vec<(Record, Progress)>,
    /// Generation of central's desired state; 0 = none yet.
    pub central_generation: u64,
    /// Every pool.
    pub pools: Vec<PoolSpec>,
    /// Every volume.
    pub volumes: Vec<VolumeRecord>,
    /// Node time; none in a new ledger.
    pub uptime: Option<Uptime>,
}

/// A durable store of changes. Blocking; owned by one thread.
pub trait Store: Send + 'static {
    /// Everything that is stored.
    ///
    /// # Errors
    /// When the store fails or a record cannot be read.
    fn load(&mut self) -> Result<Contents, LedgerError>;

    /// Writes all changes or none, and returns when they survive a power cut.
    ///
    /// # Errors
    /// When the store fails.
    fn commit(&mut self, changes: &[Change]) -> Result<(), LedgerError>;

    /// Whether it takes further changes: after a write that failed in the
    /// middle nobody knows what is durable, until it is opened again.
    fn is_usable(&self) -> bool {
        true
    }

    /// Bytes on disk.
    fn size_on_disk(&self) -> u64;
}

struct Request {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), LedgerError>>,
}

/// Figures about the ledger, for metrics.
#[derive(Debug, Default)]
pub struct LedgerFigures {
    /// Commits since the start of the daemon.
    pub commits: AtomicU64,
    /// Time spent in commits, in microseconds.
    pub commit_us: AtomicU64,
    /// Bytes on disk after the last commit.
    pub size_bytes: AtomicU64,
    /// When the commit began that is under way.
    began: Mutex<Option<std::time::Instant>>,
}

/// Handle on the ledger; cheap to clone. The thread ends with the last handle.
#[derive(Debug, Clone)]
pub struct Ledger {
    writer: Writer,
    figures: Arc<LedgerFigures>,
}

#[derive(Clone)]
enum Writer {
    /// A thread that may wait for a disk.
    Thread(mpsc::Sender<Request>),
    /// A store that never blocks: the caller writes.
    Caller(Arc<Mutex<dyn Store>>),
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Thread(_) => "Thread",
            Self::Caller(_) => "Caller",
        })
    }
}

impl Ledger {
    /// Opens the ledger in `dir` and reads it.
    ///
    /// # Errors
    /// When another daemon holds it, or it cannot be read.
    pub fn open(dir: &Path) -> Result<(Self, Contents), LedgerError> {
        Self::start(SledStore::open(dir)?)
    }

    /// Starts the thread of a store and reads what it holds.
    ///
    /// # Errors
    /// When the store cannot be read or no thread can be made.
    pub fn start(mut store: impl Store) -> Result<(Self, Contents), LedgerError> {
        let contents = store.load()?;
        let (requests, receiver) = mpsc::channel(QUEUE_DEPTH);
        let figures = Arc::new(LedgerFigures::default());
        let thread_figures = figures.clone();
        watch(&figures)?;
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write_loop(store, receiver, &thread_figures))
            .map_err(thread_error)?;
        Ok((Self { writer: Writer::Thread(requests), figures }, contents))
    }

    /// A ledger over a store that never blocks, without a thread of its own:
    /// a simulator holds thousands. Reads what the store holds.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn unthreaded(mut store: impl Store) -> Result<(Self, Contents), LedgerError> {
        let contents = store.load()?;
        let writer = Writer::Caller(Arc::new(Mutex::new(store)));
        Ok((Self { writer, figures: Arc::default() }, contents))
    }

    /// Writes all changes or none; durable when it returns.
    ///
    /// # Errors
    /// When the store fails or a record is too large.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        let requests = match &self.writer {
            Writer::Thread(requests) => requests,
            Writer::Caller(store) => {
                // A commit is all or nothing, so a panic leaves the store whole.
                let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                self.figures.commits.fetch_add(1, Ordering::Relaxed);
                return store.commit(&changes);
            }
        };
        let (done, answer) = oneshot::channel();
        requests.send(Request { changes, done }).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> &LedgerFigures {
        &self.figures
    }
}

fn write_loop(mut store: impl Store, mut requests: mpsc::Receiver<Request>, figures: &LedgerFigures) {
    figures.size_bytes.store(store.size_on_disk(), Ordering::Relaxed);
    while let Some(first) = requests.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < QUEUE_DEPTH
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next);
        }
        let begun = std::time::Instant::now();
        *figures.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        let changes: Vec<Change> = batch.iter().flat_map(|r| r.changes.iter().cloned()).collect();
        let result = store.commit(&changes);
        if let Err(error) = &result
            && !store.is_usable()
        {
            // Whoever waits gets no answer: nobody knows what became of it.
            end_daemon(&crate::sandbox::failure::chain(error));
        }
        if result.is_err() && batch.len() > 1 {
            // One bad request must not fail its neighbours.
            for request in batch {
                let result = store.commit(&request.changes);
                answer(request.done, result);
            }
        } else {
            for request in batch {
                answer(request.done, result.clone());
            }
        }
        let spent = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        *figures.began.lock().unwrap_or_else(PoisonError::into_inner) = None;
        figures.commits.fetch_add(1, Ordering::Relaxed);
        figures.commit_us.fetch_add(spent, Ordering::Relaxed);
        figures.size_bytes.store(store.size_on_disk(), Ordering::Relaxed);
    }
}

fn thread_error(error: std::io::Error) -> LedgerError {
    LedgerError::Store { operation: "start the thread of", path: PathBuf::new(), source: Arc::new(error) }
}

/// Ends the daemon if a commit hangs, for as long as the ledger is open.
fn watch(figures: &Arc<LedgerFigures>) -> Result<(), LedgerError> {
    let figures = Arc::downgrade(figures);
    let look = move || {
        while let Some(figures) = figures.upgrade() {
            let began = *figures.began.lock().unwrap_or_else(PoisonError::into_inner);
            if began.is_some_and(|began| began.elapsed() > COMMIT_LIMIT) {
                end_daemon("a commit hangs");
            }
            drop(figures);
            std::thread::sleep(COMMIT_LIMIT / 20);
        }
    };
    std::thread::Builder::new().name("ledger-watch".into()).spawn(look).map(drop).map_err(thread_error)
}

/// Ends the process on the spot: without a ledger it can promise nothing, its
/// sandboxes go on, and the next daemon reads what is durable.
fn end_daemon(why: &str) -> ! {
    tracing::error!(why, "the ledger cannot be written: roostd ends, sandboxes go on");
    eprintln!("roostd: the ledger cannot be written: {why}");
    std::process::abort()
}

fn answer(done: oneshot::Sender<Result<(), LedgerError>>, result: Result<(), LedgerError>) {
    if done.send(result).is_err() {
        tracing::debug!("a ledger request was given up by its caller");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, dropped) = (record(), record());
        let progress = Progress { starts: 2, ..Progress::default() };
        {
            let (ledger, contents) = Ledger::open(dir.path()).unwrap();
            assert!(contents.records.is_empty());
            let put = |r: &Record| Change::Put(Box::new(r.clone()));
            ledger.commit(vec![put(&kept), put(&dropped), Change::CentralGeneration(7)]).await.unwrap();
            for id in [&kept.desired.id, &dropped.desired.id] {
                ledger.commit(vec![Change::Progress(id.clone(), Box::new(progress.clone()))]).await.unwrap();
            }
            ledger.commit(vec![Change::Remove(dropped.desired.id.clone())]).await.unwrap();
        }
        let contents = reopen(dir.path());
        assert_eq!(contents.records, [(kept, progress)]);
        assert_eq!(contents.central_generation, 7);
    }

    /// The lock of the closed store is released when its thread ends.
    fn reopen(dir: &Path) -> Contents {
        loop {
            match SledStore::open(dir) {
                Ok(mut store) => return store.load().unwrap(),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    #[tokio::test]
    async fn a_record_too_large_to_be_durable_is_refused_and_harms_no_neighbour() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path()).unwrap();
        let mut large = record();
        Arc::make_mut(&mut large.desired).spec.env.insert("A".into(), "x".repeat(MAX_RECORD_BYTES));
        let small = record();
        let put = |r: &Record| vec![Change::Put(Box::new(r.clone()))];
        let (a, b) = tokio::join!(ledger.commit(put(&large)), ledger.commit(put(&small)));
        assert!(matches!(a, Err(LedgerError::TooLarge { .. })), "{a:?}");
        b.unwrap();
    }

    #[tokio::test]
    async fn a_second_daemon_cannot_open_the_same_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Ledger::open(dir.path()).unwrap();
        assert!(matches!(Ledger::open(dir.path()), Err(LedgerError::Store { .. })));
    }
}
