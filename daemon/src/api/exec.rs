//! Programs inside a workload: what runs them, and the call around it.

mod pump;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::node as wire;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::Instrument;

use super::convert;
use super::service::{Answers, Shared};
use super::status::{invalid, status, too_many, within};
use crate::tasks::TaskName;

/// Programs under way at once on the node, started through the API: each
/// holds up to 512 KiB of buffers and three pipes.
pub(super) const EXECS_MAX: usize = 512;
/// Pieces of output that wait for the client, at most 32 KiB each.
const OUTPUT_QUEUE: usize = 8;
/// Time in which a client must say what to run.
const START_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run in a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Environment laid over the workload's.
    pub env: BTreeMap<String, String>,
    /// Working directory; absent = the workload's own.
    pub working_dir: Option<String>,
    /// Size of its terminal; absent = no terminal.
    pub terminal: Option<TerminalSize>,
    /// Whether its standard input stays open.
    pub stdin: bool,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl Default for TerminalSize {
    /// The size of the terminals that programs grew up with.
    fn default() -> Self {
        Self { columns: 80, rows: 24 }
    }
}

/// Why a program could not be run or waited for.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No such sandbox on this node.
    #[error("no sandbox {0} on this node")]
    NotFound(SandboxId),
    /// Its workload does not run.
    #[error("the workload of sandbox {0} does not run: start it first")]
    NotRunning(SandboxId),
    /// Its processes stand still.
    #[error("sandbox {0} is paused, so that no program can run: `roost sandbox resume` first")]
    Paused(SandboxId),
    /// The workload has no such program, or may not run it.
    #[error("cannot run \"{program}\" in sandbox {id}: the image has no such program")]
    Command {
        /// In which sandbox.
        id: SandboxId,
        /// What was to run.
        program: String,
    },
    /// containerd or the host failed.
    #[error("cannot {operation} in sandbox {id}")]
    Runtime {
        /// What was tried.
        operation: &'static str,
        /// In which sandbox.
        id: SandboxId,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reading end of a program's output.
pub type ExecReader = Box<dyn AsyncRead + Send + Unpin>;
/// Writing end of a program's input.
pub type ExecWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// A program that runs.
pub struct ExecSession {
    /// Its standard input, when the spec asked for it. Dropped (after a
    /// shutdown) = end of file.
    pub stdin: Option<ExecWriter>,
    /// Its standard output; with a terminal, all of its output.
    pub stdout: ExecReader,
    /// Its standard error; absent with a terminal.
    pub stderr: Option<ExecReader>,
    /// Everything else.
    pub control: Arc<dyn ExecControl>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession").field("has_stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// Steers a program that runs.
#[tonic::async_trait]
pub trait ExecControl: Send + Sync + 'static {
    /// Resizes its terminal.
    ///
    /// # Errors
    /// See [`ExecError`].
    async fn resize(&self, size: TerminalSize) -> Result<(), ExecError>;

    /// Sends it a signal; a program that has ended already is no error.
    ///
    /// # Errors
    /// See [`ExecError`].
    async fn signal(&self, signal: i32) -> Result<(), ExecError>;

    /// Waits for its end: exit code, 128 + signal when killed. Cancel-safe,
    /// may be asked again. Once it returned, nothing of the program is left
    /// in containerd.
    ///
    /// # Errors
    /// See [`ExecError`].
    async fn wait(&self) -> Result<i32, ExecError>;
}

/// Runs programs in workloads, as the API needs it.
#[tonic::async_trait]
pub trait ExecRunner: Send + Sync + 'static {
    /// Starts a program. Cancelled or failed, it leaves nothing behind.
    ///
    /// # Errors
    /// See [`ExecError`].
    async fn start(&self, id: &SandboxId, spec: ExecSpec) -> Result<ExecSession, ExecError>;
}

/// Reads what to run, starts it and hands both directions to the pump, which
/// outlives this call until program or client is gone.
pub(super) async fn exec(
    shared: &Shared,
    mut input: Streaming<wire::ExecInput>,
) -> Result<Answers<wire::ExecOutput>, Status> {
    let permit = shared.execs.clone().try_acquire_owned().map_err(|_| too_many("programs", EXECS_MAX))?;
    let (id, spec) = convert::exec_start(first(&mut input).await?).map_err(invalid)?;
    let session = within(async { Ok(shared.parts.execs.start(&id, spec).await?) }).await?;
    let (output_tx, output_rx) = mpsc::channel(OUTPUT_QUEUE);
    let pump = async move {
        pump::run(session, input, output_tx).await;
        drop(permit);
    };
    let span = tracing::info_span!("exec", sandbox = %id);
    shared.parts.tasks.spawn(TaskName::of("exec", id), pump.instrument(span));
    Ok(Box::pin(ReceiverStream::new(output_rx)))
}

async fn first(input: &mut Streaming<wire::ExecInput>) -> Result<wire::ExecStart, Status> {
    let message = tokio::time::timeout(START_MESSAGE_TIMEOUT, input.message()).await.map_err(|_| {
        status(Code::DeadlineExceeded, "timeout", "the first input, `start`, did not come within 10 s")
    })??;
    match message.and_then(|message| message.input) {
        Some(wire::exec_input::Input::Start(start)) => Ok(start),
        _ => Err(status(Code::InvalidArgument, "invalid-request", "the first input must be `start`")),
    }
}
