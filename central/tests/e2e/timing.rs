//! Time, from REST to the node and back: pauses, lifetimes, and what is said of
//! a sandbox whose time was over.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use roost_proto::model::Phase;
use roost_proto::types::SandboxObserved;

use crate::harness::{Answer, Central};
use crate::node::{Node, seen};

async fn patch(central: &Central, path: &str, body: &str) -> Answer {
    let request = central.request(Method::PATCH, path).header("content-type", "application/json");
    central.send(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()).await
}

#[tokio::test]
async fn a_pause_and_a_resume_reach_the_node() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert!(!session.desired().await.sandboxes.remove(0).paused);
    assert!(!session.heartbeat(false, None, &[seen(&id, Phase::Ready, 1)]).await);

    let paused = central.post("/sandboxes/box/pause", "").await;
    assert_eq!((paused.status.as_u16(), &paused.json()["paused"]), (202, &true.into()));
    let wish = session.desired().await.sandboxes.remove(0);
    assert!(wish.paused && wish.generation == 2);
    assert!(!session.heartbeat(false, None, &[seen(&id, Phase::Paused, 2)]).await);
    assert_eq!(central.wait_for_phase(&id, "Paused").await["paused"], true);

    assert_eq!(central.post("/sandboxes/box/resume", "").await.status, 202);
    assert!(!session.desired().await.sandboxes.remove(0).paused);
    central.post("/sandboxes/box/stop", "").await;
    central.post("/sandboxes/box/pause", "").await.assert_problem(409, "sandbox-not-ready");
}

#[tokio::test]
async fn times_are_laid_over_each_other_and_a_new_one_is_told_to_the_node() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    let profile = r#"{"name":"short","lifetime":{"ttl_ms":60000,"max_ms":3600000,"idle_timeout_ms":20000}}"#;
    assert_eq!(central.put("/profiles/short", profile).await.status, 201);
    let body =
        r#"{"template":"bare","profile":"short","name":"box","lifetime":{"ttl_ms":120000,"idle_action":"pause"}}"#;
    let made = central.post("/sandboxes", body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let spec = session.desired().await.sandboxes.remove(0).spec.unwrap();
    let lifetime = spec.lifetime.unwrap();
    assert_eq!((lifetime.ttl_ms, lifetime.max_ms, lifetime.idle_timeout_ms), (120_000, 3_600_000, 20_000));

    let set = patch(&central, "/sandboxes/box", r#"{"lifetime":{"ttl_ms":120000}}"#).await;
    assert_eq!((set.status.as_u16(), &set.json()["ttl_count"]), (202, &1.into()), "{}", set.text());
    let wish = session.desired().await.sandboxes.remove(0);
    assert_eq!((wish.ttl_count, wish.lifetime), (1, None), "the same again, counted anew");
    patch(&central, "/sandboxes/box", r#"{"lifetime":{"idle_timeout_ms":0}}"#).await;
    let wish = session.desired().await.sandboxes.remove(0);
    assert_eq!((wish.ttl_count, wish.lifetime.unwrap().idle_timeout_ms), (1, 0));

    let longest = patch(&central, "/sandboxes/box", r#"{"lifetime":{"max_ms":1}}"#).await;
    let problem = longest.assert_problem(422, "invalid-field");
    assert_eq!(problem["errors"][0]["field"], "lifetime.max_ms", "that is the profile's alone");
    patch(&central, "/sandboxes/box", "{}").await.assert_problem(422, "invalid-field");
}

#[tokio::test]
async fn what_a_node_ended_is_gone_and_those_who_ask_are_told_why() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare","name":"box","lifetime":{"ttl_ms":60000}}"#).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    session.desired().await;
    let over = |phase, revision| SandboxObserved {
        reason: "expired-ttl".into(),
        message: "its time to live of 60 s is over: create it again".into(),
        ..seen(&id, phase, revision)
    };
    assert!(!session.heartbeat(false, None, &[over(Phase::Deleting, 1)]).await);
    let wish = session.desired().await.sandboxes.remove(0);
    assert_eq!(wish.run_state(), roost_proto::types::RunState::Deleted, "the node may forget it");
    assert_eq!(central.get("/sandboxes/box").await.json()["observed"]["reason"], "expired-ttl");
    assert!(!session.heartbeat(false, None, &[over(Phase::Gone, 2)]).await);
    for name in ["box", id.as_str()] {
        let problem = central.get(&format!("/sandboxes/{name}")).await.assert_problem(404, "sandbox-not-found");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("expired-ttl") && detail.contains("60 s"), "{detail}");
    }
    let again = central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    assert_eq!(again.status, 201, "the name is free");
}
