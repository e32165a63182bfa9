//! Waits for a window manager, and for its end.

mod loss;

use tokio::time::Instant;
use x11rb::protocol::xproto::{AtomEnum, ChangeWindowAttributesAux, EventMask};
use x11rb_async::protocol::xproto::ConnectionExt as _;

use super::atoms::Atoms;
use super::{Connection, XAddress, XError, next_change, root, unless_gone, with_connection};

pub use loss::window_manager_lost;

/// The window manager of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowManagerInfo {
    /// What it calls itself; `None` if it does not say.
    pub name: Option<String>,
}

/// Waits until a window manager manages the screen, as EWMH has it: the root
/// window's `_NET_SUPPORTING_WM_CHECK` names a window that names itself in the
/// same property, so that one left by a dead manager does not count.
///
/// Wakes by the server's events. Dropping the future ends the wait.
///
/// # Errors
/// See [`XError`].
pub async fn wait_for_window_manager(address: &XAddress, deadline: Instant) -> Result<WindowManagerInfo, XError> {
    with_connection(address, deadline, "the appearance of a window manager", async |connection| {
        let atoms = Atoms::intern(connection).await?;
        let root = root(connection);
        listen(connection, root).await?;
        loop {
            let looked_at = Instant::now();
            if let Some(found) = look(connection, atoms, root).await? {
                return Ok(found);
            }
            next_change(connection, looked_at).await?;
        }
    })
    .await
}

/// Whether a window manager is there now.
async fn look(connection: &Connection, atoms: Atoms, root: u32) -> Result<Option<WindowManagerInfo>, XError> {
    let Some(check) = check_window(connection, atoms, root).await? else { return Ok(None) };
    // Listen before looking: the manager may name the window in the root
    // first and in the window itself later.
    listen(connection, check).await?;
    if check_window(connection, atoms, check).await? != Some(check) {
        return Ok(None);
    }
    Ok(Some(WindowManagerInfo { name: atoms.title(connection, check).await? }))
}

/// What `_NET_SUPPORTING_WM_CHECK` of a window says.
async fn check_window(connection: &Connection, atoms: Atoms, window: u32) -> Result<Option<u32>, XError> {
    let cookie = connection.get_property(false, window, atoms.wm_check, AtomEnum::WINDOW, 0, 1).await?;
    Ok(unless_gone(cookie.reply().await)?.and_then(|reply| reply.value32()?.next()))
}

/// Asks for the property changes of a window; one that is gone has none.
async fn listen(connection: &Connection, window: u32) -> Result<(), XError> {
    let events = ChangeWindowAttributesAux::new().event_mask(EventMask::PROPERTY_CHANGE);
    connection.change_window_attributes(window, &events).await?.ignore_error();
    Ok(())
}
