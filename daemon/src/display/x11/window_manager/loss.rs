//! Waits until a window manager is gone.
//!
//! One thousand of these waits stand at once: each is a socket and a few
//! hundred bytes, and costs nothing until its window manager ends. The X
//! client is dropped once it has found the manager's window and asked for its
//! structure alone; from then on, any byte on the socket means "look again".

use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::time::{Duration, Instant};
use x11rb::protocol::xproto::{ChangeWindowAttributesAux, DESTROY_NOTIFY_EVENT, EventMask};
use x11rb_async::connection::Connection as _;
use x11rb_async::protocol::xproto::ConnectionExt as _;

use super::{check_window, listen, look};
use crate::display::x11::atoms::Atoms;
use crate::display::x11::{Connection, XAddress, XError, next_change, root, with_socket};

/// How long one look may take: a client may hold a grab on the server.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Shortest time between two looks: a client can send events to the manager's
/// window as it likes.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Bit of an event's kind that says that a client sent it.
const SENT: u8 = 0x80;

/// Returns once no window manager manages the screen, and none came within
/// `grace` to take its place. Dropping the future ends the wait.
///
/// # Errors
/// See [`XError`]: it cannot be told, try again.
pub async fn window_manager_lost(address: &XAddress, grace: Duration) -> Result<(), XError> {
    loop {
        let looked_at = Instant::now();
        // On the heap, and gone with the look: what stays is small.
        let Some(quiet) = Box::pin(find(address, grace)).await? else { return Ok(()) };
        // An end of the connection is readable too; the next look tells.
        quiet.readable().await.map_err(|e| XError::Lost(e.into()))?;
        tokio::time::sleep_until(looked_at + LOOK_PERIOD).await;
    }
}

/// Finds the manager's window, waiting for it for `grace`. The socket that is
/// returned stays silent until that window is destroyed.
async fn find(address: &XAddress, grace: Duration) -> Result<Option<Arc<UnixStream>>, XError> {
    let deadline = Instant::now() + LOOK_TIMEOUT + grace;
    with_socket(address, deadline, "an answer about the window manager", async |connection, socket| {
        let atoms = Atoms::intern(connection).await?;
        listen(connection, root(connection)).await?;
        let mut gives_up_at = None;
        loop {
            let looked_at = Instant::now();
            match look_once(connection, atoms).await? {
                Seen::Watched => return Ok(Some(socket)),
                Seen::Changing => tokio::time::sleep(LOOK_PERIOD).await,
                Seen::Nothing => {
                    // Counted from the first answer, so that a grab is no loss.
                    let gives_up_at = *gives_up_at.get_or_insert_with(|| Instant::now() + grace);
                    if tokio::time::timeout_at(gives_up_at, next_change(connection, looked_at)).await.is_err() {
                        return Ok(None);
                    }
                }
            }
        }
    })
    .await
}

/// What a look found.
enum Seen {
    /// A window manager, whose end is the only event that comes.
    Watched,
    /// One that ended just now: look again.
    Changing,
    /// None; an event tells when one comes.
    Nothing,
}

async fn look_once(connection: &Connection, atoms: Atoms) -> Result<Seen, XError> {
    let root = root(connection);
    if look(connection, atoms, root).await?.is_none() {
        return Ok(Seen::Nothing);
    }
    let Some(check) = check_window(connection, atoms, root).await? else { return Ok(Seen::Changing) };
    select(connection, root, EventMask::NO_EVENT).await?;
    select(connection, check, EventMask::STRUCTURE_NOTIFY).await?;
    // Asked after the events were: an end before them is seen here.
    let mut lives = check_window(connection, atoms, check).await? == Some(check);
    while let Some(event) = connection.poll_for_raw_event()? {
        lives &= event.first().is_none_or(|kind| kind & !SENT != DESTROY_NOTIFY_EVENT);
    }
    if lives {
        return Ok(Seen::Watched);
    }
    listen(connection, root).await?;
    Ok(Seen::Changing)
}

async fn select(connection: &Connection, window: u32, events: EventMask) -> Result<(), XError> {
    let events = ChangeWindowAttributesAux::new().event_mask(events);
    connection.change_window_attributes(window, &events).await?.ignore_error();
    Ok(())
}
