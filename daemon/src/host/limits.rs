//! Limits of this process, which no container of it can exceed.

use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit};

/// Open files that a program gets without asking, and that it may ask for:
/// the values of current systemd.
const NOFILE: (u64, u64) = (1024, 524_288);

/// Soft and hard limit of open files for a container. Only a host that gives
/// the daemon CAP_SYS_RESOURCE could go above the daemon's own.
pub static NOFILE_LIMITS: LazyLock<(u64, u64)> = LazyLock::new(|| match getrlimit(Resource::RLIMIT_NOFILE) {
    Ok((_, hard)) => (NOFILE.0.min(hard), NOFILE.1.min(hard)),
    Err(error) => {
        tracing::warn!(%error, "limit of open files is not known");
        (NOFILE.0, NOFILE.0)
    }
});
