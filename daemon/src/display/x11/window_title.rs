//! Waits for a window by its title.

use std::collections::HashSet;

use tokio::time::Instant;
use x11rb::protocol::xproto::{ChangeWindowAttributesAux, EventMask, MapState};
use x11rb_async::protocol::xproto::ConnectionExt as _;

use super::atoms::Atoms;
use super::{Connection, XAddress, XError, next_change, root, unless_gone, with_connection};

/// Depth to which windows are looked at: the root's children are frames where
/// a window manager decorates, some wrap the client in one window more.
const MAX_DEPTH: usize = 3;
/// Most windows that are looked at: a client may make any number.
const MAX_WINDOWS: usize = 2048;

/// A window that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowInfo {
    /// Its whole title, at most 4 KiB.
    pub title: String,
}

/// Waits until a window is visible whose title (`_NET_WM_NAME`, else
/// `WM_NAME`) contains `text`.
///
/// Works with and without a window manager. Wakes by the server's events.
/// Dropping the future ends the wait.
///
/// # Errors
/// See [`XError`].
pub async fn wait_for_window_title(address: &XAddress, text: &str, deadline: Instant) -> Result<WindowInfo, XError> {
    with_connection(address, deadline, "the appearance of a window with the title", async |connection| {
        let atoms = Atoms::intern(connection).await?;
        let mut watch = Watch { connection, atoms, known: HashSet::new() };
        loop {
            let looked_at = Instant::now();
            if let Some(found) = watch.look(text).await? {
                return Ok(found);
            }
            next_change(connection, looked_at).await?;
        }
    })
    .await
}

/// The windows of one screen while they are watched.
struct Watch<'a> {
    connection: &'a Connection,
    atoms: Atoms,
    /// Windows whose events were asked for; ids of dead ones may stay, at
    /// most [`MAX_WINDOWS`] of them.
    known: HashSet<u32>,
}

impl Watch<'_> {
    /// Looks at every window, from the root down.
    async fn look(&mut self, text: &str) -> Result<Option<WindowInfo>, XError> {
        let mut level = vec![root(self.connection)];
        let mut seen = 0;
        for depth in 0..=MAX_DEPTH {
            level.truncate(MAX_WINDOWS - seen);
            seen += level.len();
            self.listen(&level).await?;
            if depth > 0
                && let Some(found) = self.find(&level, text).await?
            {
                return Ok(Some(found));
            }
            if depth < MAX_DEPTH {
                level = self.children(&level).await?;
            }
        }
        Ok(None)
    }

    /// Asks for the events of windows not yet known. The server works in
    /// order, so what changes after the look that follows is told.
    async fn listen(&mut self, windows: &[u32]) -> Result<(), XError> {
        if self.known.len() >= MAX_WINDOWS {
            // Asking once more for the living ones does no harm.
            self.known.clear();
        }
        let mask = EventMask::PROPERTY_CHANGE | EventMask::SUBSTRUCTURE_NOTIFY;
        let events = ChangeWindowAttributesAux::new().event_mask(mask);
        for &window in windows {
            if self.known.insert(window) {
                self.connection.change_window_attributes(window, &events).await?.ignore_error();
            }
        }
        Ok(())
    }

    /// Children of all windows that still are.
    async fn children(&self, windows: &[u32]) -> Result<Vec<u32>, XError> {
        let mut cookies = Vec::with_capacity(windows.len());
        for &window in windows {
            cookies.push(self.connection.query_tree(window).await?);
        }
        let mut children = Vec::new();
        for cookie in cookies {
            children.extend(unless_gone(cookie.reply().await)?.map(|tree| tree.children).unwrap_or_default());
        }
        Ok(children)
    }

    /// The first visible window with the title.
    async fn find(&self, windows: &[u32], text: &str) -> Result<Option<WindowInfo>, XError> {
        let mut cookies = Vec::with_capacity(windows.len());
        for &window in windows {
            cookies.push((window, self.connection.get_window_attributes(window).await?));
        }
        let mut visible = Vec::new();
        for (window, cookie) in cookies {
            let attributes = unless_gone(cookie.reply().await)?;
            if attributes.is_some_and(|attributes| attributes.map_state == MapState::VIEWABLE) {
                visible.push(window);
            }
        }
        for window in visible {
            if let Some(title) = self.atoms.title(self.connection, window).await?
                && title.contains(text)
            {
                return Ok(Some(WindowInfo { title }));
            }
        }
        Ok(None)
    }
}
