//! How the display server is started: its arguments and its ready signal.
//!
//! The display container runs a shell that opens the ready FIFO and becomes
//! Xvfb. Xvfb writes its display number there once it listens: no polling for
//! the socket, no race with a stale one.

mod manager;
mod ready;

use roost_proto::model::{DisplayKind, DisplaySpec};

pub use manager::{PlatformManager, StartManagerError};
pub use ready::{ReadyError, ReadyFifo};

/// Display number inside every sandbox: each has its own X socket directory.
pub const DISPLAY_NUMBER: u32 = 0;
/// Directory of the X socket in both containers; clients cannot move it.
pub const SOCKET_DIR: &str = "/tmp/.X11-unix";
/// Program of the display container.
const XVFB: &str = "Xvfb";

/// Opens the FIFO as descriptor 3 and becomes the server, so that the server
/// is the process that containerd watches and signals.
const BECOME_SERVER: &str = r#"exec 3>"$1"; shift; exec "$@""#;

/// Where the display container finds the daemon's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPaths {
    /// FIFO for the ready signal.
    pub ready_fifo: String,
    /// Directory of the framebuffer file.
    pub framebuffer_dir: String,
    /// Xauthority file with the cookie.
    pub authority: String,
    /// Directory of the files of [`PlatformManager`].
    pub manager_dir: String,
}

impl ServerPaths {
    /// Path of the ready FIFO in the display container.
    pub const READY_FIFO: &str = "/run/roost/displayfd";
    /// Path of the framebuffer directory in the display container.
    pub const FRAMEBUFFER_DIR: &str = "/run/roost/fb";
    /// Path of the Xauthority file in the display container.
    pub const AUTHORITY: &str = "/run/roost/xauth";
    /// Where all of them lie in the display container.
    pub const DIR: &str = "/run/roost";
}

impl Default for ServerPaths {
    /// The paths in the display container.
    fn default() -> Self {
        Self {
            ready_fifo: Self::READY_FIFO.into(),
            framebuffer_dir: Self::FRAMEBUFFER_DIR.into(),
            authority: Self::AUTHORITY.into(),
            manager_dir: Self::DIR.into(),
        }
    }
}

/// Name of the X socket of a display, in its socket directory.
#[must_use]
pub fn socket_name(number: u32) -> String {
    format!("X{number}")
}

/// The server's lock file of a display, in its container. A file left by an
/// earlier start names a process id that may exist again in the new container,
/// and the server would refuse to start: remove it before each start.
#[must_use]
pub fn lock_path(number: u32) -> String {
    format!("/tmp/.X{number}-lock")
}

/// As [`command`], with the window manager that Roost brings standing by: see
/// [`PlatformManager`].
#[must_use]
pub fn command_with_manager(spec: &DisplaySpec, number: u32, paths: &ServerPaths) -> Vec<String> {
    let mut command = command(spec, number, paths);
    let file = |name: &str| format!("{}/{name}", paths.manager_dir);
    command[2] = format!("{}{BECOME_SERVER}", manager::SUPERVISE);
    command.splice(4..4, [file(PlatformManager::FIFO), file(PlatformManager::EXIT_CODE)]);
    command
}

/// Program and arguments of the display container.
#[must_use]
pub fn command(spec: &DisplaySpec, number: u32, paths: &ServerPaths) -> Vec<String> {
    let DisplayKind::Xvfb = spec.kind;
    let display = format!(":{number}");
    let screen = format!("{}x{}x24", spec.width_px, spec.height_px);
    let mut command: Vec<&str> =
        vec!["/bin/sh", "-c", BECOME_SERVER, "roost-display", &paths.ready_fifo, XVFB, &display];
    command.extend(["-displayfd", "3", "-screen", "0", &screen]);
    command.extend(["-fbdir", &paths.framebuffer_dir, "-auth", &paths.authority]);
    // No TCP: clients come over the X socket only. No reset: the server would
    // forget all state whenever its last client leaves.
    command.extend(["-nolisten", "tcp", "-noreset"]);
    if !spec.glx {
        // GLX loads Mesa and LLVM: about 50 MiB and 50 ms.
        command.extend(["-extension", "GLX"]);
    }
    command.into_iter().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(spec: &DisplaySpec) -> String {
        command(spec, 7, &ServerPaths::default()).join(" ")
    }

    #[test]
    fn the_server_gets_the_declared_screen_and_no_tcp() {
        let line = line(&DisplaySpec { width_px: 1024, height_px: 768, ..DisplaySpec::default() });
        assert!(line.contains(" Xvfb :7 -displayfd 3 -screen 0 1024x768x24 "), "{line}");
        assert!(line.contains(" -nolisten tcp "), "{line}");
        assert!(line.contains(" -auth /run/roost/xauth "), "{line}");
    }

    #[test]
    fn the_window_manager_of_the_platform_stands_by_and_the_server_is_the_same() {
        let (spec, paths) = (DisplaySpec::default(), ServerPaths::default());
        let (plain, with) = (command(&spec, 0, &paths), command_with_manager(&spec, 0, &paths));
        assert_eq!(with[4..6], ["/run/roost/wm", "/run/roost/wm-exit-code"]);
        assert_eq!(with[6..], plain[4..]);
        assert!(with[2].ends_with(&plain[2]), "{}", with[2]);
    }

    #[test]
    fn glx_is_off_unless_the_template_wants_it() {
        assert!(line(&DisplaySpec::default()).ends_with(" -extension GLX"));
        assert!(!line(&DisplaySpec { glx: true, ..DisplaySpec::default() }).contains("GLX"));
    }
}
