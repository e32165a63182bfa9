//! Processes of the host by their numbers, for those that are nobody's any
//! more.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::Error;

/// The words of a process's command line; none of one that is gone.
#[must_use]
pub fn command_line(pid: Pid) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Kills a process; one that is gone is success.
///
/// # Errors
/// What the kernel refuses.
pub fn kill(pid: Pid) -> Result<(), Error> {
    match send(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(Error::call("kill", error)),
    }
}
