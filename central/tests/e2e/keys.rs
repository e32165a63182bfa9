//! Idempotency keys on every route that changes something, and on many in one
//! call.

use std::collections::BTreeSet;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use roost_proto::model::Phase;
use serde_json::json;

use crate::harness::{Answer, Central};
use crate::node::{Node, seen};

async fn send(central: &Central, method: &Method, path: &str, key: &str, body: &str) -> Answer {
    let request = central.request(method.clone(), path).header("idempotency-key", key);
    let request = if body.is_empty() { request } else { request.header("content-type", "application/json") };
    central.send(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()).await
}

/// Every route that changes something, as the API describes itself, with two
/// requests to it that are not the same: path, body, path, body.
const ROUTES: [(&str, &str, [&str; 4]); 31] = [
    ("post", "/sandboxes", ["/sandboxes", r#"{"template":"bare"}"#, "/sandboxes", r#"{"template":"bare","name":"x"}"#]),
    (
        "patch",
        "/sandboxes/{sandbox}",
        ["/sandboxes/a", r#"{"lifetime":{"ttl_ms":0}}"#, "/sandboxes/a", r#"{"lifetime":{"ttl_ms":9000}}"#],
    ),
    ("post", "/sandboxes/{sandbox}/start", ["/sandboxes/a/start", "", "/sandboxes/b/start", ""]),
    ("post", "/sandboxes/{sandbox}/pause", ["/sandboxes/a/pause", "", "/sandboxes/b/pause", ""]),
    ("post", "/sandboxes/{sandbox}/resume", ["/sandboxes/a/resume", "", "/sandboxes/a/pause", ""]),
    ("post", "/sandboxes/{sandbox}/restart", ["/sandboxes/a/restart", "", "/sandboxes/b/restart", ""]),
    ("post", "/sandboxes/{sandbox}/stop", ["/sandboxes/a/stop", "", "/sandboxes/a/start", ""]),
    ("delete", "/sandboxes/{sandbox}", ["/sandboxes/c", "", "/sandboxes/d", ""]),
    (
        "post",
        "/sandboxes:batch",
        [
            "/sandboxes:batch",
            r#"{"sandboxes":[{"template":"bare"}]}"#,
            "/sandboxes:batch",
            r#"{"sandboxes":[{"template":"bare","name":"y"}]}"#,
        ],
    ),
    (
        "post",
        "/sandboxes:batch-delete",
        ["/sandboxes:batch-delete", r#"{"sandboxes":["e"]}"#, "/sandboxes:batch-delete", r#"{"sandboxes":["f"]}"#],
    ),
    (
        "put",
        "/profiles/{profile}",
        ["/profiles/p", r#"{"name":"p"}"#, "/profiles/p", r#"{"name":"p","description":"x"}"#],
    ),
    (
        "put",
        "/templates/{template}",
        [
            "/templates/t",
            r#"{"name":"t","image":"roost/desktop:latest","profile":"p"}"#,
            "/templates/t",
            r#"{"name":"t","image":"j","profile":"p"}"#,
        ],
    ),
    (
        "put",
        "/pools/{pool}",
        [
            "/pools/q",
            r#"{"name":"q","template":"t","min_ready":0,"max":1}"#,
            "/pools/q",
            r#"{"name":"q","template":"t","min_ready":1,"max":1}"#,
        ],
    ),
    ("post", "/claims", ["/claims", r#"{"pool":"q","name":"cl"}"#, "/claims", r#"{"pool":"q","name":"cm"}"#]),
    (
        "post",
        "/claims:batch",
        [
            "/claims:batch",
            r#"{"claims":[{"pool":"q","name":"cn"}]}"#,
            "/claims:batch",
            r#"{"claims":[{"pool":"q","name":"co"}]}"#,
        ],
    ),
    ("delete", "/pools/{pool}", ["/pools/q", "", "/pools/r", ""]),
    ("delete", "/templates/{template}", ["/templates/t", "", "/templates/u", ""]),
    ("delete", "/profiles/{profile}", ["/profiles/p", "", "/profiles/o", ""]),
    ("post", "/join-tokens", ["/join-tokens", "{}", "/join-tokens", r#"{"expires_in_s":60}"#]),
    (
        "delete",
        "/join-tokens/{token}",
        ["/join-tokens/join-0123456789abcdef", "", "/join-tokens/join-0123456789abcdee", ""],
    ),
    (
        "post",
        "/nodes/{node}/rotate",
        ["/nodes/node-0123456789abcdef/rotate", "", "/nodes/node-0123456789abcdee/rotate", ""],
    ),
    (
        "post",
        "/nodes/{node}/readmit",
        [
            "/nodes/node-0123456789abcdef/readmit",
            r#"{"name":"a"}"#,
            "/nodes/node-0123456789abcdef/readmit",
            r#"{"name":"b"}"#,
        ],
    ),
    ("delete", "/nodes/{node}", ["/nodes/node-0123456789abcdef", "", "/nodes/node-0123456789abcdef?force=true", ""]),
    (
        "post",
        "/nodes/{node}/images",
        ["/nodes/node-0123456789abcdef/images?reference=a", "", "/nodes/node-0123456789abcdef/images?reference=b", ""],
    ),
    (
        "delete",
        "/nodes/{node}/images",
        ["/nodes/node-0123456789abcdef/images?reference=a", "", "/nodes/node-0123456789abcdef/images?reference=b", ""],
    ),
    (
        "put",
        "/nodes/{node}/images/pin",
        [
            "/nodes/node-0123456789abcdef/images/pin",
            r#"{"reference":"a","pinned":true}"#,
            "/nodes/node-0123456789abcdef/images/pin",
            r#"{"reference":"a","pinned":false}"#,
        ],
    ),
    ("post", "/images/pull", ["/images/pull?a=1", "{}", "/images/pull?a=2", "{}"]),
    ("post", "/images/prune", ["/images/prune?a=1", "{}", "/images/prune?a=2", "{}"]),
    ("delete", "/orphans/{sandbox}", ["/orphans/sbx-0123456789abcdef", "", "/orphans/sbx-0123456789abcdee", ""]),
    (
        "post",
        "/orphans/{sandbox}/adopt",
        ["/orphans/sbx-0123456789abcdef/adopt", "{}", "/orphans/sbx-0123456789abcdef/adopt", r#"{"name":"z"}"#],
    ),
    ("put", "/sandboxes/{sandbox}/files", ["/sandboxes/a/files?path=/a", "", "/sandboxes/a/files?path=/b", ""]),
];

#[tokio::test]
async fn the_same_key_with_another_request_is_refused_on_every_route() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 40).await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        let made = central.post("/sandboxes", &format!(r#"{{"template":"bare","name":"{name}"}}"#)).await;
        let id = made.json()["id"].as_str().unwrap().to_owned();
        session.desired().await;
        session.heartbeat(false, None, &[seen(&id, Phase::Ready, 1)]).await;
    }
    for (number, (method, route, [path, body, other_path, other_body])) in ROUTES.iter().enumerate() {
        let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { panic!("{method}") };
        let key = format!("key-{number:05}");
        let first = send(&central, &method, path, &key, body).await;
        let other = send(&central, &method, other_path, &key, other_body).await;
        if route.contains(":batch") {
            let items = other.json()["items"].clone();
            assert_eq!(items[0]["problem"]["code"], "idempotency-conflict", "{method} {route}: {}", other.text());
            continue;
        }
        assert_eq!(other.status, 409, "{method} {route}: {} then {}", first.text(), other.text());
        other.assert_problem(409, "idempotency-conflict");
    }
}

#[tokio::test]
async fn the_table_of_routes_has_every_route_that_changes_something() {
    let central = Central::start().await;
    let document = central.get("/openapi.json").await.json();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let route = path.strip_prefix("/api/v1").unwrap();
        for method in operations.as_object().unwrap().keys().filter(|method| *method != "get") {
            described.insert((method.clone(), route.to_owned()));
        }
    }
    let listed: BTreeSet<_> =
        ROUTES.iter().map(|(method, route, _)| ((*method).to_owned(), (*route).to_owned())).collect();
    assert_eq!(listed, described);
}

#[tokio::test]
async fn a_repeated_request_gets_its_first_answer_and_has_its_effect_once() {
    let central = Central::start().await;
    let (_node, _session) = Node::ready(&central, "n1", 4).await;
    central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    let restart = async || send(&central, &Method::POST, "/sandboxes/box/restart", "restart-1", "").await;
    let (first, again) = (restart().await, restart().await);
    assert_eq!((first.status.as_u16(), first.json()["restart_count"].as_u64()), (202, Some(1)));
    assert_eq!((again.header("idempotent-replayed"), again.json()["restart_count"].as_u64()), ("true", Some(1)));
    assert_eq!(central.get("/sandboxes/box").await.json()["restart_count"], 1);

    let put = async || send(&central, &Method::PUT, "/profiles/p", "profile-1", r#"{"name":"p"}"#).await;
    let (first, again) = (put().await, put().await);
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201), "it was made by the first");
    assert_eq!((again.header("idempotent-replayed"), again.json()), ("true", first.json()));

    let token = async || send(&central, &Method::POST, "/join-tokens", "token-001", "{}").await;
    let (first, again) = (token().await, token().await);
    assert_eq!(first.status, 201);
    again.assert_problem(409, "idempotency-conflict");
    assert_eq!(central.get("/join-tokens").await.json()["items"].as_array().unwrap().len(), 1);

    let refused =
        send(&central, &Method::PUT, "/templates/t", "template-1", r#"{"name":"t","image":"i","profile":"x"}"#).await;
    assert!(refused.status.is_client_error());
    send(&central, &Method::PUT, "/profiles/x", "profile-2", r#"{"name":"x"}"#).await;
    let mended =
        send(&central, &Method::PUT, "/templates/t", "template-1", r#"{"name":"t","image":"i","profile":"x"}"#).await;
    assert_eq!(mended.status, 201, "what was refused may be tried again");
}

#[tokio::test]
async fn of_many_in_one_call_bad_ones_spoil_no_good_ones_and_a_repetition_makes_none_twice() {
    let central = Central::start().await;
    let (_node, _session) = Node::ready(&central, "n1", 400).await;
    let mut sandboxes: Vec<_> = (0..300).map(|n| json!({"template": "bare", "name": format!("s{n}")})).collect();
    sandboxes[7] = json!({"template": "nothing"});
    sandboxes[9] = json!({"template": "bare", "name": "s8"});
    let body = json!({ "sandboxes": sandboxes }).to_string();
    let make = async || send(&central, &Method::POST, "/sandboxes:batch", "many-0001", &body).await;
    let made = make().await;
    assert_eq!(made.status, 200, "{}", made.text());
    let items = made.json()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 300);
    assert_eq!(items[7]["problem"]["code"], "template-not-found");
    let taken = [8, 9].iter().filter(|n| items[**n]["problem"]["code"] == "name-taken").count();
    assert_eq!(taken, 1, "one of the two has the name");
    assert_eq!(items.iter().filter(|item| item["sandbox"]["id"].is_string()).count(), 298);
    assert_eq!(items[250]["sandbox"]["name"], "s250", "in the order of the request");
    let again = make().await.json()["items"].as_array().unwrap().clone();
    assert_eq!(again[250]["sandbox"]["id"], items[250]["sandbox"]["id"]);
    assert_eq!(central.get("/sandboxes?page_size=500").await.json()["items"].as_array().unwrap().len(), 298);

    let names: Vec<_> = (0..300).map(|n| format!("s{n}")).collect();
    let body = json!({ "sandboxes": names }).to_string();
    let gone = central.post("/sandboxes:batch-delete", &body).await.json()["items"].as_array().unwrap().clone();
    assert_eq!(gone[7]["problem"]["code"], "sandbox-not-found");
    assert_eq!(gone.iter().filter(|item| item["sandbox"]["run_state"] == "deleted").count(), 298);
    let empty = central.post("/sandboxes:batch", r#"{"sandboxes":[]}"#).await;
    assert_eq!(empty.assert_problem(422, "invalid-field")["errors"][0]["field"], "sandboxes");
}
