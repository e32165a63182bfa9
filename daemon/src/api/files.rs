//! Files of a workload: archives in and out.
//!
//! The work blocks and runs on a thread; the call around it ends it when the
//! client goes, when nothing moves, and when the sandbox stops running, as the
//! thread holds a part of it.

mod pipe;

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roost_proto::convert::InvalidMessage;
use roost_proto::id::SandboxId;
use roost_proto::model::{CopyReport, Phase};
use roost_proto::node as wire;
use roost_proto::node::download_files_piece::Piece;
use roost_proto::node::upload_files_input::Input;
use roost_proto::node::upload_files_progress::Progress;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::Instrument;

use super::convert;
use super::sandbox::Sandboxes;
use super::service::{Answers, Shared};
use super::status::{invalid, shutting_down, status, too_many};
use crate::host::inside::copy::{CopyError, Inside};
use crate::tasks::TaskName;
use pipe::{Incoming, Outgoing};

/// Copies at once on the node: each has a thread, some 2 MiB of buffers, and a
/// descriptor or two for each level of its tree.
pub(super) const COPIES_MAX: usize = 64;
/// Time in which a client must say what it sends.
const START_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two messages of progress: faster than eyes, slower than files.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);
/// Pieces that wait for the client, 256 KiB each.
const PIECES_DEPTH: usize = 4;
/// Longest path: PATH_MAX of the kernel.
const PATH_MAX_BYTES: usize = 4095;

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// No such sandbox on this node.
    #[error("no sandbox {0} on this node")]
    NotFound(SandboxId),
    /// It does not run; its files are in no place where they can be reached.
    #[error("sandbox {id} is {phase}: {}", next_step(*phase))]
    NotReady {
        /// Which sandbox.
        id: SandboxId,
        /// Where it is.
        phase: Phase,
    },
    /// It stopped running in the middle.
    #[error("sandbox {0} stopped running during the copy: look at it, then copy again")]
    Ended(SandboxId),
    /// The copy itself.
    #[error("files of sandbox {id} are not copied")]
    Copy {
        /// Of which sandbox.
        id: SandboxId,
        /// What failed.
        #[source]
        source: CopyError,
    },
    /// The workload cannot be asked for.
    #[error("cannot look into sandbox {id}")]
    Runtime {
        /// Which sandbox.
        id: SandboxId,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn next_step(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending | Phase::Starting => "wait until it is Ready (`roost sandbox wait`)",
        Phase::Stopping | Phase::Stopped | Phase::Failed => "start it first (`roost sandbox start`)",
        Phase::Deleting | Phase::Gone => "its files are gone",
        Phase::Paused => "let it go on first (`roost sandbox resume`)",
        Phase::Ready => "copy again",
    }
}

/// The files of one workload. Its calls block.
pub trait Tree: Send + 'static {
    /// Unpacks an archive; `step` is called when its place was found, and as
    /// the work goes on.
    ///
    /// # Errors
    /// See [`CopyError`].
    fn write(
        &self,
        path: &Path,
        may_rename: bool,
        from: &mut (dyn Read + Send),
        step: &mut (dyn FnMut(&CopyReport) + Send),
    ) -> Result<CopyReport, CopyError>;

    /// Packs what is at a path; `found` is called when it was found.
    ///
    /// # Errors
    /// See [`CopyError`].
    fn read(
        &self,
        path: &Path,
        follow_link: bool,
        to: &mut (dyn Write + Send),
        found: &mut (dyn FnMut() + Send),
    ) -> Result<CopyReport, CopyError>;
}

impl Tree for Inside {
    fn write(
        &self,
        path: &Path,
        may_rename: bool,
        from: &mut (dyn Read + Send),
        step: &mut (dyn FnMut(&CopyReport) + Send),
    ) -> Result<CopyReport, CopyError> {
        Self::write(self, path, may_rename, from, step)
    }

    fn read(
        &self,
        path: &Path,
        follow_link: bool,
        to: &mut (dyn Write + Send),
        found: &mut (dyn FnMut() + Send),
    ) -> Result<CopyReport, CopyError> {
        Self::read(self, path, follow_link, to, found)
    }
}

/// The files of workloads, as the API needs them.
#[tonic::async_trait]
pub trait Files: Send + Sync + 'static {
    /// The files of a sandbox that is Ready.
    ///
    /// # Errors
    /// See [`FilesError`].
    async fn open(&self, id: &SandboxId) -> Result<Box<dyn Tree>, FilesError>;
}

/// Unpacks an archive in a workload.
pub(super) async fn upload(
    shared: &Shared,
    mut input: Streaming<wire::UploadFilesInput>,
) -> Result<Answers<wire::UploadFilesProgress>, Status> {
    let permit = permit(shared)?;
    let start = first(&mut input).await?;
    let id = convert::sandbox_id(&start.sandbox_id).map_err(invalid)?;
    let path = inside("path", &start.path).map_err(invalid)?;
    let tree = shared.parts.files.open(&id).await?;
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    let (steps_tx, mut steps) = watch::channel(CopyReport::default());
    let mut from = Incoming::new(input, gone.clone());
    let work = move || {
        let mut step = |report: &CopyReport| drop(steps_tx.send_replace(report.clone()));
        tree.write(&path, start.rename, &mut from, &mut step)
    };
    let mut done = run(shared, ("upload", id), permit, gone, work);
    if steps.changed().await.is_err() {
        // Nothing was found to write to: that is the answer of the call.
        outcome((&mut done).await)?;
    }
    Ok(Box::pin(async_stream::try_stream! {
        let _guard = guard;
        let mut ticks = tokio::time::interval(PROGRESS_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                // Cancel-safe: polled by reference.
                ended = &mut done => break ended,
                // Cancel-safe: a tick that is lost comes again.
                _ = ticks.tick() => {
                    if steps.has_changed().unwrap_or(false) {
                        let step = steps.borrow_and_update().clone().into();
                        yield wire::UploadFilesProgress { progress: Some(Progress::Step(step)) };
                    }
                }
            }
        };
        let report = outcome(ended)?;
        yield wire::UploadFilesProgress { progress: Some(Progress::Done(report.into())) };
    }))
}

/// Packs what a workload has.
pub(super) async fn download(
    shared: &Shared,
    request: wire::DownloadFilesRequest,
) -> Result<Answers<wire::DownloadFilesPiece>, Status> {
    let permit = permit(shared)?;
    let id = convert::sandbox_id(&request.sandbox_id).map_err(invalid)?;
    let path = inside("path", &request.path).map_err(invalid)?;
    let tree = shared.parts.files.open(&id).await?;
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    let (pieces_tx, mut pieces) = mpsc::channel(PIECES_DEPTH);
    let (found_tx, found) = oneshot::channel();
    let mut to = Outgoing::new(pieces_tx, gone.clone());
    let work = move || {
        let mut found_tx = Some(found_tx);
        let mut found = || {
            // Nobody waits for it any more if the client is gone.
            let _ = found_tx.take().map(|found_tx| found_tx.send(()));
        };
        tree.read(&path, request.follow_link, &mut to, &mut found)
    };
    let mut done = run(shared, ("download", id), permit, gone, work);
    if found.await.is_err() {
        outcome((&mut done).await)?;
    }
    Ok(Box::pin(async_stream::try_stream! {
        let _guard = guard;
        while let Some(data) = pieces.recv().await {
            yield wire::DownloadFilesPiece { piece: Some(Piece::Data(Bytes::into(data))) };
        }
        let report = outcome(done.await)?;
        yield wire::DownloadFilesPiece { piece: Some(Piece::Done(report.into())) };
    }))
}

fn permit(shared: &Shared) -> Result<OwnedSemaphorePermit, Status> {
    shared.copies.clone().try_acquire_owned().map_err(|_| too_many("copies of files", COPIES_MAX))
}

type Done = JoinHandle<Result<CopyReport, FilesError>>;

/// Does the work on a thread of its own, for as long as the sandbox is Ready.
fn run(
    shared: &Shared,
    (kind, id): (&'static str, SandboxId),
    permit: OwnedSemaphorePermit,
    gone: CancellationToken,
    work: impl FnOnce() -> Result<CopyReport, CopyError> + Send + 'static,
) -> Done {
    let sandboxes = shared.parts.sandboxes.clone();
    let (name, span) = (TaskName::of(kind, &id), tracing::info_span!("copy", kind, sandbox = %id));
    let task = async move {
        // Until the thread has ended, not the call.
        let _permit = permit;
        let mut thread = tokio::task::spawn_blocking(work);
        let (done, has_ended) = tokio::select! {
            // Cancel-safe: polled by reference.
            done = &mut thread => (done, false),
            // Cancel-safe: only looks.
            () = leaves_ready(&sandboxes, &id) => {
                gone.cancel();
                (thread.await, true)
            }
        };
        let cut_off = |_| CopyError::Host(crate::host::Error::Cancelled);
        match done.map_err(cut_off).flatten() {
            Ok(report) => Ok(report),
            Err(_) if has_ended => Err(FilesError::Ended(id)),
            Err(source) => Err(FilesError::Copy { id, source }),
        }
    };
    shared.parts.tasks.spawn(name, task.instrument(span))
}

async fn leaves_ready(sandboxes: &Arc<dyn Sandboxes>, id: &SandboxId) {
    let mut changes = sandboxes.subscribe();
    loop {
        // Marked before the look, so that a change during it wakes the wait.
        changes.mark_unchanged();
        if sandboxes.get(id).is_none_or(|view| view.observed.phase != Phase::Ready) {
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn outcome(ended: Result<Result<CopyReport, FilesError>, tokio::task::JoinError>) -> Result<CopyReport, Status> {
    // A task is only dropped with its runtime.
    Ok(ended.map_err(|_| shutting_down())??)
}

async fn first(input: &mut Streaming<wire::UploadFilesInput>) -> Result<wire::UploadFilesStart, Status> {
    let message = tokio::time::timeout(START_MESSAGE_TIMEOUT, input.message()).await.map_err(|_| {
        status(Code::DeadlineExceeded, "timeout", "the first input, `start`, did not come within 10 s")
    })??;
    match message.and_then(|message| message.input) {
        Some(Input::Start(start)) => Ok(start),
        _ => Err(status(Code::InvalidArgument, "invalid-request", "the first input must be `start`")),
    }
}

/// A path inside a workload.
fn inside(field: &str, text: &str) -> Result<PathBuf, InvalidMessage> {
    let path = Path::new(text);
    let problem = if !path.is_absolute() {
        "must be absolute, e.g. /home/agent/a.txt"
    } else if path.components().any(|part| part == Component::ParentDir) {
        "must not contain `..`"
    } else if text.contains('\0') || text.len() > PATH_MAX_BYTES {
        "is no path: it has a zero byte or more than 4095 bytes"
    } else {
        return Ok(path.into());
    };
    Err(InvalidMessage::field(field, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_climbs_or_begins_nowhere_is_refused_by_field() {
        for bad in ["", "a/b", "/a/../b", "/..", "/a\0b"] {
            assert!(inside("path", bad).unwrap_err().to_string().starts_with("message is invalid: path"), "{bad:?}");
        }
        for good in ["/", "/a/b/", "/a/.", "/a..b/...c"] {
            assert_eq!(inside("path", good).unwrap(), Path::new(good));
        }
    }
}
