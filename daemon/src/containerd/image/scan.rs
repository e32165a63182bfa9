//! A layer is looked through before containerd unpacks it as root.
//!
//! containerd resolves paths and links inside the snapshot, so that no entry
//! gets out of it. It sets no bound on what a few kilobytes unpack to, and it
//! makes any device node. Both are refused here, together with paths that no
//! honest builder writes.

mod entry;
mod meter;

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use tar::Archive;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use self::meter::{Meter, Metered};
use super::document::Layer;
use super::error::{ImageError, LayerError};
use super::media::Packing;
use crate::containerd::client::Client;
use crate::containerd::content;
use crate::containerd::error::Error;

/// Pieces between containerd and the thread that looks: one on each side.
const QUEUE_PIECES: usize = 2;
/// Most header bytes before an entry's data: the tar library holds long names
/// and extended headers in memory whatever size they claim.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// What an image may hold, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of all layers together.
    pub max_bytes: u64,
    /// Files, directories and links of all layers together.
    pub max_files: u64,
    /// Bytes of containerd's disk that must stay free.
    pub reserve_bytes: u64,
}

impl Default for UnpackLimits {
    /// As the configuration has them.
    fn default() -> Self {
        Self { max_bytes: 64 << 30, max_files: 2_000_000, reserve_bytes: 0 }
    }
}

/// What layers hold, unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Bytes of their files.
    pub(super) bytes: u64,
    /// Entries.
    pub(super) files: u64,
}

/// Why a layer is not unpacked.
#[derive(Debug)]
pub(super) enum Finding {
    /// An entry that no image needs.
    Entry { path: String, problem: &'static str },
    /// More bytes than allowed.
    Bytes,
    /// More entries than allowed.
    Files,
    /// No tar, or not packed as it says.
    Unreadable(io::Error),
}

/// Looks through one layer that lies in containerd. `before` is what the
/// image's other layers hold.
///
/// # Errors
/// A [`LayerError`], or containerd's failure.
pub(super) async fn scan(
    client: &Client,
    layer: &Layer,
    name: &str,
    limits: UnpackLimits,
    before: Used,
) -> Result<Used, ImageError> {
    let pieces = content::stream(client, &layer.blob.digest.to_string()).await?;
    let (piece_tx, piece_rx) = mpsc::channel(QUEUE_PIECES);
    let packing = layer.packing;
    let looking = spawn_blocking(move || look(Pieces { piece_rx, piece: Bytes::new() }, packing, limits, before));
    let fed = feed(pieces, piece_tx).await;
    let looked = looking.await.unwrap_or_else(|error| Err(Finding::Unreadable(io::Error::other(error))));
    // What the tar says counts only if all of it came.
    match looked {
        Ok(used) => fed.map(|()| used).map_err(Into::into),
        Err(Finding::Unreadable(_)) if fed.is_err() => fed.map(|()| before).map_err(Into::into),
        Err(finding) => Err(refusal(finding, name, limits).into()),
    }
}

/// Passes pieces on until there are no more or nobody wants them.
async fn feed(
    pieces: impl Stream<Item = Result<Bytes, Error>> + Send,
    piece_tx: mpsc::Sender<Bytes>,
) -> Result<(), Error> {
    let mut pieces = std::pin::pin!(pieces);
    while let Some(piece) = pieces.next().await {
        if piece_tx.send(piece?).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn refusal(finding: Finding, name: &str, limits: UnpackLimits) -> LayerError {
    let layer = name.to_owned();
    match finding {
        Finding::Entry { path, problem } => LayerError::Hostile { layer, path, problem },
        Finding::Bytes => {
            let field = "images.max_unpacked_bytes";
            LayerError::TooLarge { layer, max: limits.max_bytes, unit: "bytes", field }
        }
        Finding::Files => {
            LayerError::TooLarge { layer, max: limits.max_files, unit: "files", field: "images.max_files" }
        }
        Finding::Unreadable(source) => LayerError::Unpack { layer, source: Box::new(source) },
    }
}

/// Unpacks a stream and looks at every entry. Blocking.
fn look(packed: impl Read, packing: Packing, limits: UnpackLimits, before: Used) -> Result<Used, Finding> {
    match packing {
        Packing::Plain => look_through(packed, limits, before),
        Packing::Gzip => look_through(MultiGzDecoder::new(packed), limits, before),
        Packing::Zstd => look_through(zstd::Decoder::new(packed).map_err(Finding::Unreadable)?, limits, before),
    }
}

fn look_through(plain: impl Read, limits: UnpackLimits, before: Used) -> Result<Used, Finding> {
    let meter = Meter::new(limits.max_bytes.saturating_sub(before.bytes));
    let mut archive = Archive::new(Metered::new(plain, meter.clone()));
    let (mut used, mut climbing) = (before, entry::Climbing::default());
    let unreadable = |error: io::Error| if meter.is_exhausted() { Finding::Bytes } else { Finding::Unreadable(error) };
    let mut entries = archive.entries().map_err(unreadable)?;
    loop {
        meter.allow(MAX_HEADER_BYTES);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(unreadable)?;
        entry::check(&mut entry, &mut climbing)?;
        used.files += 1;
        used.bytes = used.bytes.saturating_add(entry.size());
        if used.files > limits.max_files {
            return Err(Finding::Files);
        }
        if used.bytes > limits.max_bytes {
            return Err(Finding::Bytes);
        }
        meter.allow(entry.size());
        io::copy(&mut entry, &mut io::sink()).map_err(unreadable)?;
    }
    // What follows the end of the tar counts for its digest.
    meter.allow(u64::MAX);
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
    Ok(used)
}

/// Pieces as a reader for a thread that may block.
struct Pieces {
    piece_rx: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.piece.has_remaining() {
            match self.piece_rx.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
