//! Images that nodes fetch themselves: pull, pin, prune, export.

use serde_json::Value;

use crate::harness::{Answer, Central, PLAIN};
use crate::node::Node;

async fn with_node() -> (Central, Node, String) {
    let central = Central::start().await;
    let (node, session) = Node::ready(&central, "n1", 4).await;
    tokio::spawn(session.serve_tunnels());
    let id = central.get("/nodes").await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    (central, node, id)
}

/// Kind and data of each event.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = answer.text();
    let event = |block: &str| {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some((field("event:")?.to_owned(), serde_json::from_str(field("data:")?).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn every_named_node_tells_its_layers_and_its_end() {
    let (central, _node, id) = with_node().await;
    let body = r#"{"reference":"registry.example/app:1","pin":true,"nodes":["n1"]}"#;
    let answer = central.post("/images/pull", body).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events = events(&answer);
    let kinds: Vec<_> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["step", "done"]);
    let step = &events[0].1;
    assert_eq!((step["node"].as_str(), step["name"].as_str()), (Some(&*id), Some("n1")));
    assert_eq!(step["step"]["layers"][0]["state"], "downloading");
    assert_eq!(events[1].1["image"]["pinned"], true);
    let listed = central.get("/images").await.json();
    let held = listed["items"].as_array().unwrap().iter().any(|i| i["reference"] == "registry.example/app:1");
    assert!(held, "placement knows it at once: {listed}");
}

#[tokio::test]
async fn a_node_that_is_refused_says_why_and_wrong_requests_name_their_field() {
    let (central, _node, _) = with_node().await;
    let answer = central.post("/images/pull", r#"{"reference":"registry.example/unsigned:1"}"#).await;
    let (kind, data) = events(&answer).pop().unwrap();
    assert_eq!(kind, "failed");
    assert!(data["problem"]["detail"].as_str().unwrap().contains("no signature"), "{data}");

    let field = async |body: &str| {
        let problem = central.post("/images/pull", body).await.assert_problem(422, "invalid-field");
        problem["errors"][0]["field"].as_str().unwrap().to_owned()
    };
    assert_eq!(field(r#"{"reference":"roost/desktop:1"}"#).await, "reference");
    assert_eq!(field(r#"{"reference":"r.example/a","policy":"never"}"#).await, "policy");
    let unknown = central.post("/images/pull", r#"{"reference":"r.example/a","nodes":["nobody"]}"#).await;
    unknown.assert_problem(404, "node-not-found");
}

#[tokio::test]
async fn pins_pruning_lists_and_archives_come_from_the_node() {
    let (central, _node, id) = with_node().await;
    let images = central.get(&format!("/nodes/{id}/images")).await.json();
    assert_eq!(images["items"][0]["in_use_by"], 4);
    let pin = r#"{"reference":"roost/desktop","pinned":true}"#;
    let pinned = central.put(&format!("/nodes/{id}/images/pin"), pin).await.json();
    assert_eq!((&pinned["pinned"], &pinned["in_use_by"]), (&true.into(), &4.into()));
    let answer = central.post("/images/prune", r#"{"unused_for_s":3,"dry_run":false,"nodes":["n1"]}"#).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let pruned = events(&answer);
    assert_eq!((pruned.len(), pruned[0].0.as_str(), &pruned[0].1["name"]), (1, "done", &"n1".into()));
    let pruned = &pruned[0].1;
    assert_eq!((&pruned["freed_bytes"], &pruned["removed"][0]["last_used_at_unix_ms"]), (&99.into(), &3000.into()));
    let unknown = central.post("/images/prune", r#"{"nodes":["nobody"]}"#).await;
    unknown.assert_problem(404, "node-not-found");
    let archive = central.get(&format!("/nodes/{id}/images/export?reference=a/b:1")).await;
    assert_eq!((archive.header("content-type"), archive.text().as_str()), ("application/x-tar", "a/b:1end"));
}

#[tokio::test]
async fn a_sandbox_whose_image_has_a_registry_is_placed_where_the_image_is_not_yet() {
    let (central, _node, _) = with_node().await;
    let template = r#"{"name":"remote","image":"registry.example/app:1","profile":"small"}"#;
    assert!(central.put("/templates/remote", template).await.status.is_success());
    assert_eq!(central.post("/sandboxes", r#"{"template":"remote"}"#).await.status, 201);
    let never = r#"{"name":"never","image":"registry.example/app:1","profile":"small","pull_policy":"never"}"#;
    assert!(central.put("/templates/never", never).await.status.is_success());
    central.post("/sandboxes", r#"{"template":"never"}"#).await.assert_problem(409, "image-not-found");
}

#[tokio::test]
async fn a_pruning_may_last_longer_than_any_other_request() {
    let central = Central::start_with(&PLAIN.replace("[api]", "[api]\nrequest_timeout_ms = 300")).await;
    let (_node, session) = Node::ready(&central, "n1", 4).await;
    tokio::spawn(session.serve_tunnels());
    // The node takes so long for images that nobody used for so long.
    let answer = central.post("/images/prune", r#"{"unused_for_s":77}"#).await;
    let events = events(&answer);
    assert_eq!(events[0].0, "done", "{events:?}");
}
