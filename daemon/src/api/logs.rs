//! The kept output of a sandbox, then what follows.
//!
//! Output lies in `<dir>/<sandbox>/<source>.log`; what was rotated away lies
//! in the same name with `.1` and comes first. Whoever writes may rotate by
//! copy-and-truncate or by rename: a follower notices both.

mod follow;
mod tail;

use std::path::{Path, PathBuf};

use roost_proto::convert::InvalidMessage;
use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use roost_proto::node as wire;
use tonic::Status;

use super::convert;
use super::sandbox::Sandboxes;
use super::service::{Answers, Shared};
use super::status::{invalid, too_many};
use follow::Follower;

/// Readers at once: each holds two files and 32 KiB.
pub(super) const READERS_MAX: usize = 512;

/// Where the kept output of all sandboxes lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// One directory per sandbox lies in here.
    pub dir: PathBuf,
}

impl LogFiles {
    /// The present file of one sandbox's source.
    #[must_use]
    pub fn path(&self, id: &SandboxId, source: LogSource) -> PathBuf {
        self.dir.join(id.as_str()).join(format!("{}.log", source.as_str()))
    }
}

/// The rotated part of a log.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Whose output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// The user's program.
    Workload,
    /// The display server.
    Display,
}

impl LogSource {
    /// The name as files spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Display => "display",
        }
    }
}

/// Why output cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// No such sandbox on this node.
    #[error("no sandbox {0} on this node")]
    NotFound(SandboxId),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Opens the log at the asked line; reads as the client takes.
pub(super) async fn logs(shared: &Shared, request: wire::LogsRequest) -> Result<Answers<wire::LogChunk>, Status> {
    let id = convert::sandbox_id(&request.sandbox_id).map_err(invalid)?;
    let source = source(request.source).map_err(invalid)?;
    let sandboxes = shared.parts.sandboxes.clone();
    if sandboxes.get(&id).is_none() {
        return Err(LogsError::NotFound(id).into());
    }
    let permit = shared.readers.clone().try_acquire_owned().map_err(|_| too_many("readers of logs", READERS_MAX))?;
    let path = shared.parts.logs.path(&id, source);
    let mut log = Follower::open(path, request.tail_lines).await?;
    Ok(Box::pin(async_stream::try_stream! {
        let _permit = permit;
        loop {
            // Asked before the read, so that nothing written before the end
            // of the sandbox is missed.
            let is_last = !request.follow || is_gone(&*sandboxes, &id);
            while let Some(data) = log.read().await? {
                yield wire::LogChunk { data };
            }
            if is_last {
                break;
            }
            log.wait().await;
        }
    }))
}

fn source(number: i32) -> Result<LogSource, InvalidMessage> {
    match wire::LogSource::try_from(number) {
        Ok(wire::LogSource::Unspecified | wire::LogSource::Workload) => Ok(LogSource::Workload),
        Ok(wire::LogSource::Display) => Ok(LogSource::Display),
        Err(_) => Err(InvalidMessage::field("source", format!("{number} is not a known value"))),
    }
}

fn is_gone(sandboxes: &dyn Sandboxes, id: &SandboxId) -> bool {
    sandboxes.get(id).is_none_or(|view| view.observed.phase == Phase::Gone)
}
