//! Two replicas of central on one PostgreSQL, and a PostgreSQL that goes away.

use hyper::Method;
use roost_proto::model::Phase;
use serde_json::Value;

use crate::harness::{Central, PLAIN, soon};
use crate::lifecycle::Watch;
use crate::node::{Node, seen};
use crate::postgres::Server;

/// The configuration of a replica on a database.
fn on(url: &str, name: &str) -> String {
    format!("replica = \"{name}\"\n{PLAIN}[store]\nurl = \"{url}\"\npool_size = 3\n")
}

/// Two replicas, and a node with a session at the first.
async fn replicas() -> (Central, Central, Node, crate::node::Session) {
    let url = Server::shared().database();
    let first = Central::start_with(&on(&url, "central-0")).await;
    let second = Central::start_beside(&first, &on(&url, "central-1")).await;
    let (node, session) = Node::ready(&first, "n1", 4).await;
    // The second one learns of the node within its period of 5 s.
    soon("the node at the second replica", async {
        while second.get(&format!("/nodes/{}", node.id)).await.json()["phase"] != "Online" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    (first, second, node, session)
}

fn id(sandbox: &Value) -> &str {
    sandbox["id"].as_str().unwrap()
}

#[tokio::test]
async fn what_is_made_at_one_replica_reaches_the_node_and_the_watchers_of_another() {
    let (first, second, _node, mut session) = replicas().await;
    let mut watch = Watch::open(&first, "", None).await;
    let made = second.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let desired = session.desired().await;
    assert_eq!(desired.sandboxes[0].sandbox_id, id(&made));
    assert_eq!(id(&watch.next().await.2), id(&made));

    let mut watch = Watch::open(&second, "?sandbox=box", None).await;
    assert_eq!(watch.next().await.2["observed"]["phase"], "Pending");
    session.heartbeat(false, None, &[seen(id(&made), Phase::Ready, 1)]).await;
    assert_eq!(watch.next().await.2["observed"]["phase"], "Ready");
    assert_eq!(second.delete("/sandboxes/box").await.status, 202);
    assert_eq!(watch.next().await.2["observed"]["phase"], "Deleting");
    session.desired().await;
    session.heartbeat(false, None, &[seen(id(&made), Phase::Gone, 2)]).await;
    assert_eq!(watch.next().await.0, "gone");
}

#[tokio::test]
async fn a_call_to_a_node_at_another_replica_names_that_replica() {
    let (_first, second, node, _session) = replicas().await;
    assert_eq!(second.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await.status, 201);
    let refused = second.get("/sandboxes/box/screenshot").await;
    let problem = refused.assert_problem(503, "node-elsewhere");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("central-0") && detail.contains(&node.id), "{detail}");
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn a_node_that_moves_to_another_replica_and_back_loses_no_news() {
    let (first, second, node, mut session) = replicas().await;
    let made = first.post("/sandboxes", r#"{"template":"bare"}"#).await.json();
    session.desired().await;
    session.heartbeat(false, None, &[seen(id(&made), Phase::Ready, 1)]).await;
    drop(session);
    let mut moved = node.at(&second).connect(1).await;
    moved.heartbeat(true, None, &[seen(id(&made), Phase::Failed, 2)]).await;
    first.wait_for_phase(id(&made), "Failed").await;
    drop(moved);
    let mut back = node.connect(1).await;
    back.heartbeat(true, None, &[seen(id(&made), Phase::Ready, 3)]).await;
    second.wait_for_phase(id(&made), "Ready").await;
}

#[tokio::test]
async fn while_the_database_is_away_requests_are_refused_and_the_node_stays() {
    let server = Server::start();
    let central = Central::start_with(&on(&server.database(), "central-0")).await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    assert_eq!(central.admin("/ready").await.0, 200);
    server.tell("kill");
    let refused = central.get("/sandboxes").await;
    refused.assert_problem(503, "store-unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    let (code, text) = central.admin("/ready").await;
    assert!(code == 503 && text.contains("database"), "{code} {text}");
    assert_eq!(central.admin("/live").await.0, 200);
    let (code, metrics) = central.admin("/metrics").await;
    assert!(code == 200 && metrics.contains("roost_central_store_up 0"), "{code}");
    // The heartbeat is heard, not stored, and asked for again.
    assert!(session.heartbeat(true, None, &[]).await);

    server.tell("start");
    soon("central to recover", async {
        while central.admin("/ready").await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(!session.heartbeat(true, None, &[]).await);
    let key = central.request(Method::POST, "/sandboxes").header("idempotency-key", "after-the-outage");
    let request = key.header("content-type", "application/json").body(r#"{"template":"bare"}"#.to_owned().into_bytes());
    let made = central.send(request.unwrap().map(|body| http_body_util::Full::new(body.into()))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    // Over the session of before.
    assert_eq!(session.desired().await.sandboxes[0].sandbox_id, id(&made.json()));
}

#[tokio::test]
async fn a_node_that_one_replica_removes_loses_its_session_at_another() {
    let url = Server::shared().database();
    let quick = |name| {
        on(&url, name).replace("[link]", "[link]\nstale_after_s = 1\noffline_after_s = 2\nheartbeat_period_ms = 100")
    };
    let first = Central::start_with(&quick("central-0")).await;
    let second = Central::start_beside(&first, &quick("central-1")).await;
    let (node, mut session) = Node::ready(&first, "n1", 4).await;
    // It says nothing and holds its connection: only the session shows that it
    // is there, and only to the first.
    soon("the removal", async {
        while second.delete(&format!("/nodes/{}", node.id)).await.status != 204 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let end = session.next().await.unwrap_err();
    assert_eq!(end.code(), tonic::Code::Unauthenticated, "{end:?}");
    first.get(&format!("/nodes/{}", node.id)).await.assert_problem(404, "node-not-found");
}

#[tokio::test]
async fn a_node_is_asked_to_renew_through_any_replica() {
    let (_first, second, node, mut session) = replicas().await;
    let asked = second
        .send(second.request(Method::POST, &format!("/nodes/{}/rotate", node.id)).body(Default::default()).unwrap());
    assert_eq!(asked.await.status, 202);
    let message = session.next().await.unwrap();
    assert!(matches!(message, roost_proto::node::central_message::Body::RenewNow(_)), "{message:?}");
}

#[tokio::test]
async fn a_claim_goes_where_the_node_is_and_one_key_is_one_desktop_at_two_replicas() {
    let (first, second, _node, session) = replicas().await;
    let api = session.api.clone();
    api.desks.lock().unwrap().ready = 2;
    tokio::spawn(session.serve_all());
    // Made at the one, put on the node by the other.
    let pool = r#"{"name":"desks","template":"bare","min_ready":1,"max":2}"#;
    assert_eq!(second.put("/pools/desks", pool).await.status, 201);
    soon("the pool on its node", async {
        while second.get("/pools/desks").await.json()["nodes"][0]["standing"]["ready"] != 2 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let claim = async |central: &Central| {
        let request = central.request(Method::POST, "/claims").header("idempotency-key", "one-key-for-both");
        let request = request.header("content-type", "application/json");
        central.send(request.body(http_body_util::Full::new(r#"{"pool":"desks"}"#.into())).unwrap()).await
    };
    claim(&second).await.assert_problem(503, "node-elsewhere");
    let made = claim(&first).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(api.desks.lock().unwrap().claimed.len(), 1);
    let listed = second.get("/sandboxes").await.json();
    assert_eq!(listed["items"][0]["id"], made.json()["sandbox"]["id"]);
}
