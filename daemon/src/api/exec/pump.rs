//! Both directions of a program under way.
//!
//! Back-pressure goes all the way: output is read from the program only when
//! the client has room for it, input is taken from the client only when the
//! program reads it. The exit code is always the last message. When the
//! client goes away, the program is killed.

use std::time::Duration;

use futures::{Stream, StreamExt};
use roost_proto::node as wire;
use roost_proto::node::exec_input::Input;
use roost_proto::node::exec_output::Output;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::super::convert;
use super::super::status::{invalid, status};
use super::{ExecControl, ExecError, ExecReader, ExecSession, ExecWriter};

/// Largest piece of output in one message: half of a pipe's buffer.
const CHUNK_BYTES: usize = 32 << 10;
/// Pieces of input that wait for the program. A signal or a resize behind
/// them still gets through.
const STDIN_QUEUE: usize = 4;
/// After the program's end, silence that counts as the end of its output: a
/// process that it left behind may hold the pipe open for ever.
const LINGER: Duration = Duration::from_millis(250);
/// Time for a killed program to be reaped.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where answers go.
type OutputSender = mpsc::Sender<Result<wire::ExecOutput, Status>>;

/// How a program's call ended.
enum End {
    Exited(Result<i32, ExecError>),
    /// The client sent something that cannot be done.
    Refused(Status),
    ClientGone,
}

/// Pumps until the program has ended and its output is sent, or the client is
/// gone.
pub(super) async fn run<I>(session: ExecSession, input: I, output: OutputSender)
where
    I: Stream<Item = Result<wire::ExecInput, Status>> + Unpin,
{
    let ExecSession { stdin, stdout, stderr, control } = session;
    let control = &*control;
    let end = tokio::select! {
        // All arms may be dropped: whichever wins ends the call, and `wait`
        // may be asked again.
        exit = drain(control, stdout, stderr, &output) => End::Exited(exit),
        refused = feed(control, stdin, input) => End::Refused(refused),
        () = output.closed() => End::ClientGone,
    };
    let last = match end {
        End::Exited(Ok(code)) => Ok(message(Output::ExitCode(code))),
        End::Exited(Err(error)) => Err(error.into()),
        End::Refused(refused) => {
            kill(control).await;
            Err(refused)
        }
        End::ClientGone => return kill(control).await,
    };
    if output.send(last).await.is_err() {
        tracing::debug!("client left before the exit code");
    }
}

fn message(output: Output) -> wire::ExecOutput {
    wire::ExecOutput { output: Some(output) }
}

/// Sends all output and returns the exit code.
async fn drain(
    control: &dyn ExecControl,
    stdout: ExecReader,
    stderr: Option<ExecReader>,
    output: &OutputSender,
) -> Result<i32, ExecError> {
    let exited = CancellationToken::new();
    let stderr = async {
        if let Some(stderr) = stderr {
            copy_out(stderr, Output::Stderr, output, &exited).await;
        }
    };
    let wait = async {
        let exit = control.wait().await;
        exited.cancel();
        exit
    };
    let ((), (), exit) = tokio::join!(copy_out(stdout, Output::Stdout, output, &exited), stderr, wait);
    exit
}

async fn copy_out(mut from: ExecReader, wrap: fn(Vec<u8>) -> Output, to: &OutputSender, exited: &CancellationToken) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            // What is there already goes before the end.
            biased;
            // Cancel-safe: a read that did not complete has taken nothing.
            read = from.read(&mut buffer) => read,
            // Cancel-safe: begins anew with each piece, so only silence counts.
            () = silence_after(exited) => return,
        };
        let bytes = match read {
            Ok(0) => return,
            Ok(bytes) => bytes,
            Err(error) => return tracing::warn!(%error, "output of a program cannot be read"),
        };
        if to.send(Ok(message(wrap(buffer[..bytes].to_vec())))).await.is_err() {
            return;
        }
    }
}

async fn silence_after(exited: &CancellationToken) {
    exited.cancelled().await;
    tokio::time::sleep(LINGER).await;
}

/// Hands the client's input on; returns only when the client asks for what
/// cannot be done.
async fn feed<I>(control: &dyn ExecControl, stdin: Option<ExecWriter>, input: I) -> Status
where
    I: Stream<Item = Result<wire::ExecInput, Status>> + Unpin,
{
    let (stdin_tx, stdin_rx) = mpsc::channel(STDIN_QUEUE);
    let stdin_tx = stdin.is_some().then_some(stdin_tx);
    let write = async {
        if let Some(stdin) = stdin {
            write_stdin(stdin, stdin_rx).await;
        }
    };
    let (read, ()) = tokio::join!(read_input(control, input, stdin_tx), write);
    match read {
        Err(refused) => refused,
        // No more input: the program goes on.
        Ok(()) => std::future::pending().await,
    }
}

async fn read_input<I>(
    control: &dyn ExecControl,
    mut input: I,
    stdin: Option<mpsc::Sender<Vec<u8>>>,
) -> Result<(), Status>
where
    I: Stream<Item = Result<wire::ExecInput, Status>> + Unpin,
{
    let has_stdin = stdin.is_some();
    let mut stdin = stdin;
    while let Some(message) = input.next().await {
        match message?.input {
            Some(Input::Stdin(_)) if !has_stdin => return Err(refused("stdin was not opened: set start.stdin")),
            Some(Input::Stdin(bytes)) => {
                // A program that closed its input, or input after its end, is
                // dropped like in a pipeline.
                if let Some(open) = &stdin
                    && open.send(bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            Some(Input::StdinEof(_)) => stdin = None,
            Some(Input::Resize(size)) => control.resize(convert::terminal_size(size).map_err(invalid)?).await?,
            Some(Input::Signal(number)) => control.signal(convert::signal(number).map_err(invalid)?).await?,
            Some(Input::Start(_)) => return Err(refused("`start` came twice: use one call for each program")),
            None => return Err(refused("an input is empty or of a kind that this version does not know")),
        }
    }
    Ok(())
}

fn refused(sentence: &'static str) -> Status {
    status(Code::InvalidArgument, "invalid-request", sentence)
}

async fn write_stdin(mut stdin: ExecWriter, mut pieces: mpsc::Receiver<Vec<u8>>) {
    while let Some(piece) = pieces.recv().await {
        let written = async {
            stdin.write_all(&piece).await?;
            stdin.flush().await
        };
        if let Err(error) = written.await {
            return tracing::debug!(%error, "program closed its input");
        }
    }
    if let Err(error) = stdin.shutdown().await {
        tracing::debug!(%error, "program closed its input");
    }
}

/// Ends a program whose client is gone; leaves it to the sandbox's own end
/// if even that fails.
async fn kill(control: &dyn ExecControl) {
    let end = async {
        control.signal(nix::libc::SIGKILL).await?;
        control.wait().await
    };
    match tokio::time::timeout(KILL_TIMEOUT, end).await {
        Ok(Ok(_)) => tracing::debug!("program killed: its client is gone"),
        Ok(Err(error)) => tracing::warn!(error = super::super::status::chain(&error), "program cannot be killed"),
        Err(_) => tracing::warn!("killed program did not end in time"),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::sync::watch;

    use super::super::super::exec::TerminalSize;
    use super::*;

    /// Endless output that counts what is taken of it.
    struct Endless(Arc<AtomicUsize>);

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
            let room = buf.remaining();
            buf.put_slice(&vec![7; room]);
            self.0.fetch_add(room, Ordering::Relaxed);
            Poll::Ready(Ok(()))
        }
    }

    /// A program that ends when it is killed.
    struct Program {
        killed_with: AtomicI32,
        exit: watch::Sender<Option<i32>>,
    }

    #[tonic::async_trait]
    impl ExecControl for Program {
        async fn resize(&self, _: TerminalSize) -> Result<(), ExecError> {
            Ok(())
        }

        async fn signal(&self, signal: i32) -> Result<(), ExecError> {
            self.killed_with.store(signal, Ordering::Relaxed);
            self.exit.send_replace(Some(128 + signal));
            Ok(())
        }

        async fn wait(&self) -> Result<i32, ExecError> {
            let mut exit = self.exit.subscribe();
            let code = exit.wait_for(Option::is_some).await.ok().and_then(|code| *code);
            Ok(code.unwrap_or(-1))
        }
    }

    /// A pump of endless output, idle since its client reads nothing.
    async fn blocked() -> (Arc<AtomicUsize>, Arc<Program>, mpsc::Receiver<Result<wire::ExecOutput, Status>>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let program = Arc::new(Program { killed_with: AtomicI32::new(0), exit: watch::Sender::new(None) });
        let session = ExecSession {
            stdin: None,
            stdout: Box::new(Endless(taken.clone())),
            stderr: None,
            control: program.clone(),
        };
        let (output, output_rx) = mpsc::channel(8);
        tokio::spawn(run(session, futures::stream::pending(), output));
        // The clock of a paused runtime moves only when everything is idle.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (taken, program, output_rx)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_stops_the_program_at_a_bound() {
        let (taken, _, mut output) = blocked().await;
        let bound = taken.load(Ordering::Relaxed);
        assert_eq!(bound, 9 * CHUNK_BYTES, "the queue and the piece in hand");
        output.recv().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(taken.load(Ordering::Relaxed), bound + CHUNK_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_program_is_killed_when_its_client_leaves() {
        let (_, program, output) = blocked().await;
        drop(output);
        assert_eq!(program.wait().await.unwrap(), 128 + nix::libc::SIGKILL);
    }
}
