//! What a command ends with, and how people are told.

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitCode;

use roost_proto::model::Stage;
use roost_proto::tree::TreeError;

use crate::client::ClientError;
use crate::context::ContextError;
use crate::node_socket::NodeSocketError;
use crate::output::{Console, OutputError, Tone};
use crate::wait::WaitError;

/// How this program ends; scripts can rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything that is none of the others.
    Error = 1,
    /// The command line or a file is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// It exists already, or does not allow this now.
    Conflict = 4,
    /// No token, a wrong one, or one that may not do this.
    Unauthorized = 5,
    /// The time is up.
    Timeout = 6,
    /// Server, node or connection is not there now.
    Unavailable = 7,
    /// A claim stands, and its hook ended with another status than 0.
    Hook = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line asks for something that makes no sense.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A file of the user's.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// `read`, `write`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No server to call.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A call.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A wait.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The daemon on this machine.
    #[error(transparent)]
    NodeSocket(#[from] NodeSocketError),
    /// Files of the user's, as a tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The result.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Everything was said already; only the way to end is left.
    #[error("the command failed")]
    Told(Exit),
}

impl CliError {
    /// A wrong command line, with what to do.
    pub(crate) fn usage(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { problem: problem.into(), hint: hint.into() }
    }

    /// How the program ends with this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Context(_) => Exit::Usage,
            Self::File { .. } | Self::Output(_) => Exit::Error,
            Self::Client(error) | Self::Wait(WaitError::Client(error)) => client_exit(error),
            Self::Wait(WaitError::Timeout { .. }) => Exit::Timeout,
            Self::Wait(WaitError::Gone { .. }) => Exit::NotFound,
            Self::Wait(WaitError::Refused { .. }) => Exit::Conflict,
            Self::Wait(_) => Exit::Error,
            Self::NodeSocket(error) => error.exit(),
            Self::Tree(TreeError::NotFound(_)) => Exit::NotFound,
            Self::Tree(_) => Exit::Error,
            Self::Told(exit) => *exit,
        }
    }

    /// Whether the reader of the result went away, which is no error.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        match self {
            Self::Output(error) | Self::Wait(WaitError::Output(error)) => error.is_closed_pipe(),
            _ => false,
        }
    }

    /// Tells people: one line, the fields at fault, the next step.
    pub(crate) fn tell(&self, console: &Console) {
        if matches!(self, Self::Told(_)) {
            return;
        }
        console.headed("error:", Tone::Bad, &self.sentence());
        if let Some(ClientError::Problem { problem, .. }) = self.client() {
            for error in &problem.errors {
                console.note(&format!("  {error}"));
            }
            if let Some(id) = problem.request_id.as_ref().filter(|_| problem.status >= 500) {
                console.note(&format!("  the server's log has more under request {id}"));
            }
        }
        if let Some(hint) = self.hint() {
            console.headed("hint:", Tone::Dim, &hint);
        }
    }

    /// The error and its causes as one sentence.
    fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            let cause = error.to_string();
            // Wrappers often repeat what they wrap.
            if !cause.is_empty() && !text.ends_with(&cause) {
                text = format!("{text}: {cause}");
            }
            source = error.source();
        }
        text
    }

    fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Client(error) | Self::Wait(WaitError::Client(error)) => Some(error),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some(hint.clone()).filter(|hint| !hint.is_empty()),
            Self::Context(error) => context_hint(error),
            Self::Client(error) | Self::Wait(WaitError::Client(error)) => client_hint(error),
            Self::Wait(error) => wait_hint(error),
            Self::NodeSocket(error) => error.hint(),
            Self::File { .. } | Self::Tree(_) | Self::Output(_) | Self::Told(_) => None,
        }
    }
}

fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Connect { .. } | ClientError::Broken { .. } => Exit::Unavailable,
        ClientError::Timeout { .. } => Exit::Timeout,
        other => match other.status() {
            Some(401 | 403) => Exit::Unauthorized,
            Some(404 | 410) => Exit::NotFound,
            Some(408 | 504) => Exit::Timeout,
            Some(409 | 412 | 507) => Exit::Conflict,
            Some(429 | 502 | 503) => Exit::Unavailable,
            Some(400 | 413 | 415 | 422) => Exit::Usage,
            _ => Exit::Error,
        },
    }
}

fn context_hint(error: &ContextError) -> Option<String> {
    match error {
        ContextError::Unknown { known, .. } if known.is_empty() => {
            Some("make one: roost config set-context NAME --server URL --token-stdin".into())
        }
        ContextError::Unknown { known, .. } => Some(format!("there is: {}", known.join(", "))),
        ContextError::PlainHttp { server } => Some(format!(
            "use https, or accept it for this server: roost config set-context NAME --server {server} --insecure"
        )),
        ContextError::Parse { path, .. } => Some(format!("correct {} by hand, or remove it", path.display())),
        ContextError::File { .. } | ContextError::Value { .. } | ContextError::NoHome => None,
    }
}

fn client_hint(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Connect { origin, .. } => Some(format!(
            "the address comes from {origin}; is roost-central running there? Another server: --server URL, ROOST_SERVER or roost config use-context NAME"
        )),
        ClientError::Problem { problem, token_origin } => match problem.status {
            401 => Some(format!(
                "{token_origin}; give one with ROOST_TOKEN or ROOST_TOKEN_FILE, or keep it: roost config set-context NAME --server URL --token-stdin"
            )),
            _ => None,
        },
        ClientError::NoProblem { .. } => Some("check the address: roost config view".into()),
        ClientError::Unreadable { .. } => {
            Some("server and command may be of different versions: compare them with roost version".into())
        }
        ClientError::Timeout { .. } => Some("allow more time with --request-timeout, e.g. 2m".into()),
        _ => None,
    }
}

fn wait_hint(error: &WaitError) -> Option<String> {
    match error {
        WaitError::Failed { label, stage, .. } => {
            let is_display = matches!(stage, Some(Stage::DisplayContainer | Stage::DisplayServer));
            Some(format!("roost sandbox logs {}{label}", if is_display { "--display " } else { "" }))
        }
        WaitError::Timeout { label, .. } => {
            Some(format!("it goes on by itself: roost sandbox get {label}, or wait longer with --timeout"))
        }
        WaitError::Refused { .. } | WaitError::Gone { .. } | WaitError::Client(_) | WaitError::Output(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::Problem;

    fn problem(status: u16) -> CliError {
        let problem = Problem {
            kind: "/problems/x".into(),
            title: "x".into(),
            status,
            code: "x".into(),
            detail: "x".into(),
            errors: Vec::new(),
            request_id: None,
        };
        ClientError::Problem { problem: Box::new(problem), token_origin: "no token is set".into() }.into()
    }

    #[test]
    fn every_kind_of_refusal_has_its_exit_code() {
        for (status, exit) in [(400, 2), (401, 5), (403, 5), (404, 3), (409, 4), (422, 2), (500, 1), (503, 7), (504, 6)]
        {
            assert_eq!(problem(status).exit() as u8, exit, "{status}");
        }
    }

    #[test]
    fn a_missing_token_is_told_with_the_way_to_set_one() {
        assert!(problem(401).hint().unwrap().contains("ROOST_TOKEN"));
    }

    #[test]
    fn a_failed_display_points_to_the_displays_log() {
        let failed = |stage| {
            let (label, reason) = ("d".into(), "r".into());
            CliError::from(WaitError::Failed { label, stage, reason, message: String::new() }).hint().unwrap()
        };
        assert_eq!(failed(Some(Stage::DisplayServer)), "roost sandbox logs --display d");
        assert_eq!(failed(Some(Stage::Workload)), "roost sandbox logs d");
    }

    #[test]
    fn causes_are_joined_once() {
        let inner = std::io::Error::other("disk on fire");
        let error = CliError::File { operation: "write", path: "/x".into(), source: inner };
        assert_eq!(error.sentence(), "cannot write /x: disk on fire");
    }
}
