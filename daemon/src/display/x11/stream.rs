//! The byte stream of an X connection, on the tokio reactor.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UnixStream;
use x11rb::rust_connection::{PollMode, Stream};
use x11rb::utils::RawFdContainer;
use x11rb_async::rust_connection::StreamBase;

use super::guard::PacketGuard;

/// A connected X socket. Never blocks; whoever would block awaits readiness.
/// Carries no descriptors: the kernel closes those that a server sends.
#[derive(Debug)]
pub(super) struct XStream {
    socket: Arc<UnixStream>,
    guard: Mutex<PacketGuard>,
}

impl XStream {
    /// Takes a socket whose handshake is done.
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        Self { socket, guard: Mutex::default() }
    }
}

/// Connects to the socket at `path`.
///
/// The socket's directory belongs to the display server, a process of the
/// sandbox: what stands there is pinned first and looked at, a link is not
/// followed. Connecting through the pinned file also has no limit on the
/// length of the path, where a socket address holds 107 bytes.
///
/// # Errors
/// Whatever the system says; `WouldBlock` if the server's queue is full.
pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let pinned = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    if !pinned.metadata()?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket"));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", pinned.as_raw_fd())).await
}

impl Stream for XStream {
    fn poll(&self, _mode: PollMode) -> io::Result<()> {
        // Only the blocking client of x11rb polls.
        Err(unsupported("this X connection is asynchronous"))
    }

    fn read(&self, buffer: &mut [u8], _fds: &mut Vec<RawFdContainer>) -> io::Result<usize> {
        let count = self.socket.try_read(buffer)?;
        let received = buffer.get(..count).unwrap_or_default();
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).admit(received)?;
        Ok(count)
    }

    fn write(&self, buffer: &[u8], fds: &mut Vec<RawFdContainer>) -> io::Result<usize> {
        if !fds.is_empty() {
            return Err(unsupported("this X connection carries no descriptors"));
        }
        self.socket.try_write(buffer)
    }
}

fn unsupported(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, message)
}

type Ready<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

impl<'a> StreamBase<'a> for XStream {
    type Readable = Ready<'a>;
    type Writable = Ready<'a>;

    fn readable(&'a self) -> Ready<'a> {
        Box::pin(self.socket.readable())
    }

    fn writable(&'a self) -> Ready<'a> {
        Box::pin(self.socket.writable())
    }
}
