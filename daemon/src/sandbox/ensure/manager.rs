//! The window manager of a running sandbox: is it there, and with what did it
//! end.

use roost_proto::model::WindowManager;
use tokio::time::Duration;

use crate::display::{Cookie, PlatformManager, XAddress, window_manager_lost};
use crate::sandbox::failure::chain;
use crate::sandbox::layout::SandboxDirs;
use crate::sandbox::{Desired, Node};

/// How long the place of the platform's window manager may be empty before it
/// counts as lost: a client may replace it.
const PLATFORM_GRACE: Duration = Duration::from_millis(250);
/// The same for one that the image brings: its session may start it again,
/// and an end of the container is told by containerd meanwhile.
const IMAGE_GRACE: Duration = Duration::from_secs(2);
/// Between two looks that could not tell.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// Between two looks at the exit code, which comes a moment after the end.
const EXIT_CODE_PERIOD: Duration = Duration::from_millis(20);
/// How long the exit code may take.
const EXIT_CODE_LIMIT: Duration = Duration::from_millis(500);

/// Returns once the window manager is gone and none took its place: its exit
/// code, where Roost runs it and heard of it. Dropping the future ends the
/// wait.
pub async fn lost(node: &Node, desired: &Desired, display_number: u32) -> Option<i32> {
    let grace = match desired.spec.window_manager {
        WindowManager::None => return std::future::pending().await,
        WindowManager::Platform => PLATFORM_GRACE,
        WindowManager::Image => IMAGE_GRACE,
    };
    let dirs = node.layout.sandbox(&desired.id);
    loop {
        let watched = match Cookie::read(&dirs.xauth()) {
            Ok(cookie) => {
                let address = XAddress { socket: dirs.x11_socket(display_number), cookie };
                window_manager_lost(&address, grace).await.map_err(|e| chain(&e))
            }
            Err(error) => Err(chain(&error)),
        };
        match watched {
            Ok(()) => return tokio::time::timeout(EXIT_CODE_LIMIT, ended(desired, &dirs)).await.ok(),
            // The X server ended, of which containerd tells; or a client cut
            // our connection or holds a grab.
            Err(error) => {
                tracing::debug!(sandbox = %desired.id, error, "the window manager cannot be watched now");
                tokio::time::sleep(RETRY_PERIOD).await;
            }
        }
    }
}

/// Returns once the window manager that Roost runs has ended: its exit code.
/// One that the image brings: never.
pub(super) async fn ended(desired: &Desired, dirs: &SandboxDirs) -> i32 {
    if desired.spec.window_manager != WindowManager::Platform {
        return std::future::pending().await;
    }
    let manager = PlatformManager::new(&dirs.display());
    loop {
        if let Some(exit_code) = manager.exit_code() {
            return exit_code;
        }
        tokio::time::sleep(EXIT_CODE_PERIOD).await;
    }
}
