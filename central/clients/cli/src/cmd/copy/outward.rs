//! Out of a sandbox: the archive of a path, unpacked with the same care as the
//! node's, since a sandbox may have made it what it is.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use roost_proto::model::CopyReport;
use roost_proto::tree::{Rules, Target, TreeError, unpack};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::super::App;
use super::bar::Bar;
use super::end::End;
use super::road::{Pieces, Road, ended};
use crate::client::Piece;
use crate::error::CliError;

/// Pieces that wait for the disk, 256 KiB each.
const PIECES_DEPTH: usize = 4;

/// Where archives go.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Unpacked.
    Tree(Arc<Target>),
    /// As they are.
    Stdout,
}

/// Finds where to unpack, before anything is asked for.
///
/// # Errors
/// What is missing, or no directory.
pub(super) fn place(target: End, sources: usize) -> Result<Place, CliError> {
    match target {
        End::Local(path) => Ok(Place::Tree(Arc::new(Target::local(&path, sources == 1)?))),
        End::Stream | End::Inside(..) => Ok(Place::Stdout),
    }
}

/// Takes what is at a path.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(
    app: &App,
    road: &Road<'_>,
    path: &str,
    follow_link: bool,
    place: &Place,
) -> Result<CopyReport, CliError> {
    let pieces = road.download(path, follow_link).await?;
    let bar = Bar::new(app, "copy", None);
    let report = match place {
        Place::Stdout => pass_on(pieces, &bar).await,
        Place::Tree(target) => write(pieces, target.clone(), &bar).await,
    };
    bar.clear();
    report
}

async fn pass_on(mut pieces: Pieces, bar: &Bar) -> Result<CopyReport, CliError> {
    let failed = |source| CliError::File { operation: "write", path: "to standard output".into(), source };
    let mut out = tokio::io::stdout();
    let mut bytes = 0_u64;
    while let Some(piece) = pieces.next().await {
        match piece? {
            Piece::Data(data) => {
                out.write_all(&data).await.map_err(failed)?;
                bytes += data.len() as u64;
                bar.at(bytes);
            }
            Piece::Done(report) => {
                out.flush().await.map_err(failed)?;
                return Ok(report);
            }
        }
    }
    Err(ended())
}

/// Unpacks on a thread. What the node told of the other end goes along.
async fn write(mut pieces: Pieces, target: Arc<Target>, bar: &Bar) -> Result<CopyReport, CliError> {
    let (pieces_tx, incoming) = mpsc::channel(PIECES_DEPTH);
    let shown = bar.clone();
    let thread = tokio::task::spawn_blocking(move || {
        let incoming = Incoming { pieces: incoming, rest: Bytes::new(), is_at_end: false };
        unpack(incoming, &target, Rules::default(), &mut |report| shown.at(report.bytes))
    });
    let mut told = None;
    let mut fault = None;
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(Piece::Data(data)) if pieces_tx.send(Some(data.clone())).await.is_ok() => {}
            // Unpacking ended, and says why.
            Ok(Piece::Data(_)) => break,
            Ok(Piece::Done(report)) => {
                told = Some(report);
                break;
            }
            Err(error) => {
                fault = Some(error);
                break;
            }
        }
    }
    // The whole archive ends with this; without it, it broke off.
    if told.is_some() {
        // Unpacking has ended: it says why.
        let _ = pieces_tx.send(None).await;
    }
    drop(pieces_tx);
    let written = thread.await.unwrap_or_else(|error| Err(TreeError::Output(io::Error::other(error))));
    match (written, fault, told) {
        (_, Some(fault), _) => Err(fault),
        (Ok(mut report), None, Some(told)) => {
            report.problems.extend(told.problems);
            report.problem_count += told.problem_count;
            Ok(report)
        }
        (Ok(_), None, None) | (Err(TreeError::Input(_)), None, None) => Err(ended()),
        (Err(error), None, _) => Err(error.into()),
    }
}

/// The archive as it comes: `None` is its end.
struct Incoming {
    pieces: mpsc::Receiver<Option<Bytes>>,
    rest: Bytes,
    is_at_end: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            if self.is_at_end {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Some(data)) => self.rest = data,
                Some(None) => self.is_at_end = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended")),
            }
        }
        let bytes = self.rest.len().min(buffer.len());
        if let Some(buffer) = buffer.get_mut(..bytes) {
            self.rest.copy_to_slice(buffer);
        }
        Ok(bytes)
    }
}
