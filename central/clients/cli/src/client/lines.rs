//! A streamed body as lines.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

/// Longest line, in bytes: a sandbox in JSON is a few KiB, its environment at
/// most 64 KiB.
const MAX_LINE_BYTES: usize = 4 << 20;

type Chunks = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Lines of a body, without their ends.
pub(super) struct Lines(FramedRead<StreamReader<Chunks, Bytes>, LinesCodec>);

impl Lines {
    /// Reads a body line by line.
    pub(super) fn new(body: Incoming) -> Self {
        let chunks: Chunks = Box::pin(body.into_data_stream().map_err(std::io::Error::other));
        Self(FramedRead::new(StreamReader::new(chunks), LinesCodec::new_with_max_length(MAX_LINE_BYTES)))
    }

    /// The next line; `None` at the end. Cancel-safe: what was read so far is
    /// kept.
    pub(super) async fn next(&mut self) -> Option<Result<String, LinesCodecError>> {
        self.0.next().await
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}
