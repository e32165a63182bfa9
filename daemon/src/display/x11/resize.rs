//! The size of the screen, by RANDR.

use tokio::time::Instant;
use x11rb::CURRENT_TIME;
use x11rb::NONE;
use x11rb::protocol::randr::{GetScreenResourcesCurrentReply, ModeInfo, Rotation, SetConfig};
use x11rb_async::protocol::randr::ConnectionExt as _;
use x11rb_async::protocol::xproto::ConnectionExt as _;

use super::{Connection, XAddress, XError, request_error, root, with_connection};
use crate::display::Geometry;

/// Dots per inch that clients compute from the screen: what Xvfb begins with.
const DPI: u32 = 96;

/// Gives the screen another size, unless it has it. Pixels of the framebuffer
/// beyond it are no longer drawn. The server takes at most the size with which
/// it was started.
///
/// # Errors
/// See [`XError`]; [`XError::Request`] also for a size that is too large.
pub async fn resize_screen(address: &XAddress, wanted: Geometry, deadline: Instant) -> Result<(), XError> {
    with_connection(address, deadline, "the change of the screen's size", async |connection| {
        let root = root(connection);
        // Nobody sees the screen without an output in between.
        connection.grab_server().await?.check().await.map_err(request_error("wait for a change of the screen"))?;
        let changed = change(connection, root, wanted).await;
        connection.ungrab_server().await?.check().await.map_err(request_error("go on after a change of the screen"))?;
        changed
    })
    .await
}

async fn change(connection: &Connection, root: u32, wanted: Geometry) -> Result<(), XError> {
    let refused = || request_error("tell the size of the screen");
    connection.randr_query_version(1, 3).await?.reply().await.map_err(refused())?;
    let now = connection.get_geometry(root).await?.reply().await.map_err(refused())?;
    if (u32::from(now.width), u32::from(now.height)) == (wanted.width_px, wanted.height_px) {
        return Ok(());
    }
    let refused = || request_error("change the size of the screen");
    let resources = connection.randr_get_screen_resources_current(root).await?.reply().await.map_err(refused())?;
    let crtc = resources.crtcs.first().copied().unwrap_or(NONE);
    let output = resources.outputs.first().copied().unwrap_or(NONE);
    let mode = match mode_of(&resources, wanted) {
        Some(mode) => mode,
        None => {
            let (info, name) = new_mode(wanted);
            let made = connection.randr_create_mode(root, info, name.as_bytes()).await?.reply().await;
            made.map_err(refused())?.mode
        }
    };
    // Refused where the output has it already; whether it has is told below.
    connection.randr_add_output_mode(output, mode).await?.ignore_error();
    configure(connection, crtc, NONE, &[]).await?;
    let set = set_screen_size(connection, root, wanted).await;
    // In every case the output comes back: with what it had, if need be.
    let had = mode_of(&resources, Geometry { width_px: now.width.into(), height_px: now.height.into() });
    let mode = if set.is_ok() { mode } else { had.unwrap_or(mode) };
    let configured = configure(connection, crtc, mode, &[output]).await;
    set.and(configured)
}

async fn set_screen_size(connection: &Connection, root: u32, wanted: Geometry) -> Result<(), XError> {
    // RANDR counts millimetres; what is too wide for the protocol is refused by the server.
    let mm = |px: u32| px.saturating_mul(254) / (DPI * 10);
    let (width, height) = (edge(wanted.width_px), edge(wanted.height_px));
    let set = connection.randr_set_screen_size(root, width, height, mm(wanted.width_px), mm(wanted.height_px)).await?;
    set.check().await.map_err(request_error("change the size of the screen"))
}

async fn configure(connection: &Connection, crtc: u32, mode: u32, outputs: &[u32]) -> Result<(), XError> {
    let set = connection
        .randr_set_crtc_config(crtc, CURRENT_TIME, CURRENT_TIME, 0, 0, mode, Rotation::ROTATE0, outputs)
        .await?;
    let reply = set.reply().await.map_err(request_error("configure the output of the screen"))?;
    // The times are "now": no other client's change can have come first while
    // the server is grabbed.
    if reply.status == SetConfig::SUCCESS { Ok(()) } else { Err(XError::Screen { status: reply.status.into() }) }
}

/// A mode of this size that the server knows.
fn mode_of(resources: &GetScreenResourcesCurrentReply, size: Geometry) -> Option<u32> {
    let mut modes = resources.modes.iter();
    modes.find(|m| (u32::from(m.width), u32::from(m.height)) == (size.width_px, size.height_px)).map(|m| m.id)
}

/// A mode and its name. Its timings mean nothing to a screen in memory.
fn new_mode(size: Geometry) -> (ModeInfo, String) {
    let name = size.to_string();
    let (width, height) = (edge(size.width_px), edge(size.height_px));
    let info = ModeInfo {
        id: 0,
        width,
        height,
        dot_clock: 60 * size.width_px.saturating_mul(size.height_px),
        hsync_start: width,
        hsync_end: width,
        htotal: width,
        hskew: 0,
        vsync_start: height,
        vsync_end: height,
        vtotal: height,
        name_len: u16::try_from(name.len()).unwrap_or(u16::MAX),
        mode_flags: 0u32.into(),
    };
    (info, name)
}

/// An edge as the protocol counts.
fn edge(px: u32) -> u16 {
    u16::try_from(px).unwrap_or(u16::MAX)
}
