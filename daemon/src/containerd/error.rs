//! What can go wrong between the daemon and containerd.
//!
//! gRPC status codes end here: beyond this room there is only [`Error`], whose
//! variants say what a caller can do about it.

use std::error::Error as StdError;

use containerd_client::tonic::{Code, Status, TimeoutExpired};

/// Why a call to containerd failed.
#[allow(clippy::error_impl_error, reason = "read as containerd::Error everywhere")]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not exist (any more).
    #[error("containerd: {operation}: {object} does not exist")]
    NotFound {
        /// The call, e.g. `start task`.
        operation: &'static str,
        /// What it was about, e.g. `container sbx-…`.
        object: String,
    },
    /// The object exists already.
    #[error("containerd: {operation}: {object} exists already")]
    AlreadyExists {
        /// The call.
        operation: &'static str,
        /// What it was about.
        object: String,
    },
    /// containerd refuses the call in the object's present state.
    #[error("containerd: {operation}: {object} is not in a state for this")]
    Precondition {
        /// The call.
        operation: &'static str,
        /// What it was about.
        object: String,
        /// containerd's own words.
        #[source]
        source: Box<Status>,
    },
    /// containerd does not answer or the connection broke: try again later.
    #[error("containerd: {operation}: {object}: containerd is unavailable")]
    Unavailable {
        /// The call.
        operation: &'static str,
        /// What it was about.
        object: String,
        /// What the transport or containerd said.
        #[source]
        source: Box<Status>,
    },
    /// No answer within the call's deadline. It may have taken effect.
    #[error("containerd: {operation}: {object}: no answer in time")]
    Timeout {
        /// The call.
        operation: &'static str,
        /// What it was about.
        object: String,
    },
    /// Any other refusal.
    #[error("containerd: {operation}: {object} failed")]
    Rpc {
        /// The call.
        operation: &'static str,
        /// What it was about.
        object: String,
        /// containerd's own words.
        #[source]
        source: Box<Status>,
    },
    /// An answer that lacks what the interface promises.
    #[error("containerd: {operation}: {object}: the answer lacks {missing}")]
    Answer {
        /// The call.
        operation: &'static str,
        /// What it was about.
        object: String,
        /// What is not there.
        missing: &'static str,
    },
    /// What was given cannot be used: nothing was sent.
    #[error("containerd: {object}: {problem}")]
    Invalid {
        /// What it was about, e.g. `namespace "a b"`.
        object: String,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
}

impl Error {
    /// Sorts a gRPC status by what a caller can do about it.
    #[must_use]
    pub fn from_status(operation: &'static str, object: impl Into<String>, status: Status) -> Self {
        let object = object.into();
        if is_deadline(&status) {
            return Self::Timeout { operation, object };
        }
        let source = Box::new(status);
        match source.code() {
            Code::NotFound => Self::NotFound { operation, object },
            Code::AlreadyExists => Self::AlreadyExists { operation, object },
            Code::FailedPrecondition => Self::Precondition { operation, object, source },
            Code::Unavailable => Self::Unavailable { operation, object, source },
            // A status that came over the wire has no source: this one was
            // made here, by a connection that broke.
            _ if source.source().is_some() => Self::Unavailable { operation, object, source },
            _ => Self::Rpc { operation, object, source },
        }
    }

    /// For `map_err`: [`Error::from_status`] with the first two arguments
    /// given.
    pub fn of(operation: &'static str, object: impl Into<String>) -> impl FnOnce(Status) -> Self {
        move |status| Self::from_status(operation, object, status)
    }

    /// Whether the same call may succeed later without any other change.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. })
    }

    /// Whether the shim of a task ended in the middle of a call, which
    /// containerd says in words only, or just before its start.
    #[must_use]
    pub fn is_shim_lost(&self) -> bool {
        match self {
            Self::Rpc { source, .. } => {
                ["ttrpc: closed", "failed to start shim"].iter().any(|words| source.message().contains(words))
            }
            Self::NotFound { operation, .. } => *operation == "start task",
            _ => false,
        }
    }

    /// Whether containerd's disk is full: it says so in words only.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        let source = match self {
            Self::Rpc { source, .. } | Self::Precondition { source, .. } | Self::Unavailable { source, .. } => source,
            _ => return false,
        };
        ["no space left on device", "disk quota exceeded"].iter().any(|words| source.message().contains(words))
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the object exists already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }
}

/// Whether the deadline ended the call. The client's own timer shows as
/// `Cancelled`, with the text of [`TimeoutExpired`] and nothing else to tell it
/// by; containerd, which gets the deadline as well, says `DeadlineExceeded`.
fn is_deadline(status: &Status) -> bool {
    match status.code() {
        Code::DeadlineExceeded => true,
        Code::Cancelled => status.message() == TimeoutExpired(()).to_string(),
        _ => false,
    }
}

/// Turns "it was there already" or "it was gone already" into success.
pub trait Idempotent {
    /// Success if the object is there already.
    ///
    /// # Errors
    /// Every error but [`Error::AlreadyExists`].
    fn or_exists(self) -> Result<(), Error>;

    /// Success if the object is gone already.
    ///
    /// # Errors
    /// Every error but [`Error::NotFound`].
    fn or_gone(self) -> Result<(), Error>;
}

impl<T> Idempotent for Result<T, Error> {
    fn or_exists(self) -> Result<(), Error> {
        match self {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn or_gone(self) -> Result<(), Error> {
        match self {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(status: Status) -> Error {
        Error::from_status("get image", "image a:latest", status)
    }

    #[test]
    fn each_code_becomes_what_a_caller_can_do() {
        assert!(sorted(Status::not_found("x")).is_not_found());
        assert!(sorted(Status::already_exists("x")).is_already_exists());
        assert!(sorted(Status::unavailable("x")).is_unavailable());
        assert!(matches!(sorted(Status::failed_precondition("x")), Error::Precondition { .. }));
        assert!(matches!(sorted(Status::invalid_argument("x")), Error::Rpc { .. }));
    }

    #[test]
    fn both_sides_of_a_deadline_are_a_timeout() {
        let ours = Status::from_error(Box::new(TimeoutExpired(())));
        assert!(matches!(sorted(ours), Error::Timeout { .. }));
        assert!(matches!(sorted(Status::deadline_exceeded("context deadline exceeded")), Error::Timeout { .. }));
        assert!(matches!(sorted(Status::cancelled("context canceled")), Error::Rpc { .. }));
    }

    #[test]
    fn a_broken_connection_is_unavailable_whatever_its_code() {
        let broken = Status::from_error(Box::new(std::io::Error::other("transport error")));
        assert!(sorted(broken).is_unavailable());
    }

    #[test]
    fn the_text_names_operation_and_object_but_not_the_source() {
        let error = sorted(Status::internal("secret detail"));
        assert_eq!(error.to_string(), "containerd: get image: image a:latest failed");
        assert!(error.source().is_some_and(|s| s.to_string().contains("secret detail")));
    }
}
