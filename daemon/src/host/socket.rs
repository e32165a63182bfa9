//! Who is at the other end of a unix socket.

use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::Error;

/// Process id of the server that listens on a unix socket.
///
/// # Errors
/// When nobody listens there.
pub fn server_pid(socket: &Path) -> Result<u32, Error> {
    let stream = UnixStream::connect(socket).map_err(|e| Error::path("connect to", socket, e))?;
    let peer = getsockopt(&stream, PeerCredentials).map_err(|e| Error::path("ask who serves", socket, e))?;
    u32::try_from(peer.pid()).map_err(|_| Error::path("ask who serves", socket, nix::Error::ESRCH))
}
