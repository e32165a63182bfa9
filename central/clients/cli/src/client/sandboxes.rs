//! Sandboxes.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use hyper::body::Incoming;
use roost_proto::id::{NodeId, SandboxName, TemplateName};
use roost_proto::model::{CreateSandbox, Phase, Sandbox, UpdateSandbox};

use super::{Call, Client, ClientError};

/// Sandboxes asked for per page: the most that the API gives.
const PAGE_SIZE: &str = "500";

/// Which sandboxes a list shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Only in this phase.
    pub(crate) phase: Option<Phase>,
    /// Only from this template.
    pub(crate) template: Option<TemplateName>,
    /// Only on this node.
    pub(crate) node: Option<NodeId>,
}

impl Filter {
    /// Whether a sandbox is meant.
    pub(crate) fn matches(&self, sandbox: &Sandbox) -> bool {
        self.phase.is_none_or(|phase| phase == sandbox.observed.phase)
            && self.template.as_ref().is_none_or(|template| *template == sandbox.spec.template)
            && self.node.as_ref().is_none_or(|node| *node == sandbox.node_id)
    }
}

/// What can be asked of a sandbox that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Run it.
    Start,
    /// End its processes, keep what it holds.
    Stop,
    /// Both.
    Restart,
    /// Make its processes stand still.
    Pause,
    /// Let them go on.
    Resume,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// Which output of a sandbox is read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogQuery {
    /// The display server's instead of the workload's.
    pub(crate) is_display: bool,
    /// Go on as it grows.
    pub(crate) is_followed: bool,
    /// Only so many lines of what is kept.
    pub(crate) tail: Option<u32>,
}

impl Client {
    /// Makes a sandbox; repeated after a broken connection without making two.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn create_sandbox(&self, body: &CreateSandbox) -> Result<Sandbox, ClientError> {
        self.json(&Call::new(Method::POST, "/sandboxes").json(body)?.with_idempotency_key()).await
    }

    /// Every sandbox that the filter means.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list_sandboxes(&self, filter: &Filter) -> Result<Vec<Sandbox>, ClientError> {
        let call = Call::get("/sandboxes")
            .query("page_size", PAGE_SIZE)
            .query_option("phase", filter.phase)
            .query_option("template", filter.template.as_ref())
            .query_option("node", filter.node.as_ref());
        self.all(call).await
    }

    /// One sandbox, by id or name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn get_sandbox(&self, sandbox: &SandboxName) -> Result<Sandbox, ClientError> {
        self.json(&Call::get(format!("/sandboxes/{sandbox}"))).await
    }

    /// Starts, stops, restarts, pauses or resumes a sandbox; returns once that is accepted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn ask_sandbox(&self, sandbox: &SandboxName, verb: Verb) -> Result<(), ClientError> {
        self.done(&Call::new(Method::POST, format!("/sandboxes/{sandbox}/{}", verb.as_str()))).await
    }

    /// Changes what a sandbox may use; returns once that is accepted. With
    /// `if_generation` only if it was not changed since.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn update_sandbox(
        &self,
        sandbox: &SandboxName,
        body: &UpdateSandbox,
        if_generation: Option<u64>,
    ) -> Result<Sandbox, ClientError> {
        let mut call = Call::new(Method::PATCH, format!("/sandboxes/{sandbox}")).json(body)?.with_idempotency_key();
        if let Some(tag) = if_generation.and_then(|tag| HeaderValue::from_str(&format!("\"{tag}\"")).ok()) {
            call = call.header(header::IF_MATCH, tag);
        }
        self.json(&call).await
    }

    /// Deletes a sandbox; returns once that is accepted.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn delete_sandbox(&self, sandbox: &str) -> Result<Sandbox, ClientError> {
        self.json(&Call::new(Method::DELETE, format!("/sandboxes/{sandbox}"))).await
    }

    /// The screen as PNG.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn screenshot(&self, sandbox: &SandboxName) -> Result<Bytes, ClientError> {
        self.bytes(&Call::get(format!("/sandboxes/{sandbox}/screenshot"))).await
    }

    /// The output of a sandbox as a stream.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn logs(&self, sandbox: &SandboxName, query: LogQuery) -> Result<Incoming, ClientError> {
        let source = if query.is_display { "display" } else { "workload" };
        let call = Call::get(format!("/sandboxes/{sandbox}/logs"))
            .query("source", source)
            .query("follow", query.is_followed.to_string())
            .query_option("tail", query.tail);
        self.stream(&call).await
    }
}
