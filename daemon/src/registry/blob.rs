//! The bytes of one blob, whatever happens to the connections under it.

use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tokio::time::timeout;

use super::error::RegistryError;
use super::http::{Api, Cause, SILENCE_TIMEOUT, Silence};
use super::retry;
use crate::containerd::image::ImageError;
use crate::containerd::image::source::{Blob, BlobStream};

/// Pieces that are passed on, in bytes: the network's own are too small to be
/// hashed and sent to containerd one by one.
const PIECE_BYTES: usize = 256 << 10;

/// Longest time for one such piece: slower than 2 KiB/s counts as broken.
const PIECE_TIMEOUT: Duration = Duration::from_secs(120);

/// Opens a blob from a byte on. A connection that breaks is made again from
/// where it was, and after too many of that the next endpoint is asked.
pub(super) fn open(apis: Vec<Arc<Api>>, blob: Blob, offset: u64) -> BlobStream {
    let stream = try_stream! {
        let mut reader = Reader { apis, blob, position: offset, failures: 0, open: None, skip: 0, broken: None };
        while reader.position < blob.size_bytes {
            let piece = reader.next().await?;
            reader.position += piece.len() as u64;
            yield piece;
        }
    };
    stream.boxed()
}

/// Where a download stands.
struct Reader {
    /// Who is asked now is the first.
    apis: Vec<Arc<Api>>,
    blob: Blob,
    position: u64,
    /// Since a whole piece came: a registry that breaks off after each byte
    /// must not keep a pull for ever.
    failures: u32,
    open: Option<Response>,
    /// Bytes before `position` that an answer to a range repeats.
    skip: u64,
    /// A connection broke after bytes that were passed on: not yet counted.
    broken: Option<Option<Cause>>,
}

impl Reader {
    /// The next piece; never empty.
    async fn next(&mut self) -> Result<Bytes, ImageError> {
        let mut piece = BytesMut::new();
        if let Some(cause) = self.broken.take() {
            self.failed(cause).await?;
        }
        loop {
            if self.open.is_none() {
                self.connect().await?;
            }
            let filled = timeout(PIECE_TIMEOUT, self.fill(&mut piece)).await;
            let silence = || Some(Silence { seconds: PIECE_TIMEOUT.as_secs() }.into());
            let Err(cause) = filled.unwrap_or_else(|_| Err(silence())) else {
                self.failures = 0;
                return Ok(piece.freeze());
            };
            self.open = None;
            if !piece.is_empty() {
                self.broken = Some(cause);
                return Ok(piece.freeze());
            }
            self.failed(cause).await?;
        }
    }

    /// Reads until the piece is full or the blob at its end. Cancel-safe: what
    /// came is in the piece.
    async fn fill(&mut self, piece: &mut BytesMut) -> Result<(), Option<Cause>> {
        while let Some(chunk) = self.chunk().await? {
            piece.extend_from_slice(&self.unrepeated(chunk));
            let is_last = self.position + piece.len() as u64 >= self.blob.size_bytes;
            if is_last || piece.len() >= PIECE_BYTES {
                return Ok(());
            }
        }
        Err(None)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Cause> {
        let Some(response) = &mut self.open else { return Ok(None) };
        match timeout(SILENCE_TIMEOUT, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| error.without_url().into()),
            Err(_) => Err(Silence { seconds: SILENCE_TIMEOUT.as_secs() }.into()),
        }
    }

    /// Leaves out what came before.
    fn unrepeated(&mut self, mut chunk: Bytes) -> Bytes {
        let repeated = self.skip.min(chunk.len() as u64);
        self.skip -= repeated;
        // No more than the chunk has: it fits.
        let length = chunk.len();
        chunk.split_off(usize::try_from(repeated).unwrap_or(length))
    }

    /// Asks for the rest; an endpoint that does not give it is asked no more.
    async fn connect(&mut self) -> Result<(), ImageError> {
        loop {
            let Some(api) = self.apis.first() else { return Err(self.exhausted(None).into()) };
            match api.get(&format!("blobs/{}", self.blob.digest), "*/*", self.position).await {
                Ok(response) => {
                    let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
                    if is_part && first_byte(&response).is_some_and(|first| first != self.position) {
                        return Err(Box::new(api.wrong("it sends another part of a blob than was asked for")).into());
                    }
                    // A registry may ignore the range and send all.
                    self.skip = if is_part { 0 } else { self.position };
                    self.open = Some(response);
                    return Ok(());
                }
                Err(error) if self.apis.len() == 1 => return Err(Box::new(error).into()),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(host = api.host(), blob = %self.blob, error, "the next endpoint is asked for a blob");
                    self.apis.remove(0);
                }
            }
        }
    }

    /// Counts a connection that broke; waits, or gives the endpoint up.
    async fn failed(&mut self, cause: Option<Cause>) -> Result<(), ImageError> {
        self.failures += 1;
        let attempts = self.apis.first().map_or(1, |api| api.attempts());
        if self.failures < attempts {
            tokio::time::sleep(retry::pause(self.failures + 1, rand::random())).await;
            return Ok(());
        }
        if self.apis.len() == 1 {
            return Err(self.exhausted(cause).into());
        }
        self.apis.remove(0);
        self.failures = 0;
        Ok(())
    }

    fn exhausted(&self, cause: Option<Cause>) -> Box<RegistryError> {
        let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into();
        let cause = cause.unwrap_or_else(ended);
        let error = match self.apis.first() {
            Some(api) => api.unreachable(self.failures, cause),
            None => RegistryError::File { path: "images.registries".into(), source: cause },
        };
        Box::new(error)
    }
}

/// Where an answer to a range begins, if it says so: `bytes 7-9/10`.
fn first_byte(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
