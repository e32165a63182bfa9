//! What goes through a node's tunnel: screenshot, logs, exec, images.

use futures::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::Method;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{Central, PLAIN, open, soon};
use crate::node::Node;
use crate::node_api::FakeNode;

/// A central with one node that serves tunnels, and one sandbox there.
pub(crate) async fn with_tunnels(extra: &str) -> (Central, Node, FakeNode, String) {
    let central = Central::start_with(extra).await;
    let (node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await.json();
    session.desired().await;
    let api = session.api.clone();
    tokio::spawn(session.serve_tunnels());
    (central, node, api, made["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_screenshot_comes_through_the_tunnel_whole() {
    let (central, _, _, id) = with_tunnels(PLAIN).await;
    for _ in 0..3 {
        let shot = central.get("/sandboxes/box/screenshot").await;
        assert_eq!((shot.status.as_u16(), shot.header("content-type")), (200, "image/png"));
        assert_eq!(shot.body.len(), 9 << 20);
        assert!(shot.body.starts_with(id.as_bytes()));
    }
}

#[tokio::test]
async fn a_node_without_session_is_said_to_be_offline() {
    let central = Central::start().await;
    let (_node, session) = Node::ready(&central, "n1", 4).await;
    central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    drop(session);
    soon("node-offline", async {
        while central.get("/sandboxes/box/screenshot").await.json()["code"] != "node-offline" {}
    })
    .await;
    central.get("/sandboxes/nobody/screenshot").await.assert_problem(404, "sandbox-not-found");
}

#[tokio::test]
async fn a_broken_tunnel_is_replaced_by_the_next_call() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    session.desired().await;
    tokio::spawn(session.serve_tunnels_but(1));
    central.get("/sandboxes/box/screenshot").await.assert_problem(503, "node-offline");
    assert_eq!(central.get("/sandboxes/box/screenshot").await.status, 200);
}

#[tokio::test]
async fn a_node_that_opens_no_tunnel_is_given_up_with_its_name() {
    let central = Central::start().await;
    let (node, _deaf) = Node::ready(&central, "n1", 4).await;
    central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    let problem = central.get("/sandboxes/box/screenshot").await.assert_problem(503, "node-offline");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&node.id) && detail.contains("did not open a tunnel"), "{detail}");
}

#[tokio::test]
async fn logs_carry_the_wish_and_follow_until_the_client_goes() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    let logs = central.get("/sandboxes/box/logs?source=display&tail=5").await;
    assert_eq!(logs.text(), "source 2 follow false tail Some(5)\n");
    let follow = central.request(Method::GET, "/sandboxes/box/logs?follow=true").body(Full::default()).unwrap();
    let mut body = open(central.ends.api, follow).await.into_body();
    let first = soon("a chunk", http_body_util::BodyExt::frame(&mut body)).await.unwrap().unwrap();
    assert_eq!(&first.data_ref().unwrap()[..], b"source 1 follow true tail None\n");
    central.get("/sandboxes/box/logs?source=kernel").await.assert_problem(422, "invalid-field");
    central.get("/sandboxes/box/logs?since=1").await.assert_problem(422, "invalid-field");
}

#[tokio::test]
async fn a_follower_is_not_told_that_all_is_said_when_central_leaves() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    let follow = central.request(Method::GET, "/sandboxes/box/logs?follow=true").body(Full::default()).unwrap();
    let mut body = open(central.ends.api, follow).await.into_body();
    soon("a chunk", http_body_util::BodyExt::frame(&mut body)).await.unwrap().unwrap();
    assert!(central.stop().await);
    let end = soon("the end", http_body_util::BodyExt::frame(&mut body)).await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn exec(central: &Central, query: &str) -> Socket {
    let mut request =
        format!("ws://{}/api/v1/sandboxes/box/exec?{query}", central.ends.api).into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {}", central.token).parse().unwrap());
    headers.insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
    let stream = tokio::net::TcpStream::connect(central.ends.api).await.unwrap();
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    socket
}

/// The next frame: its channel and its data.
async fn frame(socket: &mut Socket) -> (u8, Vec<u8>) {
    loop {
        match soon("a frame", socket.next()).await.unwrap().unwrap() {
            Message::Binary(data) => return (data[0], data[1..].to_vec()),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

async fn say(socket: &mut Socket, frame: &[u8]) {
    socket.send(Message::Binary(frame.to_vec().into())).await.unwrap();
}

#[tokio::test]
async fn a_program_gets_its_input_and_its_output_and_status_come_back() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    let mut socket = exec(&central, "command=cat&command=-u&tty=true&stdin=true&columns=90&rows=30").await;
    assert_eq!(frame(&mut socket).await, (2, b"[\"cat\", \"-u\"] tty=true".to_vec()));
    say(&mut socket, b"\x00hello").await;
    assert_eq!(frame(&mut socket).await, (1, b"hello".to_vec()));
    say(&mut socket, b"\x04{\"columns\":10,\"rows\":20}").await;
    assert_eq!(frame(&mut socket).await, (2, b"10x20".to_vec()));
    say(&mut socket, b"\xff\x00").await;
    assert_eq!(frame(&mut socket).await, (3, b"{\"exit_code\":5}".to_vec()));
    assert!(matches!(soon("the close", socket.next()).await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn a_refused_program_and_a_wrong_frame_end_with_a_problem() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    let mut socket = exec(&central, "command=refuse").await;
    let (channel, problem) = frame(&mut socket).await;
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!((channel, &problem["code"]), (3, &"sandbox-not-ready".into()));
    assert!(problem["detail"].as_str().unwrap().contains("start it first"), "{problem}");

    let mut socket = exec(&central, "command=cat").await;
    frame(&mut socket).await;
    say(&mut socket, b"\x09").await;
    let (channel, problem) = frame(&mut socket).await;
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!((channel, &problem["code"]), (3, &"malformed-body".into()));
    central.get("/sandboxes/box/exec?command=ls").await.assert_problem(422, "invalid-field");
    central.get("/sandboxes/box/exec").await.assert_problem(422, "invalid-field");
}

async fn import(central: &Central, node: &str, query: &str, size: usize) -> crate::harness::Answer {
    let request = central.request(Method::POST, &format!("/nodes/{node}/images{query}"));
    central.send(request.body(Full::new(vec![5; size].into())).unwrap()).await
}

fn lines(answer: &crate::harness::Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_imported_image_can_be_used_at_once_and_removed_again() {
    let (central, node, api, _) = with_tunnels(PLAIN).await;
    let template = r#"{"name":"new","image":"team/new:1","profile":"small"}"#;
    assert_eq!(central.put("/templates/new", template).await.status, 201);
    let missing = central.post("/sandboxes", r#"{"template":"new"}"#).await.assert_problem(409, "image-not-found");
    assert!(missing["detail"].as_str().unwrap().contains("roost image import"), "{missing}");

    let answer = import(&central, &node.id, "?reference=team/new:1", 5 << 20).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/x-ndjson"));
    let lines = lines(&answer);
    assert_eq!(lines[0]["step"]["done_bytes"], 5 << 20);
    assert_eq!(lines[1]["done"]["reference"], "team/new:1");
    assert_eq!(central.post("/sandboxes", r#"{"template":"new"}"#).await.status, 201);
    let listed = central.get("/images").await.json();
    assert_eq!(listed["items"][1]["reference"], "team/new:1");
    assert_eq!(listed["items"][1]["nodes"][0], node.id.as_str());

    let path = format!("/nodes/{}/images?reference=team/new:1", node.id);
    assert_eq!(central.delete(&path).await.status, 204);
    assert_eq!(*api.removed.lock().unwrap(), ["team/new:1"]);
    central.delete(&path).await.assert_problem(404, "image-not-found");
}

#[tokio::test]
async fn an_archive_that_the_node_refuses_or_that_is_too_large_ends_with_a_problem() {
    let (central, node, _, _) = with_tunnels(&PLAIN.replace("[api]", "[api]\nimage_max_bytes = 100000")).await;
    let refused = import(&central, &node.id, "", 10).await;
    let last = lines(&refused).pop().unwrap();
    assert_eq!(last["problem"]["code"], "invalid-field", "{last}");
    assert!(last["problem"].to_string().contains("not a tar"), "{last}");
    import(&central, &node.id, "", 100_001).await.assert_problem(413, "body-too-large");
    import(&central, &node.id, "?reference=A", 10).await.assert_problem(422, "invalid-field");
    let nobody = "node-0000000000000000";
    import(&central, nobody, "", 10).await.assert_problem(404, "node-not-found");
}
