//! What the daemon asks the display server as an X client: is a window manager
//! there, did it end, is a window with this title there, another size.
//!
//! Every other client of the display is the sandbox's own and may be hostile:
//! it may grab the server, so that our requests wait for ever, flood it with
//! events, or cut our connection. So each wait has a connection, a deadline
//! and a byte budget of its own, runs as a future without a thread, and leaves
//! nothing behind when it is dropped.

mod atoms;
mod background;
mod guard;
mod handshake;
mod input_idle;
mod resize;
mod stream;
mod window_manager;
mod window_title;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;
use x11rb::errors::{ConnectError, ConnectionError, ParseError, ReplyError};
use x11rb_async::connection::Connection as _;
use x11rb_async::rust_connection::RustConnection;

use super::cookie::Cookie;
pub use background::paint_background;
pub use input_idle::input_idle;
pub use resize::resize_screen;
use stream::XStream;
pub use window_manager::{WindowManagerInfo, wait_for_window_manager, window_manager_lost};
pub use window_title::{WindowInfo, wait_for_window_title};

/// Shortest time between two looks at the screen: a client that changes
/// properties in a loop costs us no more than this.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// Time until a connection that the server had no room for is tried again.
const RETRY_PERIOD: Duration = Duration::from_millis(10);

type Connection = RustConnection<XStream>;

/// Where a display server listens and what it lets in.
#[derive(Debug, Clone)]
pub struct XAddress {
    /// Path of the X socket on the host; may be longer than a socket address
    /// can hold.
    pub socket: PathBuf,
    /// The sandbox's cookie.
    pub cookie: Cookie,
}

/// Why a wait on the display failed.
#[derive(Debug, thiserror::Error)]
pub enum XError {
    /// The socket cannot be reached.
    #[error("cannot connect to the X socket {path}", path = .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server does not let us in.
    #[error("the X server refuses the connection: {reason}")]
    Refused {
        /// The server's own words.
        reason: String,
    },
    /// The server does not speak X as it should.
    #[error("the X server's greeting cannot be read")]
    Handshake(#[source] ParseError),
    /// Its greeting cannot be worked with.
    #[error("the X server's greeting makes no sense")]
    Greeting(#[source] ConnectError),
    /// The connection broke: the server ended, a client killed our
    /// connection, or the answers passed every measure.
    #[error("the connection to the X server broke")]
    Lost(#[source] ConnectionError),
    /// A request failed that cannot fail on a healthy server.
    #[error("the X server refuses to {operation}")]
    Request {
        /// What was asked.
        operation: &'static str,
        /// The server's answer.
        #[source]
        source: ReplyError,
    },
    /// The screen stays as it is.
    #[error("the X server does not change the screen, with status {status}")]
    Screen {
        /// `SetConfig` of RANDR.
        status: u8,
    },
    /// It did not happen in time.
    #[error("{event} did not happen in time")]
    Deadline {
        /// What was waited for.
        event: &'static str,
    },
}

impl From<ConnectionError> for XError {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error)
    }
}

/// Tells a lost connection from a refused request.
fn request_error(operation: &'static str) -> impl FnOnce(ReplyError) -> XError {
    move |error| match error {
        ReplyError::ConnectionError(source) => XError::Lost(source),
        source @ ReplyError::X11Error(_) => XError::Request { operation, source },
    }
}

/// The answer, or `None` if the server refused, as it does for a window that
/// is gone by now.
fn unless_gone<T>(reply: Result<T, ReplyError>) -> Result<Option<T>, XError> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(ReplyError::X11Error(_)) => Ok(None),
        Err(ReplyError::ConnectionError(source)) => Err(XError::Lost(source)),
    }
}

/// Connects, and runs `job` while the connection is served, until `deadline`.
async fn with_connection<T>(
    address: &XAddress,
    deadline: Instant,
    event: &'static str,
    job: impl AsyncFnOnce(&Connection) -> Result<T, XError>,
) -> Result<T, XError> {
    with_socket(address, deadline, event, async |connection, _socket| job(connection).await).await
}

/// As [`with_connection`]; the job may keep the socket beyond the connection.
async fn with_socket<T>(
    address: &XAddress,
    deadline: Instant,
    event: &'static str,
    job: impl AsyncFnOnce(&Connection, Arc<UnixStream>) -> Result<T, XError>,
) -> Result<T, XError> {
    let all = async {
        let mut socket = connect(&address.socket).await?;
        let setup = handshake::greet(&mut socket, &address.cookie).await?;
        let socket = Arc::new(socket);
        let (connection, driver) =
            RustConnection::for_connected_stream(XStream::new(socket.clone()), setup).map_err(XError::Greeting)?;
        tokio::select! {
            // Neither arm is resumed after the other has ended, and the
            // connection ends with them: nothing can be half-done.
            Err(error) = driver => Err(XError::Lost(error)),
            result = job(&connection, socket) => result,
        }
    };
    tokio::time::timeout_at(deadline, all).await.map_err(|_elapsed| XError::Deadline { event })?
}

/// Connects to a socket; waits while its queue of connections is full.
async fn connect(socket: &Path) -> Result<UnixStream, XError> {
    loop {
        match stream::connect(socket).await {
            Ok(connected) => return Ok(connected),
            // The queue of a listening unix socket is full: a client of the
            // sandbox may do that, the kernel offers nothing to wait on.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY_PERIOD).await,
            Err(source) => return Err(XError::Connect { path: socket.to_owned(), source }),
        }
    }
}

/// Waits until something happens to what `connection` listens to, and takes
/// everything that happened by then.
async fn next_change(connection: &Connection, looked_at: Instant) -> Result<(), XError> {
    connection.flush().await?;
    connection.wait_for_raw_event().await?;
    tokio::time::sleep_until(looked_at + LOOK_PERIOD).await;
    while connection.poll_for_raw_event()?.is_some() {}
    Ok(())
}

/// The root window of the first screen; a server without one refuses the
/// requests on it.
fn root(connection: &Connection) -> u32 {
    connection.setup().roots.first().map_or(x11rb::NONE, |screen| screen.root)
}
