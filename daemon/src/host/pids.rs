//! Processes of the host by their numbers, for those that are nobody's any
//! more.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::Error;

/// Processes that the kernel calls by this name, of at most 15 bytes.
///
/// # Errors
/// When procfs cannot be read.
pub fn named(name: &str) -> Result<Vec<Pid>, Error> {
    let entries = std::fs::read_dir("/proc").map_err(|e| Error::path("read", "/proc", e))?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // One that ended meanwhile has no name any more.
    let has_name = |pid: &i32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    };
    Ok(numbers.filter(has_name).map(Pid::from_raw).collect())
}

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
