//! New requests and limits, from REST and gRPC to the node and back.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use roost_proto::model::Phase;

use crate::harness::{Answer, Central};
use crate::node::{Node, seen};

async fn patch(central: &Central, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let request = central.request(Method::PATCH, path).header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    central.send(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()).await
}

#[tokio::test]
async fn new_limits_reach_the_node_beside_the_spec_and_come_back_as_in_force() {
    let central = Central::start().await;
    let (node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("etag"), "\"1\"");
    let first = session.desired().await.sandboxes.remove(0);
    assert!(first.resources.is_none());

    let body = r#"{"resources":{"pids_limit":300,"cpu_request_millis":250}}"#;
    let set = patch(&central, "/sandboxes/box", &[("if-match", "\"1\"")], body).await;
    assert_eq!(set.status, 202, "{}", set.text());
    assert_eq!(set.header("etag"), "\"2\"");
    assert_eq!(set.json()["resources"]["pids_limit"], 300);
    let wish = session.desired().await.sandboxes.remove(0);
    assert_eq!((wish.generation, wish.spec.clone()), (2, first.spec), "the spec is as it was");
    assert_eq!(wish.resources.as_ref().map(|r| r.pids_limit), Some(300));
    let shown = central.get(&format!("/nodes/{}", node.id)).await.json();
    assert_eq!(shown["cpu_requested_millis"], 250);

    let mut observed = seen(&id, Phase::Ready, 3);
    observed.limits = wish.resources;
    assert!(!session.heartbeat(false, None, &[observed]).await);
    let shown = central.get("/sandboxes/box").await;
    assert_eq!(shown.header("etag"), "\"2\"");
    assert_eq!(shown.json()["observed"]["limits"]["pids_limit"], 300);
}

#[tokio::test]
async fn a_change_that_cannot_be_is_refused_with_the_field() {
    let central = Central::start().await;
    let (_node, _session) = Node::ready(&central, "n1", 4).await;
    central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    let refused = async |headers: &[(&str, &str)], body: &str, status, code| {
        let problem = patch(&central, "/sandboxes/box", headers, body).await.assert_problem(status, code);
        problem["errors"][0]["field"].as_str().unwrap_or_default().to_owned()
    };
    let small = r#"{"resources":{"memory_limit_bytes":1}}"#;
    assert_eq!(refused(&[], small, 422, "invalid-field").await, "resources.memory_limit_bytes");
    assert_eq!(refused(&[], r#"{"resources":{}}"#, 422, "invalid-field").await, "resources");
    assert_eq!(refused(&[], r#"{"resources":{"gpus":1}}"#, 422, "invalid-field").await, "resources.gpus");
    assert_eq!(refused(&[], r#"{"image":"x"}"#, 422, "invalid-field").await, "image", "nothing else can change");
    let pids = r#"{"resources":{"pids_limit":300}}"#;
    assert_eq!(refused(&[("if-match", "3")], pids, 422, "invalid-field").await, "If-Match");
    refused(&[("if-match", "\"9\"")], pids, 412, "generation-mismatch").await;
    let huge = r#"{"resources":{"cpu_request_millis":900000}}"#;
    assert_eq!(refused(&[], huge, 409, "nothing-fits").await, "nodes.n1");
    patch(&central, "/sandboxes/nobody", &[], pids).await.assert_problem(404, "sandbox-not-found");
}

#[tokio::test]
async fn a_change_repeated_with_its_key_is_made_once() {
    let central = Central::start().await;
    let (_node, _session) = Node::ready(&central, "n1", 4).await;
    central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    let key = [("idempotency-key", "change-0001")];
    let pids = |n: u32| format!(r#"{{"resources":{{"pids_limit":{n}}}}}"#);
    assert_eq!(patch(&central, "/sandboxes/box", &key, &pids(300)).await.json()["generation"], 2);
    patch(&central, "/sandboxes/box", &[], &pids(400)).await;
    let again = patch(&central, "/sandboxes/box", &key, &pids(300)).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.json()["generation"], 2);
    assert_eq!(central.get("/sandboxes/box").await.json()["resources"]["pids_limit"], 400);
    let other = patch(&central, "/sandboxes/box", &key, &pids(500)).await;
    other.assert_problem(409, "idempotency-conflict");
}
