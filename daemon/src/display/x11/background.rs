//! Paints the screen before anything else does.

use tokio::time::Instant;
use x11rb::protocol::xproto::ChangeWindowAttributesAux;
use x11rb_async::protocol::xproto::ConnectionExt as _;

use super::{XAddress, XError, request_error, root, with_connection};

/// Dark slate, as red, green and blue of a 24-bit screen: a server starts
/// black, which people take for a screen that is off.
const BACKGROUND: u32 = 0x001d_2632;

/// Gives the root window its first colour. A session may paint over it.
///
/// # Errors
/// See [`XError`].
pub async fn paint_background(address: &XAddress, deadline: Instant) -> Result<(), XError> {
    with_connection(address, deadline, "the first answer of the X server", async |connection| {
        let root = root(connection);
        let colour = ChangeWindowAttributesAux::new().background_pixel(BACKGROUND);
        let refused = || request_error("paint the root window");
        connection.change_window_attributes(root, &colour).await?.check().await.map_err(refused())?;
        // Everything of the window: zero means up to its edge.
        connection.clear_area(false, root, 0, 0, 0, 0).await?.check().await.map_err(refused())
    })
    .await
}
