//! Limits of open files for containers.

use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit};
use procfs::process::Process;

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

/// Hard limit of open files of this process; none known counts as none.
#[must_use]
pub fn nofile_hard() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard)
}
