//! Waiting until sandboxes are where they should be.
//!
//! [`judge`]: what one observation means for a goal (pure). [`progress`]: all
//! sandboxes of one wait (pure). [`live`]: the line that people see. [`run`]:
//! the loop over the watch.

pub(crate) mod judge;
pub(crate) mod live;
pub(crate) mod progress;
pub(crate) mod run;

pub(crate) use judge::Goal;
pub(crate) use live::Live;
pub(crate) use progress::Subject;
pub(crate) use run::wait;

use crate::client::ClientError;
use crate::output::OutputError;
use roost_proto::model::Stage;

/// Why a sandbox is not where it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// It failed.
    #[error("{label} failed{}: {reason}{}", during(*stage), after_colon(message))]
    Failed {
        /// Name or id.
        label: String,
        /// The stage that did not end.
        stage: Option<Stage>,
        /// Stable word.
        reason: String,
        /// One sentence.
        message: String,
    },
    /// The kernel keeps its old limits.
    #[error("{label} keeps an old limit: {message}")]
    Refused {
        /// Name or id.
        label: String,
        /// One sentence.
        message: String,
    },
    /// It was deleted meanwhile.
    #[error("{label} is gone: it was deleted while this command waited for {goal}")]
    Gone {
        /// Name or id.
        label: String,
        /// What was waited for.
        goal: Goal,
    },
    /// The time is up.
    #[error("{label} is not {goal} after {after}: it is {status}")]
    Timeout {
        /// Name or id.
        label: String,
        /// What was waited for.
        goal: Goal,
        /// The limit, as people say it.
        after: String,
        /// What it is instead.
        status: String,
    },
    /// The server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The terminal.
    #[error(transparent)]
    Output(#[from] OutputError),
}

fn during(stage: Option<Stage>) -> String {
    stage.map(|stage| format!(" in stage {stage}")).unwrap_or_default()
}

fn after_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
