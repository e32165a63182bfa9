//! The window manager that Roost runs beside the X server.
//!
//! A shell in the display container waits for a line in a FIFO, runs the
//! window manager, notes its exit code in a file, and waits again. Whether and
//! when the next line comes is the daemon's decision. So a start takes no
//! program in a running container (an exec: 27 to 80 ms), and a restart
//! touches neither the X server nor its container.

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ready::create_fifo;
use crate::display::cookie::Owner;

/// Runs before the X server, in the shell that becomes it; `$1` is the FIFO,
/// `$2` the file for the exit code. The file is empty while it runs.
pub(super) const SUPERVISE: &str = r#"(exec 3<>"$1"; while read -r _ <&3; do : >"$2"; /usr/lib/roost/window-manager 3<&-; echo $? >"$2"; done) & shift 2; "#;

/// Most bytes of an exit code: three digits and a line feed.
const MAX_CODE_BYTES: u64 = 4;
/// Between two tries to reach a shell that has not opened the FIFO yet.
const RETRY_PERIOD: Duration = Duration::from_millis(2);
/// Number of tries: the shell opens it before the X server answers.
const ATTEMPTS: u32 = 500;

/// The files through which the shell is told and asked.
#[derive(Debug, Clone)]
pub struct PlatformManager {
    fifo: PathBuf,
    exit_code: PathBuf,
}

/// Why the window manager cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}, the FIFO of the window manager", path = .path.display())]
pub struct StartManagerError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl PlatformManager {
    /// Name of the FIFO in the display's directory.
    pub const FIFO: &str = "wm";
    /// Name of the file with the exit code.
    pub const EXIT_CODE: &str = "wm-exit-code";

    /// The manager of the display whose files lie in `dir`, as the host sees it.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { fifo: dir.join(Self::FIFO), exit_code: dir.join(Self::EXIT_CODE) }
    }

    /// Makes the FIFO, before the display container starts.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn create(&self, owner: Owner) -> Result<(), StartManagerError> {
        create_fifo(&self.fifo, owner).map_err(self.failed("make"))
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> StartManagerError + use<> {
        let path = self.fifo.clone();
        move |source| StartManagerError { operation, path, source }
    }

    /// Tells the shell to run the window manager once; [`Self::exit_code`]
    /// knows none from then on until it ends. Takes two seconds at
    /// most, until the shell listens.
    ///
    /// # Errors
    /// When nobody listens: the shell is gone.
    pub async fn start(&self) -> Result<(), StartManagerError> {
        match std::fs::remove_file(&self.exit_code) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed("prepare")(error)),
            _ => {}
        }
        let mut attempt = 0;
        loop {
            // Without waiting for a reader; a link is not followed, as the
            // directory belongs to a process of the sandbox.
            let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
            let opened = std::fs::File::options().write(true).custom_flags(flags).open(&self.fifo);
            match opened.and_then(|mut fifo| fifo.write_all(b"\n")) {
                Ok(()) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) && attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(RETRY_PERIOD).await;
                }
                Err(error) => return Err(self.failed("tell")(error)),
            }
        }
    }

    /// The exit code with which it ended last; none while it runs, and when
    /// the shell did not note one.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let file = std::fs::File::options().read(true).custom_flags(flags).open(&self.exit_code).ok()?;
        let mut text = String::new();
        file.take(MAX_CODE_BYTES + 1).read_to_string(&mut text).ok()?;
        let code: u8 = text.strip_suffix('\n')?.parse().ok()?;
        Some(code.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_exit_code_counts() {
        let dir = tempfile::tempdir().unwrap();
        let manager = PlatformManager::new(dir.path());
        assert_eq!(manager.exit_code(), None, "nothing was noted");
        for (text, expected) in [("", None), ("137\n", Some(137)), ("0\n", Some(0)), ("13", None), ("999\n", None)] {
            std::fs::write(&manager.exit_code, text).unwrap();
            assert_eq!(manager.exit_code(), expected, "{text:?}");
        }
        std::fs::remove_file(&manager.exit_code).unwrap();
        std::os::unix::fs::symlink("/proc/self/oom_score", &manager.exit_code).unwrap();
        assert_eq!(manager.exit_code(), None, "a link of the sandbox's is not followed");
    }
}
