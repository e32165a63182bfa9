//! The kernel's log, read for one thing: which processes it killed for want
//! of memory.
//!
//! The log is one for the whole machine, and processes choose their own
//! names; so only the kernel's own records count, and a kill belongs to a
//! sandbox by nothing but the cgroup that the kernel names.

#![allow(unsafe_code)]

mod parse;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Error;
use parse::{Killing, Line};

/// Where the kernel gives its log, one record a read.
const DEVICE: &str = "/dev/kmsg";
/// Longest record, in bytes (`PRINTKRB_RECORD_MAX` and its properties).
const MAX_RECORD_BYTES: usize = 8192;

/// A process that the kernel killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKill {
    /// Its memory cgroup, as a path from the root of the hierarchy.
    pub cgroup: String,
    /// The name that it gave itself, at most 15 bytes.
    pub process: String,
    /// Its process id on the host.
    pub pid: u32,
}

/// The log from its oldest record on.
#[derive(Debug)]
pub struct KernelLog {
    device: AsyncFd<File>,
    killing: Killing,
}

impl KernelLog {
    /// Opens the log. Needs a tokio runtime.
    ///
    /// # Errors
    /// When this process may not read it: it needs `CAP_SYSLOG` where
    /// `kernel.dmesg_restrict` is 1, and `/dev/kmsg` in a container.
    pub fn open() -> Result<Self, Error> {
        let device = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(DEVICE);
        let device = device.map_err(|e| Error::path("open", DEVICE, e))?;
        // SAFETY: a `File` owns one open descriptor, and keeps it until it is
        // dropped; the `AsyncFd` owns the `File`.
        let device = unsafe { AsyncFd::register_with_interest(device, Interest::READABLE) };
        let device = device.map_err(|e| Error::path("watch", DEVICE, std::io::Error::from(e)))?;
        Ok(Self { device, killing: Killing::default() })
    }

    /// Waits for the next kill, also of what the log held at its opening. A
    /// kill whose details the kernel left out (it prints ten in five seconds)
    /// is passed over. Cancel-safe.
    ///
    /// # Errors
    /// When the log cannot be read any more.
    pub async fn next_kill(&mut self) -> Result<OomKill, Error> {
        let mut record = [0; MAX_RECORD_BYTES];
        loop {
            let count = self.read(&mut record).await?;
            let text = String::from_utf8_lossy(record.get(..count).unwrap_or_default());
            let kill = Line::parse(&text).and_then(|line| self.killing.next(line));
            if let Some(kill) = kill {
                return Ok(kill);
            }
        }
    }

    async fn read(&self, record: &mut [u8]) -> Result<usize, Error> {
        loop {
            let failed = |e| Error::path("read", DEVICE, e);
            let mut ready = self.device.readable().await.map_err(failed)?;
            match ready.try_io(|device| device.get_ref().read(record)) {
                Ok(Ok(count)) => return Ok(count),
                // Overwritten before it was read: the oldest there is comes next.
                Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => {
                    tracing::debug!("records of the kernel's log were lost");
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(failed(error)),
                Err(_would_block) => {}
            }
        }
    }
}
