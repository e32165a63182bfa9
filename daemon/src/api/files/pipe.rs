//! Between the streams of a call and a thread that reads or writes.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use bytes::{Buf, Bytes};
use roost_proto::node as wire;
use roost_proto::node::upload_files_input::Input;
use roost_proto::tree::PIECE_BYTES;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// How long nothing may move: a copy holds a thread and a part of the sandbox.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// What a wait of a thread came to.
enum Waited<T> {
    Done(T),
    Gone,
    Stalled,
}

/// Waits on a thread that is none of the runtime's.
fn wait<T>(runtime: &Handle, gone: &CancellationToken, what: impl Future<Output = T>) -> Waited<T> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            // Nothing is used after any of these: what is dropped is not
            // missed.
            () = gone.cancelled() => Waited::Gone,
            done = what => Waited::Done(done),
            () = tokio::time::sleep(STALL_TIMEOUT) => Waited::Stalled,
        }
    })
}

fn gone() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the client left")
}

fn stalled(what: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("{what} for {} s", STALL_TIMEOUT.as_secs()))
}

/// The archive that a client sends.
pub(super) struct Incoming {
    runtime: Handle,
    input: Streaming<wire::UploadFilesInput>,
    gone: CancellationToken,
    rest: Bytes,
}

impl Incoming {
    /// Of a call on this runtime.
    pub(super) fn new(input: Streaming<wire::UploadFilesInput>, gone: CancellationToken) -> Self {
        Self { runtime: Handle::current(), input, gone, rest: Bytes::new() }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let message = match wait(&self.runtime, &self.gone, self.input.message()) {
                Waited::Done(message) => {
                    message.map_err(|status: Status| io::Error::other(status.message().to_owned()))?
                }
                Waited::Gone => return Err(gone()),
                Waited::Stalled => return Err(stalled("nothing was sent")),
            };
            match message.map(|message| message.input) {
                None => return Ok(0),
                Some(Some(Input::Data(data))) => self.rest = data.into(),
                Some(_) => return Err(io::Error::other("after `start` only data may come")),
            }
        }
        let bytes = self.rest.len().min(buffer.len());
        if let Some(buffer) = buffer.get_mut(..bytes) {
            self.rest.copy_to_slice(buffer);
        }
        Ok(bytes)
    }
}

/// The archive that a client takes.
pub(super) struct Outgoing {
    runtime: Handle,
    pieces: mpsc::Sender<Bytes>,
    gone: CancellationToken,
}

impl Outgoing {
    /// Of a call on this runtime.
    pub(super) fn new(pieces: mpsc::Sender<Bytes>, gone: CancellationToken) -> Self {
        Self { runtime: Handle::current(), pieces, gone }
    }
}

impl Write for Outgoing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let bytes = data.len().min(PIECE_BYTES);
        let piece = Bytes::copy_from_slice(data.get(..bytes).unwrap_or_default());
        match wait(&self.runtime, &self.gone, self.pieces.send(piece)) {
            Waited::Done(Ok(())) => Ok(bytes),
            Waited::Done(Err(_)) | Waited::Gone => Err(gone()),
            Waited::Stalled => Err(stalled("nothing was taken")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
