//! What flows through the tunnel of a sandbox's node: screenshot, logs, exec.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use roost_proto::model::Sandbox;
use roost_proto::node::{
    ExecInput, ExecOutput, ExecStart, LogSource, LogsRequest, ScreenshotRequest, TerminalSize, exec_input,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{RequestError, Scope};
use crate::link::{NodeCallError, NodeClient};

/// A screenshot takes milliseconds; a node that needs this long is in trouble.
const SCREENSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time until a stream has begun; the stream itself may last.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// A program to be run in a workload.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// Its working directory; absent = the workload's own.
    pub working_dir: Option<String>,
    /// Size of the terminal.
    pub size: Option<TerminalSize>,
}

/// Waits for a node's answer, but not for ever.
pub(super) async fn call<T>(
    sandbox_node: &roost_proto::id::NodeId,
    timeout: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, RequestError> {
    let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(node_error(sandbox_node, status)),
        Err(_) => Err(NodeCallError::Timeout { node: sandbox_node.clone(), after_ms }.into()),
    }
}

/// What a node's status means here.
pub(super) fn node_error(node: &roost_proto::id::NodeId, status: Status) -> RequestError {
    NodeCallError::Status { node: node.clone(), status: Box::new(status) }.into()
}

impl Scope {
    /// What a status in the middle of a stream means.
    #[must_use]
    pub fn node_failed(&self, sandbox: &Sandbox, status: Status) -> RequestError {
        node_error(&sandbox.node_id, status)
    }

    /// A stream that central cuts off when it shuts down: with an error, so
    /// that nobody takes a part for the whole.
    pub(super) fn until_ending<T: Send, S: Stream<Item = T> + Send, F: FnOnce() -> T + Send>(
        &self,
        stream: S,
        cut_off: F,
    ) -> impl Stream<Item = T> + Send + use<T, S, F> {
        let ending = self.ending();
        let last = ending.clone();
        let last = futures::stream::once(async move { last.is_cancelled().then(cut_off) });
        stream.take_until(ending.cancelled_owned()).chain(last.filter_map(std::future::ready))
    }

    async fn node_of(&self, sandbox: &Sandbox) -> Result<NodeClient, RequestError> {
        self.central.node_client(&sandbox.node_id).await
    }

    /// The screen of a sandbox as PNG.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn screenshot(&self, name: &str) -> Result<Bytes, RequestError> {
        let sandbox = self.sandbox(name).await?;
        let mut node = self.node_of(&sandbox).await?;
        let request = ScreenshotRequest { sandbox_id: sandbox.id.to_string() };
        Ok(call(&sandbox.node_id, SCREENSHOT_TIMEOUT, node.screenshot(request)).await?.png.into())
    }

    /// The output of a sandbox, as it comes; an error ends it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn logs(
        &self,
        name: &str,
        source: LogSource,
        follow: bool,
        tail_lines: Option<u32>,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, RequestError> {
        let sandbox = self.sandbox(name).await?;
        let mut node = self.node_of(&sandbox).await?;
        let request = LogsRequest { sandbox_id: sandbox.id.to_string(), source: source.into(), follow, tail_lines };
        let chunks = call(&sandbox.node_id, STREAM_TIMEOUT, node.logs(request)).await?;
        let cut_off = || Err(Status::unavailable("central shuts down: ask again"));
        Ok(self.until_ending(chunks.map(|chunk| chunk.map(|c| Bytes::from(c.data))), cut_off))
    }

    /// Finds sandbox and node of an exec before anything is upgraded.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn exec_target(&self, name: &str) -> Result<Sandbox, RequestError> {
        let sandbox = self.sandbox(name).await?;
        self.node_of(&sandbox).await?;
        Ok(sandbox)
    }

    /// Runs a program in a sandbox; `input` follows the start.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn exec(
        &self,
        sandbox: &Sandbox,
        request: ExecRequest,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<Streaming<ExecOutput>, RequestError> {
        let mut node = self.node_of(sandbox).await?;
        let start = ExecStart {
            sandbox_id: sandbox.id.to_string(),
            command: request.command,
            env: Default::default(),
            working_dir: request.working_dir.unwrap_or_default(),
            tty: request.tty,
            size: request.size,
            stdin: request.stdin,
        };
        let first = ExecInput { input: Some(exec_input::Input::Start(start)) };
        let input = futures::stream::iter([first]).chain(ReceiverStream::new(input));
        call(&sandbox.node_id, STREAM_TIMEOUT, node.exec(input)).await
    }
}
