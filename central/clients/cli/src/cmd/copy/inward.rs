//! Into a sandbox: local trees as one archive.

use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use roost_proto::model::CopyReport;
use roost_proto::tree::{PIECE_BYTES, Packer, TreeError, open_top};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::super::App;
use super::bar::Bar;
use super::end::{End, name_in_archive};
use super::road::{Archive, Road};
use crate::error::CliError;

/// Pieces that wait for the connection, 256 KiB each.
const PIECES_DEPTH: usize = 4;

/// What is to be sent.
pub(super) enum Sources {
    /// Trees, with their names in the archive.
    Trees(Vec<(OwnedFd, PathBuf)>, Option<u64>),
    /// An archive that somebody made.
    Stdin,
}

/// Opens what is to be sent, before anything is asked for.
///
/// # Errors
/// What is not there.
pub(super) fn open(ends: Vec<End>, follow_link: bool) -> Result<Sources, CliError> {
    let mut trees = Vec::new();
    let mut bytes = 0_u64;
    for end in ends {
        let End::Local(path) = end else { return Ok(Sources::Stdin) };
        trees.push((open_top(&path, follow_link)?, name_in_archive(&path)));
        bytes = bytes.saturating_add(size(&path));
    }
    Ok(Sources::Trees(trees, Some(bytes).filter(|bytes| *bytes > 0)))
}

/// Bytes of the files of a tree, as far as they can be seen: for the bar.
fn size(top: &Path) -> u64 {
    let mut bytes = 0_u64;
    let mut left = vec![top.to_path_buf()];
    while let Some(path) = left.pop() {
        let Ok(facts) = path.symlink_metadata() else { continue };
        if facts.is_file() {
            bytes = bytes.saturating_add(facts.len());
        } else if facts.is_dir() {
            left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    bytes
}

/// Sends them.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(app: &App, road: &Road<'_>, sources: Sources, path: &str) -> Result<CopyReport, CliError> {
    let (trees, length) = match sources {
        Sources::Stdin => {
            let bar = Bar::new(app, "copy", None);
            let archive = ReaderStream::with_capacity(tokio::io::stdin(), PIECE_BYTES).boxed();
            let done = road.upload((path, false), archive, |report| bar.at(report.bytes)).await;
            bar.clear();
            return done;
        }
        Sources::Trees(trees, length) => (trees, length),
    };
    let bar = Bar::new(app, "copy", length);
    let may_rename = trees.len() == 1;
    let (archive, packed) = pack(trees);
    let done = road.upload((path, may_rename), archive, |report| bar.at(report.bytes)).await;
    bar.clear();
    let mut report = done?;
    // It has ended: the node has seen the end of the archive.
    if let Ok(Ok(packed)) = packed.await {
        report.problems.extend(packed.problems);
        report.problem_count += packed.problem_count;
    }
    Ok(report)
}

type Packed = tokio::task::JoinHandle<Result<CopyReport, TreeError>>;

/// Packs on a thread; the archive ends with a fault if that fails.
fn pack(trees: Vec<(OwnedFd, PathBuf)>) -> (Archive, Packed) {
    let (pieces_tx, pieces) = mpsc::channel(PIECES_DEPTH);
    let packed = tokio::task::spawn_blocking(move || {
        let mut packer = Packer::new(BufWriter::with_capacity(PIECE_BYTES, Outgoing(pieces_tx.clone())), 0);
        let packing = trees.into_iter().try_for_each(|(top, name)| packer.add(top.as_fd(), &name));
        let finished = packing.and_then(|()| {
            let (report, mut out) = packer.finish()?;
            out.flush().map_err(TreeError::Output)?;
            Ok(report)
        });
        if let Err(error) = &finished {
            // Nobody is there to be told if the connection is gone.
            let _ = pieces_tx.blocking_send(Err(io::Error::other(error.to_string())));
        }
        finished
    });
    let archive = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    (archive.boxed(), packed)
}

struct Outgoing(mpsc::Sender<io::Result<Bytes>>);

impl Write for Outgoing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let bytes = data.len().min(PIECE_BYTES);
        let piece = Bytes::copy_from_slice(data.get(..bytes).unwrap_or_default());
        let sent = self.0.blocking_send(Ok(piece));
        sent.map(|()| bytes).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the connection ended"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
