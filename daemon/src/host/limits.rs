//! Limits of open files for containers.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit};
use procfs::process::Process;

use super::Error;

/// Open files that a container may ask for: the value of current systemd.
pub const NOFILE_HARD: u64 = 524_288;
/// Open files that a program gets without asking, and that it may ask for.
const NOFILE: (u64, u64) = (1024, NOFILE_HARD);
/// CAP_SYS_RESOURCE, include/uapi/linux/capability.h.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// Soft and hard limit of open files for a container. None where root lacks
/// CAP_SYS_RESOURCE: limits cannot be set for other ids then, and containers
/// have those of containerd.
pub static NOFILE_LIMITS: LazyLock<Option<(u64, u64)>> =
    LazyLock::new(|| match Process::myself().and_then(|own| own.status()) {
        Ok(status) => (status.capeff & CAP_SYS_RESOURCE != 0).then_some(NOFILE),
        Err(error) => {
            tracing::warn!(%error, "own capabilities are not known: containers have containerd's limit of open files");
            None
        }
    });

/// Makes a process at least so likely to be killed for want of memory; one
/// that has ended is success.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_oom_score(pid: u32, score: i32) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    let raised = std::fs::read_to_string(&path).and_then(|text| match text.trim().parse::<i32>() {
        Ok(present) if present >= score => Ok(()),
        _ => std::fs::write(&path, score.to_string()),
    });
    match raised {
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map_err(|e| Error::path("write", path, e)),
    }
}

/// Hard limit of open files of this process; none known counts as none.
#[must_use]
pub fn nofile_hard() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_raised_and_never_lowered_and_an_ended_process_is_no_error() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let score = || std::fs::read_to_string(format!("/proc/{}/oom_score_adj", child.id())).unwrap();
        for (asked, is) in [(500, "500"), (400, "500"), (501, "501")] {
            raise_oom_score(child.id(), asked).unwrap();
            assert_eq!(score().trim(), is);
        }
        let pid = child.id();
        child.kill().unwrap();
        child.wait().unwrap();
        raise_oom_score(pid, 500).unwrap();
    }
}
