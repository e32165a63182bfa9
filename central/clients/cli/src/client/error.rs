//! What can go wrong between this program and central.

use std::time::Duration;

use roost_proto::model::Problem;

use super::connect::{ConnectError, TlsError};

/// A source that is only shown.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection.
    #[error("cannot reach the server at {server}")]
    Connect {
        /// Its address.
        server: String,
        /// Where the address comes from.
        origin: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// TLS cannot be set up at all.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The connection ended before the answer did.
    #[error("the connection broke during {what}")]
    Broken {
        /// Method and path.
        what: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// No answer in time.
    #[error("no answer to {what} within {after:?}")]
    Timeout {
        /// Method and path.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// The server said no, and why.
    #[error("{}", problem.detail)]
    Problem {
        /// What it said.
        problem: Box<Problem>,
        /// Where the token came from.
        token_origin: String,
    },
    /// Something answered that does not speak this API.
    #[error("{what} was answered with {status} and no explanation: is this a Roost server?")]
    NoProblem {
        /// Method and path.
        what: String,
        /// The status.
        status: http::StatusCode,
    },
    /// An answer that this version does not understand.
    #[error("the answer to {what} is not understood")]
    Unreadable {
        /// Method and path.
        what: String,
        /// Which field.
        #[source]
        source: serde_json::Error,
    },
    /// An answer beyond all reason.
    #[error("the answer to {what} is larger than {limit} bytes")]
    TooLarge {
        /// Method and path.
        what: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A list whose next page is the same page.
    #[error("the answer to {0} leads back to itself: the server's list does not end")]
    PageLoop(String),
    /// Something that HTTP cannot carry.
    #[error("cannot send {what}")]
    Request {
        /// Method and path.
        what: String,
        /// Why.
        #[source]
        source: http::Error,
    },
}

impl ClientError {
    /// An answer that says something wrong, in one sentence.
    pub(super) fn broken(what: impl Into<String>, problem: &'static str) -> Self {
        Self::Broken { what: what.into(), source: problem.into() }
    }

    /// The HTTP status, when the server answered with an error.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Problem { problem, .. } => Some(problem.status),
            Self::NoProblem { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// Whether there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether a later try may succeed without anybody changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            other => other.status().is_some_and(|status| matches!(status, 429 | 502 | 503 | 504)),
        }
    }
}
