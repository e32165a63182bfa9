//! Watch, logs and exec.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Change, Recorded, Shared};
use crate::server::{Reply, body, problem};

fn event(change: &Change) -> String {
    format!("event: {}\nid: {}\ndata: {}\n\n", change.kind, change.number, change.data)
}

/// Resumes after `Last-Event-ID`; breaks after one event when told to.
pub(super) fn watch(shared: &Arc<Shared>, request: &Recorded) -> Reply {
    let mut changes = shared.changes.subscribe();
    let only = request.param("sandbox").map(ToOwned::to_owned);
    let mut state = shared.state();
    let is_broken = state.broken_watches > 0;
    state.broken_watches = state.broken_watches.saturating_sub(1);
    let after: u64 = request.header("last-event-id").map_or(u64::MAX, |id| id.parse().unwrap());
    let missed: Vec<_> = state.changes.iter().filter(|change| change.number > after).cloned().collect();
    drop(state);
    let (mut sender, receiver) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(16);
    tokio::spawn(async move {
        let mut missed = missed.into_iter();
        loop {
            let change = match missed.next() {
                Some(change) => change,
                None => match changes.recv().await {
                    Ok(change) => change,
                    Err(_) => return,
                },
            };
            if only.as_ref().is_some_and(|only| *only != change.sandbox_id) {
                continue;
            }
            if sender.send(Ok(Frame::data(event(&change).into()))).await.is_err() || is_broken {
                return;
            }
        }
    });
    let body = StreamBody::new(receiver).boxed_unsync();
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

pub(super) fn logs(request: &Recorded) -> Reply {
    let source = request.param("source").unwrap();
    let tail = request.param("tail").unwrap_or("all");
    let text = format!("{source} tail={tail} follow={}\n", request.param("follow").unwrap());
    Response::builder().header("content-type", "text/plain").body(body(text)).unwrap()
}

/// Switches to WebSocket and plays a few programs.
pub(super) fn exec(shared: &Shared, mut request: Request<Incoming>, recorded: &Recorded) -> Reply {
    let name = recorded.path.split('/').nth(2).unwrap_or_default();
    if shared.state().find(name).is_none() {
        return problem(404, "sandbox-not-found", &format!("there is no sandbox \"{name}\""), &[]);
    }
    let accept = derive_accept_key(recorded.header("sec-websocket-key").unwrap().as_bytes());
    let command: Vec<_> =
        recorded.query.iter().filter(|(name, _)| name == "command").map(|(_, word)| word.clone()).collect();
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        program(socket, &command).await;
    });
    Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .header("sec-websocket-protocol", recorded.header("sec-websocket-protocol").unwrap())
        .body(body(""))
        .unwrap()
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn program(mut socket: Socket, command: &[String]) {
    match command.first().map(String::as_str) {
        Some("echo") => frame(&mut socket, 1, format!("{}\n", command[1..].join(" ")).as_bytes()).await,
        Some("warn") => frame(&mut socket, 2, b"careful\n").await,
        Some("cat") => copy_input(&mut socket).await,
        Some("break") => return,
        Some("missing") => {
            let problem = br#"{"type":"/problems/exec","title":"t","status":404,"code":"program-not-found",
                "detail":"there is no program \"missing\" in the image"}"#;
            return frame(&mut socket, 3, problem).await;
        }
        _ => {}
    }
    let code: i32 = command.iter().find_map(|word| word.strip_prefix("exit=")?.parse().ok()).unwrap_or(0);
    frame(&mut socket, 3, format!("{{\"exit_code\":{code}}}").as_bytes()).await;
    // What the client still sends is read: closing over it would reset the
    // connection and take the status with it.
    while let Some(Ok(_)) = socket.next().await {}
}

async fn copy_input(socket: &mut Socket) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(data) = message else { continue };
        match data.split_first() {
            Some((0, input)) => frame(socket, 1, input).await,
            Some((255, [0])) => return,
            _ => {}
        }
    }
}

async fn frame(socket: &mut Socket, channel: u8, data: &[u8]) {
    let mut bytes = vec![channel];
    bytes.extend_from_slice(data);
    socket.send(Message::Binary(bytes.into())).await.unwrap();
}
