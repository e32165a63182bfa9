//! `roost sandbox exec`: a program inside, with this terminal.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use roost_proto::model::Problem;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use super::App;
use crate::cli::ExecArgs;
use crate::client::{Call, ClientError, Socket};
use crate::error::{CliError, Exit};
use crate::output::OutputError;
use crate::terminal::{self, RawMode};

/// The protocol of the stream, as Kubernetes names it.
const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Followed by the number of the channel that ends.
const CLOSE: u8 = 255;
/// Bytes of standard input sent at once.
const CHUNK_BYTES: usize = 32 << 10;

/// The last message: how the program ended, or why it could not run.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Status {
    Exited { exit_code: i32 },
    Problem(Box<Problem>),
}

/// Runs a program and ends with its exit code.
///
/// # Errors
/// The program could not be run, or the connection broke.
pub(super) async fn run(app: &App, args: ExecArgs) -> Result<ExitCode, CliError> {
    let is_terminal = io::stdin().is_terminal();
    if args.tty && args.stdin && !is_terminal {
        return Err(CliError::usage("-t needs a terminal, and standard input is none", "leave -t out in scripts"));
    }
    let socket = app.client()?.socket(call(&args), PROTOCOL).await?;
    // Held until every stream is done: dropping it gives the terminal back,
    // also when a signal or an error ends the loop.
    let raw = if args.tty && args.stdin { Some(RawMode::enter().map_err(stdin_error)?) } else { None };
    let outcome = talk(socket, &args).await;
    drop(raw);
    outcome
}

fn stdin_error(source: io::Error) -> CliError {
    CliError::File { operation: "use", path: "standard input".into(), source }
}

fn call(args: &ExecArgs) -> Call {
    let mut call = Call::get(format!("/sandboxes/{}/exec", args.sandbox));
    for word in &args.command {
        call = call.query("command", word);
    }
    call = call
        .query("tty", args.tty.to_string())
        .query("stdin", args.stdin.to_string())
        .query_option("working_dir", args.workdir.as_deref());
    match terminal::size().filter(|_| args.tty) {
        Some((columns, rows)) => call.query("columns", columns.to_string()).query("rows", rows.to_string()),
        None => call,
    }
}

/// Passes everything on until the program ends. Output has its own loop beside
/// the input's, so that neither waits for the other.
async fn talk(socket: Socket, args: &ExecArgs) -> Result<ExitCode, CliError> {
    let (mut sink, mut stream) = socket.split();
    let hangup = wait_for_signal(args.tty);
    // Whichever ends first ends the command; what the others were doing is
    // given up with the connection.
    tokio::select! {
        ended = receive(&mut stream) => ended,
        failed = send(&mut sink, args) => failed.map(|never| match never {}),
        code = hangup => code,
    }
}

/// Ends with `128 + signal` when this command is told to.
async fn wait_for_signal(is_raw: bool) -> Result<ExitCode, CliError> {
    let listen = |kind| signal(kind).map_err(stdin_error);
    let (mut hangup, mut terminate) = (listen(SignalKind::hangup())?, listen(SignalKind::terminate())?);
    let mut interrupt = listen(SignalKind::interrupt())?;
    // Each `recv` may be dropped: no signal is lost, as any of them ends this.
    let code = tokio::select! {
        _ = hangup.recv() => 129,
        _ = terminate.recv() => 143,
        // In raw mode Ctrl-C is a key like any other and reaches the program.
        _ = interrupt.recv(), if !is_raw => 130,
    };
    Ok(ExitCode::from(code))
}

/// Writes output until the program's status arrives.
async fn receive(stream: &mut SplitStream<Socket>) -> Result<ExitCode, CliError> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(broken(error.into())),
            None => return Err(broken("it ended before the program did".into())),
        };
        let Message::Binary(frame) = message else { continue };
        match frame.split_first() {
            Some((&STDOUT, data)) => write(&mut stdout, data).await?,
            Some((&STDERR, data)) => write(&mut stderr, data).await?,
            Some((&STATUS, data)) => return status(data),
            // Later servers may have more channels.
            _ => {}
        }
    }
}

async fn write(out: &mut (impl tokio::io::AsyncWrite + Unpin), data: &[u8]) -> Result<(), CliError> {
    let written = async {
        out.write_all(data).await?;
        out.flush().await
    };
    Ok(written.await.map_err(OutputError::Write)?)
}

fn status(data: &[u8]) -> Result<ExitCode, CliError> {
    let parsed = serde_json::from_slice(data);
    let unreadable = |source| ClientError::Unreadable { what: "the program's exit status".into(), source };
    match parsed.map_err(unreadable)? {
        // A process' exit code has eight bits.
        Status::Exited { exit_code } => Ok(ExitCode::from(u8::try_from(exit_code & 0xff).unwrap_or(Exit::Error as u8))),
        Status::Problem(problem) => Err(ClientError::Problem { problem, token_origin: String::new() }.into()),
    }
}

fn broken(source: Box<dyn std::error::Error + Send + Sync>) -> CliError {
    ClientError::Broken { what: "the program's run".into(), source }.into()
}

/// Sends input and sizes, for as long as the program runs.
async fn send(sink: &mut SplitSink<Socket, Message>, args: &ExecArgs) -> Result<std::convert::Infallible, CliError> {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut resized = signal(SignalKind::window_change()).map_err(stdin_error)?;
    let mut is_open = args.stdin;
    if !args.stdin {
        post(sink, CLOSE, &[STDIN]).await;
    }
    loop {
        // Both may be dropped: a read that did not happen took nothing, and a
        // missed signal is followed by reading the size anyway.
        tokio::select! {
            count = stdin.read(&mut buffer), if is_open => match count.map_err(stdin_error)? {
                0 => {
                    is_open = false;
                    post(sink, CLOSE, &[STDIN]).await;
                }
                count => post(sink, STDIN, buffer.get(..count).unwrap_or_default()).await,
            },
            _ = resized.recv(), if args.tty => {
                if let Some((columns, rows)) = terminal::size() {
                    let size = format!("{{\"columns\":{columns},\"rows\":{rows}}}");
                    post(sink, RESIZE, size.as_bytes()).await;
                }
            }
            // Neither input nor terminal is left: only the output goes on.
            () = std::future::pending(), if !is_open && !args.tty => {}
        }
    }
}

async fn post(sink: &mut SplitSink<Socket, Message>, channel: u8, data: &[u8]) {
    let mut frame = Vec::with_capacity(data.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(data);
    if sink.send(Message::Binary(frame.into())).await.is_err() {
        // The program may have ended meanwhile, with its status on the way:
        // whoever receives says what this means.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_exit_code_or_a_problem() {
        assert_eq!(status(br#"{"exit_code":7}"#).unwrap(), ExitCode::from(7));
        assert_eq!(status(br#"{"exit_code":137}"#).unwrap(), ExitCode::from(137));
        let problem = br#"{"type":"/problems/exec","title":"t","status":404,"code":"exec","detail":"no such program"}"#;
        assert_eq!(status(problem).unwrap_err().to_string(), "no such program");
        assert!(status(b"{}").is_err());
    }
}
