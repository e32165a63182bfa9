//! The display of a sandbox, seen from the daemon: the files and arguments
//! with which its server starts, when it is ready, and its pixels.
//!
//! The server runs in the display container; nothing it says or writes is
//! trusted. Pixels come from its framebuffer file and need no X request; X is
//! asked only whether a window manager or a window is there, and when the last
//! input was.

pub mod cookie;
pub mod encode;
pub mod framebuffer;
pub mod server;
pub mod x11;

pub use cookie::{Cookie, CookieError, Owner};
pub use encode::{Screenshot, ScreenshotError, Screenshots};
pub use framebuffer::{Frame, Framebuffer, Geometry, ReadFramebufferError};
pub use server::{PlatformManager, ReadyError, ReadyFifo, ServerPaths, StartManagerError};
pub use x11::{
    WindowInfo, WindowManagerInfo, XAddress, XError, input_idle, paint_background, resize_screen,
    wait_for_window_manager, wait_for_window_title, window_manager_lost,
};
