//! Programs inside a sandbox over a WebSocket, subprotocol `v5.channel.k8s.io`.
//!
//! Every message is binary; its first byte is the channel: 0 stdin, 1 stdout,
//! 2 stderr, 3 the final status (`{"exit_code":N}` or a problem document),
//! 4 resize (`{"columns":N,"rows":N}`), 255 and a channel byte closes that
//! channel (stdin: end of file).

use std::time::Duration;

use axum::extract::Path;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use roost_proto::model::{Problem, Sandbox};
use roost_proto::node::{ExecInput, TerminalSize, exec_input, exec_output::Output};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::extract::{Caller, Query};
use super::problem::ApiError;
use crate::app::{ExecRequest, Scope};

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Largest message of a client: a terminal or a pipe sends far less at once.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// Inputs that wait for the program to read: with the largest message 16 MiB.
const INPUT_DEPTH: usize = 16;
/// Pings keep proxies from closing a silent terminal.
const PING_PERIOD: Duration = Duration::from_secs(30);

/// Runs a program; the answer is a WebSocket.
#[utoipa::path(get, path = "/api/v1/sandboxes/{sandbox}/exec", tag = "sandboxes",
    params(("sandbox" = String, Path, description = "Id or name"),
        ("command" = Vec<String>, Query, description = "Program and arguments, one parameter each"),
        ("tty" = Option<bool>, Query, description = "Whether the program gets a terminal"),
        ("stdin" = Option<bool>, Query, description = "Whether its standard input stays open"),
        ("working_dir" = Option<String>, Query, description = "Absolute path; absent = the workload's own"),
        ("columns" = Option<u32>, Query, description = "Width of the terminal in characters"),
        ("rows" = Option<u32>, Query, description = "Height of the terminal in characters")),
    responses((status = 101, description = "WebSocket, subprotocol v5.channel.k8s.io"),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn exec(
    Caller(scope): Caller,
    Path(name): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let request = read_query(pairs)?;
    let sandbox = scope.exec_target(&name).await?;
    let upgrade =
        upgrade.map_err(|error| ApiError::field("Upgrade", format!("this path needs a WebSocket: {error}")))?;
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(MESSAGE_MAX_BYTES);
    Ok(upgrade.on_upgrade(move |socket| run(scope, sandbox, request, socket)))
}

fn read_query(pairs: Vec<(String, String)>) -> Result<ExecRequest, ApiError> {
    let mut request = ExecRequest { command: Vec::new(), tty: false, stdin: false, working_dir: None, size: None };
    let mut size = TerminalSize { columns: 80, rows: 24 };
    for (name, value) in pairs {
        match name.as_str() {
            "command" => request.command.push(value),
            "tty" => request.tty = read(&name, &value, "true or false")?,
            "stdin" => request.stdin = read(&name, &value, "true or false")?,
            "working_dir" => request.working_dir = Some(value),
            "columns" => size.columns = read(&name, &value, "a number")?,
            "rows" => size.rows = read(&name, &value, "a number")?,
            _ => {
                let known = "use command, tty, stdin, working_dir, columns, rows";
                return Err(ApiError::field(name, format!("is not known here: {known}")));
            }
        }
    }
    if request.command.first().is_none_or(String::is_empty) {
        return Err(ApiError::field("command", "must name a program, e.g. ?command=/bin/ls&command=-l"));
    }
    request.size = request.tty.then_some(size);
    Ok(request)
}

fn read<T: std::str::FromStr>(name: &str, value: &str, wanted: &str) -> Result<T, ApiError> {
    value.parse().map_err(|_| ApiError::field(name, format!("\"{value}\" must be {wanted}")))
}

/// Runs the program until it ends or the client goes.
async fn run(scope: Scope, sandbox: Sandbox, request: ExecRequest, socket: WebSocket) {
    let (mut to_client, from_client) = socket.split();
    let (input_tx, input_rx) = mpsc::channel(INPUT_DEPTH);
    // Dropping either side ends the program's stream on the node.
    let status = tokio::select! {
        status = drive(&scope, &sandbox, request, input_rx, &mut to_client) => status,
        fault = feed(from_client, input_tx) => match fault {
            Some(fault) => problem(fault),
            None => return,
        },
    };
    if let Some(status) = status {
        // Both fail only when the client is gone.
        drop(to_client.send(framed(STATUS, status.as_bytes())).await);
    }
    drop(to_client.send(Message::Close(None)).await);
}

fn framed(channel: u8, data: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(data.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(data);
    Message::Binary(frame.into())
}

fn problem(error: ApiError) -> Option<String> {
    serde_json::to_string(&error.into_problem()).ok()
}

/// Forwards output; the final status, or none when the client is gone.
async fn drive(
    scope: &Scope,
    sandbox: &Sandbox,
    request: ExecRequest,
    input_rx: mpsc::Receiver<ExecInput>,
    to_client: &mut SplitSink<WebSocket, Message>,
) -> Option<String> {
    let mut output = match scope.exec(sandbox, request, input_rx).await {
        Ok(output) => output,
        Err(error) => return problem(error.into()),
    };
    let mut pings = tokio::time::interval(PING_PERIOD);
    let ending = scope.ending();
    loop {
        // Cancel-safe: a message, a tick and a token are taken whole or not.
        let message = tokio::select! {
            message = output.message() => message,
            _ = pings.tick() => {
                to_client.send(Message::Ping(Bytes::new())).await.ok()?;
                continue;
            }
            () = ending.cancelled() => Err(tonic::Status::unavailable("central shuts down")),
        };
        let frame = match message {
            Ok(Some(message)) => match message.output {
                Some(Output::Stdout(data)) => framed(STDOUT, &data),
                Some(Output::Stderr(data)) => framed(STDERR, &data),
                Some(Output::ExitCode(code)) => return Some(format!("{{\"exit_code\":{code}}}")),
                None => continue,
            },
            Ok(None) => {
                return problem(
                    scope
                        .node_failed(
                            sandbox,
                            tonic::Status::data_loss("the program's stream ended without an exit code"),
                        )
                        .into(),
                );
            }
            Err(status) => return problem(scope.node_failed(sandbox, status).into()),
        };
        to_client.send(frame).await.ok()?;
    }
}

/// Forwards input until the client goes; what it did wrong, if it did.
async fn feed(mut from_client: SplitStream<WebSocket>, input_tx: mpsc::Sender<ExecInput>) -> Option<ApiError> {
    while let Some(Ok(message)) = from_client.next().await {
        let input = match message {
            Message::Binary(frame) => match read_frame(&frame) {
                Ok(input) => input,
                Err(error) => return Some(error),
            },
            Message::Text(_) => {
                return Some(ApiError::malformed_body("send binary messages that begin with a channel byte"));
            }
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return None,
        };
        if input_tx.send(ExecInput { input: Some(input) }).await.is_err() {
            // The program has ended; its status is on the way.
            return std::future::pending().await;
        }
    }
    None
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    columns: u32,
    rows: u32,
}

fn read_frame(frame: &[u8]) -> Result<exec_input::Input, ApiError> {
    match frame {
        [STDIN, data @ ..] => Ok(exec_input::Input::Stdin(data.to_vec())),
        [CLOSE, STDIN] => Ok(exec_input::Input::StdinEof(true)),
        [RESIZE, json @ ..] => {
            let Resize { columns, rows } = serde_json::from_slice(json).map_err(|error| {
                ApiError::malformed_body(format!("channel 4 wants {{\"columns\":N,\"rows\":N}}: {error}"))
            })?;
            Ok(exec_input::Input::Resize(TerminalSize { columns, rows }))
        }
        _ => Err(ApiError::malformed_body(
            "a message must begin with channel 0 (stdin), 4 (resize) or 255 0 (end of stdin)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
        query.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn repeated_commands_are_one_command_line() {
        let request =
            read_query(pairs(&[("command", "ls"), ("command", "-l"), ("tty", "true"), ("rows", "9")])).unwrap();
        assert_eq!(request.command, ["ls", "-l"]);
        assert_eq!(request.size, Some(TerminalSize { columns: 80, rows: 9 }));
    }

    #[test]
    fn a_query_without_program_or_with_an_unknown_name_is_refused() {
        for bad in [vec![], vec![("command", "")], vec![("command", "ls"), ("user", "root")], vec![("tty", "maybe")]] {
            assert!(read_query(pairs(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn frames_are_read_strictly() {
        assert_eq!(read_frame(b"\x00hi").unwrap(), exec_input::Input::Stdin(b"hi".to_vec()));
        assert_eq!(read_frame(b"\xff\x00").unwrap(), exec_input::Input::StdinEof(true));
        let resize = exec_input::Input::Resize(TerminalSize { columns: 3, rows: 4 });
        assert_eq!(read_frame(b"\x04{\"columns\":3,\"rows\":4}").unwrap(), resize);
        for bad in [&b""[..], b"\x01x", b"\xff\x01", b"\x04{}", b"\xff"] {
            assert!(read_frame(bad).is_err(), "{bad:?}");
        }
    }
}
