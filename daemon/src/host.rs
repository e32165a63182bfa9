//! The only room with syscalls: mounts, id mappings, namespaces, cgroups.
//!
//! Everything here is synchronous and takes well under a millisecond unless
//! said otherwise; callers on the async side use [`blocking`]. `unsafe` is
//! allowed in this room alone, each block with its reason.

pub mod attach;
pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod ext4;
pub mod fault;
pub mod files;
pub mod home;
pub mod inside;
pub mod kernel_log;
pub mod limits;
pub mod lock;
pub mod loop_device;
pub mod mount;
pub mod namespaces;
pub mod numbers;
pub mod overlay;
pub mod passwd;
pub mod pids;
pub mod pressure;
pub mod process;
pub mod quota;
pub mod socket;
pub mod tree;
pub mod trial;

use std::path::{Path, PathBuf};

/// A step on the host that failed.
#[derive(Debug, thiserror::Error)]
#[allow(clippy::error_impl_error, reason = "read as host::Error everywhere")]
pub enum Error {
    /// A step on a path.
    #[error("cannot {operation} {}", path.display())]
    Path {
        /// What was tried, e.g. "mount tmpfs on".
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A step without a path.
    #[error("cannot {operation}")]
    Call {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A cgroup step.
    #[error("cannot {operation} cgroup {path}")]
    Cgroup {
        /// What was tried.
        operation: &'static str,
        /// Path below the controller's mount.
        path: String,
        /// What the library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host lacks something; the text says what and how to mend it.
    #[error("{0}")]
    Unfit(String),
    /// The blocking work was cut off by shutdown.
    #[error("host work was cut off by shutdown")]
    Cancelled,
}

impl Error {
    /// Names the operation and the path of an I/O error.
    pub fn path(operation: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self::Path { operation, path: path.into(), source: source.into() }
    }

    /// Names the operation of an I/O error.
    pub fn call(operation: &'static str, source: impl Into<std::io::Error>) -> Self {
        Self::Call { operation, source: source.into() }
    }
}

/// Runs host work on a thread where blocking is allowed.
///
/// # Errors
/// What the work returns; [`Error::Cancelled`] when the runtime shuts down.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Cancelled)?
}

/// A path as the kernel takes it.
fn c_path(path: &Path) -> Result<std::ffi::CString, Error> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::path("use", path, std::io::Error::from(std::io::ErrorKind::InvalidInput)))
}
