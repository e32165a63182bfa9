//! Why a stream ended or did not begin.

use std::time::Duration;

use roost_proto::protocol::VersionMismatch;
use tonic::Status;

use super::super::dial::{ClockProblem, retry_after};
use super::super::heartbeat::UnknownAck;
use super::super::trust::TrustError;
use super::WELCOME_TIMEOUT;

/// Why a stream ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub(in crate::link) enum SessionError {
    #[error("cannot reach central")]
    Dial(#[source] tonic::transport::Error),
    #[error(transparent)]
    Clock(#[from] ClockProblem),
    #[error("central ended the connection")]
    Status(#[source] Status),
    #[error("central did not {what} within {} s", WELCOME_TIMEOUT.as_secs())]
    Timeout { what: &'static str },
    #[error("central closed the connection")]
    Closed,
    #[error("central cannot be talked to: {0}")]
    Version(#[from] VersionMismatch),
    #[error("central broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("central's CA certificates cannot be taken")]
    Trust(#[from] TrustError),
    #[error("central acknowledges no heartbeat any more")]
    Silent,
    #[error("the connection was broken on request")]
    Cut,
    #[error(transparent)]
    Ack(#[from] UnknownAck),
}

impl SessionError {
    /// Whether central has said that it does not know this node.
    pub(in crate::link) fn is_rejection(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == tonic::Code::Unauthenticated)
    }

    /// When central wants to see the node again, if it said so.
    pub(in crate::link) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(status) => retry_after(status),
            _ => None,
        }
    }

    pub(super) fn dial(error: tonic::transport::Error) -> Self {
        match ClockProblem::of(&error) {
            Some(problem) => Self::Clock(problem),
            None => Self::Dial(error),
        }
    }
}

impl From<Status> for SessionError {
    fn from(status: Status) -> Self {
        match ClockProblem::of(&status) {
            Some(problem) => Self::Clock(problem),
            None => Self::Status(status),
        }
    }
}
