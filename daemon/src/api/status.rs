//! The one place that turns errors of the domain into `tonic::Status`.
//!
//! Every status carries a stable word under [`CODE_METADATA_KEY`], so that
//! programs need not read sentences.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use roost_proto::convert::InvalidMessage;
use roost_proto::tree::TreeError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::exec::ExecError;
use super::files::FilesError;
use super::logs::LogsError;
use super::screenshot::ScreenshotError;
use crate::containerd::image::spool::SpoolError;
use crate::containerd::image::{ImageError, LayerError};
use crate::host::inside::copy::CopyError;
use crate::logging::LoggingError;
use crate::pull::PullError;
use crate::registry::RegistryError;
use crate::sandbox::RequestError;
use crate::volume::checkpoint::{BlobError, CheckpointError};
use crate::volume::{HoldError, VolumeError};

/// Metadata key of the stable word for what went wrong.
pub const CODE_METADATA_KEY: &str = "roost-code";

/// Longest call that is no stream: a full ledger sync on a slow disk takes a
/// second or two.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A status with its stable word.
pub(super) fn status(code: Code, word: &'static str, message: impl Into<String>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE_METADATA_KEY, MetadataValue::from_static(word));
    Status::with_metadata(code, message, metadata)
}

/// The status of an error that is the daemon's or the host's, logged with its
/// whole chain.
fn failure(code: Code, word: &'static str, error: &dyn Error) -> Status {
    let message = chain(error);
    tracing::error!(error = message, code = word, "API call failed");
    status(code, word, message)
}

/// An error and what caused it, as one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing into a String cannot fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// A request that does not say what it must.
// By value, so that it can stand in `map_err` by name.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn invalid(error: InvalidMessage) -> Status {
    status(Code::InvalidArgument, "invalid-request", error.to_string())
}

/// Bounds a call that is no stream.
pub(super) async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => {
            let seconds = CALL_TIMEOUT.as_secs();
            let message = format!("no answer within {seconds} s: `roost debug tasks` shows what the daemon waits for");
            Err(status(Code::DeadlineExceeded, "timeout", message))
        }
    }
}

/// A bound of this daemon is reached.
pub(super) fn too_many(what: &str, max: usize) -> Status {
    let message = format!("{max} {what} are under way already: try again when one has ended");
    status(Code::ResourceExhausted, "too-many", message)
}

/// The state dump cannot be written as JSON.
pub(super) fn unreadable_state(error: &serde_json::Error) -> Status {
    failure(Code::Internal, "state-unreadable", error)
}

/// The daemon is leaving: the stream goes on with its successor.
pub(super) fn shutting_down() -> Status {
    status(Code::Unavailable, "shutting-down", "the daemon is shutting down: connect again")
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let message = error.to_string();
        match &error {
            RequestError::NotFound(_) => status(Code::NotFound, "sandbox-not-found", message),
            RequestError::Conflict(_) => status(Code::AlreadyExists, "sandbox-conflict", message),
            RequestError::Deleting(_) => status(Code::FailedPrecondition, "sandbox-deleting", message),
            RequestError::Paused(_) => status(Code::FailedPrecondition, "sandbox-paused", message),
            RequestError::NotRunning(_) => status(Code::FailedPrecondition, "sandbox-not-running", message),
            RequestError::OwnedByCentral(_) => status(Code::FailedPrecondition, "owned-by-central", message),
            RequestError::Full { .. } => status(Code::ResourceExhausted, "node-full", message),
            RequestError::Pressure { .. } => status(Code::ResourceExhausted, "node-pressure", message),
            RequestError::Volume(error) => hold(error),
            RequestError::PoolEmpty(_) => status(Code::ResourceExhausted, "pool-empty", message),
            RequestError::NotBound { reason, .. } => status(Code::FailedPrecondition, reason, message),
            RequestError::Invalid(_) => status(Code::InvalidArgument, "invalid-request", message),
            RequestError::Ledger(_) => failure(Code::Internal, "ledger-failed", &error),
        }
    }
}

/// A volume that somebody cannot have.
fn hold(error: &HoldError) -> Status {
    let message = error.to_string();
    match error {
        HoldError::Missing(_) => status(Code::NotFound, "volume-not-found", message),
        HoldError::Deleting(_) => status(Code::FailedPrecondition, "volume-deleting", message),
        HoldError::Lost(_) => status(Code::FailedPrecondition, "volume-lost", message),
        HoldError::InUse { .. } | HoldError::NotHeld(_) | HoldError::Attached { .. } => {
            status(Code::FailedPrecondition, "volume-in-use", message)
        }
        HoldError::Busy(_) => status(Code::Aborted, "volume-busy", message),
    }
}

/// A checkpoint that cannot be taken or used.
fn checkpoint(error: &CheckpointError) -> Status {
    let message = chain(error);
    match error {
        CheckpointError::Missing(_) => status(Code::NotFound, "checkpoint-not-found", message),
        CheckpointError::TooSlow { .. } | CheckpointError::Disturbed(_) => {
            status(Code::Aborted, "checkpoint-disturbed", message)
        }
        CheckpointError::Entry { .. } => status(Code::FailedPrecondition, "checkpoint-refused", message),
        CheckpointError::Damaged { .. } => failure(Code::DataLoss, "checkpoint-damaged", error),
        CheckpointError::Blob(BlobError::Damaged { .. }) => failure(Code::DataLoss, "checkpoint-damaged", error),
        CheckpointError::Blob(_) => failure(Code::Unavailable, "checkpoint-store-failed", error),
        CheckpointError::Host(_) => failure(Code::Internal, "volume-failed", error),
        CheckpointError::Stopped => shutting_down(),
    }
}

impl From<VolumeError> for Status {
    fn from(error: VolumeError) -> Self {
        let message = error.to_string();
        match &error {
            VolumeError::Hold(error) => hold(error),
            VolumeError::Conflict { .. } | VolumeError::Occupied(_) => {
                status(Code::AlreadyExists, "volume-conflict", message)
            }
            VolumeError::Invalid(_) | VolumeError::Shrink { .. } => {
                status(Code::InvalidArgument, "invalid-request", message)
            }
            VolumeError::Host(_) => failure(Code::Internal, "volume-failed", &error),
            VolumeError::Ledger(_) => failure(Code::Internal, "ledger-failed", &error),
            VolumeError::Checkpoint(error) => checkpoint(error),
            VolumeError::Ended => shutting_down(),
        }
    }
}

impl From<ExecError> for Status {
    fn from(error: ExecError) -> Self {
        let message = error.to_string();
        match &error {
            ExecError::NotFound(_) => status(Code::NotFound, "sandbox-not-found", message),
            ExecError::NotRunning(_) => status(Code::FailedPrecondition, "sandbox-not-running", message),
            ExecError::Paused(_) => status(Code::FailedPrecondition, "sandbox-paused", message),
            ExecError::Command { .. } => status(Code::InvalidArgument, "command-not-found", message),
            ExecError::Runtime { .. } => failure(Code::Internal, "exec-failed", &error),
        }
    }
}

impl From<FilesError> for Status {
    fn from(error: FilesError) -> Self {
        let message = error.to_string();
        match &error {
            FilesError::NotFound(_) => status(Code::NotFound, "sandbox-not-found", message),
            FilesError::NotReady { .. } | FilesError::Ended(_) => {
                status(Code::FailedPrecondition, "sandbox-not-running", message)
            }
            FilesError::Copy { source: CopyError::Tree(source), .. } => tree(source),
            FilesError::Copy { .. } | FilesError::Runtime { .. } => failure(Code::Internal, "copy-failed", &error),
        }
    }
}

/// Client and sandbox, never this daemon, are at fault: nothing is logged.
fn tree(error: &TreeError) -> Status {
    let message = chain(error);
    match error {
        TreeError::NotFound(_) => status(Code::NotFound, "path-not-found", message),
        TreeError::NotADirectory(_) => status(Code::FailedPrecondition, "path-not-directory", message),
        TreeError::NoSpace(_) => status(Code::FailedPrecondition, "path-no-space", message),
        TreeError::Refused { .. } => status(Code::InvalidArgument, "archive-refused", message),
        TreeError::Archive(_) => status(Code::InvalidArgument, "archive-damaged", message),
        TreeError::Path { .. } => status(Code::FailedPrecondition, "path-not-usable", message),
        TreeError::Input(source) | TreeError::Output(source) if source.kind() == std::io::ErrorKind::TimedOut => {
            status(Code::DeadlineExceeded, "timeout", message)
        }
        TreeError::Input(_) | TreeError::Output(_) => status(Code::Aborted, "archive-broke-off", message),
    }
}

impl From<ScreenshotError> for Status {
    fn from(error: ScreenshotError) -> Self {
        let message = error.to_string();
        match &error {
            ScreenshotError::NotFound(_) => status(Code::NotFound, "sandbox-not-found", message),
            ScreenshotError::NotRunning(_) => status(Code::FailedPrecondition, "sandbox-not-running", message),
            ScreenshotError::Capture { .. } => failure(Code::Internal, "capture-failed", &error),
        }
    }
}

impl From<ImageError> for Status {
    fn from(error: ImageError) -> Self {
        Self::from(&error)
    }
}

impl From<&ImageError> for Status {
    fn from(error: &ImageError) -> Self {
        let message = chain(error);
        match error {
            ImageError::NotFound { .. } => status(Code::NotFound, "image-not-found", message),
            ImageError::InUse { .. } => status(Code::FailedPrecondition, "image-in-use", message),
            ImageError::Spool(SpoolError::NoSpace { .. }) => status(Code::ResourceExhausted, "no-space", message),
            ImageError::Spool(SpoolError::TooLarge { .. }) => status(Code::OutOfRange, "archive-too-large", message),
            ImageError::Spool(SpoolError::Io { .. }) => failure(Code::Internal, "image-store-failed", error),
            ImageError::Spool(_) => status(Code::Aborted, "archive-broke-off", message),
            ImageError::Archive(_) | ImageError::Document(_) | ImageError::Layer(LayerError::Damaged { .. }) => {
                status(Code::InvalidArgument, "invalid-archive", message)
            }
            ImageError::Layer(LayerError::NoSpace { .. }) => status(Code::ResourceExhausted, "no-space", message),
            ImageError::Layer(LayerError::Unpack { .. }) => failure(Code::FailedPrecondition, "unpack-failed", error),
            ImageError::Layer(_) => status(Code::FailedPrecondition, "image-refused", message),
            ImageError::Registry(error) => registry(error, message),
            ImageError::Containerd(_) => failure(Code::Internal, "containerd-failed", error),
        }
    }
}

/// Client and registry, never this daemon, are at fault: nothing is logged.
fn registry(error: &RegistryError, message: String) -> Status {
    match error {
        RegistryError::NoRegistry { .. } => status(Code::InvalidArgument, "invalid-request", message),
        RegistryError::NotFound { .. } => status(Code::NotFound, "image-not-found", message),
        RegistryError::Unauthorized { .. } => status(Code::FailedPrecondition, "registry-unauthorized", message),
        RegistryError::Signature { .. } => status(Code::FailedPrecondition, "image-refused", message),
        RegistryError::Unreachable { .. } | RegistryError::Status { .. } => {
            status(Code::Aborted, "registry-unavailable", message)
        }
        RegistryError::File { .. } => status(Code::FailedPrecondition, "registry-misconfigured", message),
        RegistryError::Answer { .. } => status(Code::FailedPrecondition, "registry-wrong", message),
    }
}

impl From<PullError> for Status {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Image(error) => Self::from(&*error),
            PullError::Ended => shutting_down(),
        }
    }
}

impl From<LogsError> for Status {
    fn from(error: LogsError) -> Self {
        match &error {
            LogsError::NotFound(_) => status(Code::NotFound, "sandbox-not-found", error.to_string()),
            LogsError::Read { .. } => failure(Code::Internal, "logs-failed", &error),
        }
    }
}

impl From<LoggingError> for Status {
    fn from(error: LoggingError) -> Self {
        match &error {
            LoggingError::Filter { .. } => status(Code::InvalidArgument, "invalid-filter", chain(&error)),
            LoggingError::Twice(_) | LoggingError::Reload(_) => failure(Code::Internal, "logging-failed", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use roost_proto::id::SandboxId;

    use super::*;

    #[test]
    fn a_status_carries_its_stable_word() {
        let status = Status::from(RequestError::NotFound(SandboxId::random()));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.metadata().get(CODE_METADATA_KEY).unwrap(), "sandbox-not-found");
    }

    #[test]
    fn a_failure_names_every_cause_once() {
        let cause = std::io::Error::other("disk is gone");
        let status = Status::from(RequestError::Ledger(Box::new(cause)));
        assert_eq!(status.message(), "the ledger could not keep the request: disk is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_answers_ends_with_a_deadline() {
        let error = within(std::future::pending::<Result<(), Status>>()).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
}
