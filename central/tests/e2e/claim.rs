//! Pools and claims through REST, with a node that claims as a real one does.

use std::collections::BTreeSet;
use std::time::Duration;

use http_body_util::Full;
use hyper::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Central, soon};
use crate::node::Node;
use crate::node_api::FakeNode;

const DESKS: &str = r#"{"name":"desks","template":"bare","min_ready":2,"max":4}"#;

/// A node that serves everything, with so many desktops ready.
async fn node(central: &Central, name: &str, ready: u32) -> (Node, FakeNode) {
    let (node, session) = Node::ready(central, name, 8).await;
    let api = session.api.clone();
    api.desks.lock().unwrap().ready = ready;
    tokio::spawn(session.serve_all());
    (node, api)
}

/// Waits until central has seen so many nodes in step, with so many ready.
async fn standing(central: &Central, nodes: usize, ready: u64) {
    soon("the pool on its nodes", async {
        loop {
            let seen = central.get("/pools/desks").await.json()["nodes"].as_array().unwrap().clone();
            let in_step = seen.iter().filter(|on| on["standing"]["in_step"] == true).count();
            let sum: u64 = seen.iter().map(|on| on["standing"]["ready"].as_u64().unwrap()).sum();
            if (seen.len(), in_step, sum) == (nodes, nodes, ready) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A central with one node and the pool on it.
async fn with_pool(ready: u32) -> (Central, Node, FakeNode) {
    let central = Central::start().await;
    let (node, api) = node(&central, "n1", ready).await;
    assert_eq!(central.put("/pools/desks", DESKS).await.status, 201);
    standing(&central, 1, ready.into()).await;
    (central, node, api)
}

async fn claim(central: &Central, key: &str, body: &Value) -> Answer {
    let request = central.request(Method::POST, "/claims").header("content-type", "application/json");
    let request = if key.is_empty() { request } else { request.header("idempotency-key", key) };
    central.send(request.body(Full::new(body.to_string().into())).unwrap()).await
}

fn id(claimed: &Answer) -> String {
    assert_eq!(claimed.status, 201, "{}", claimed.text());
    claimed.json()["sandbox"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pool_reaches_its_nodes_follows_its_template_and_is_taken_away_again() {
    let (central, _node, api) = with_pool(2).await;
    let spec = api.desks.lock().unwrap().pools.values().next().unwrap().clone();
    assert!(spec.name.starts_with("central-") && spec.name.ends_with("-desks"), "{}", spec.name);
    assert_eq!((spec.min_ready, spec.max), (2, 4));
    assert_eq!(spec.spec.as_ref().unwrap().template, "bare");

    let mut template = central.get("/templates/bare").await.json();
    template["env"] = json!({"NEWER": "1"});
    assert_eq!(central.put("/templates/bare", &template.to_string()).await.status, 200);
    soon("the newer template", async {
        while api.desks.lock().unwrap().pools.values().all(|p| p.spec.as_ref().unwrap().env.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    api.desks.lock().unwrap().pools.insert("mine".into(), roost_proto::node::PoolSpec { name: "mine".into(), ..spec });
    assert_eq!(central.delete("/pools/desks").await.status, 204);
    soon("the end of the pool", async {
        while api.desks.lock().unwrap().pools.len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(api.desks.lock().unwrap().pools.contains_key("mine"), "what people made on the node is gone");
    central.get("/pools/desks").await.assert_problem(404, "pool-not-found");
}

#[tokio::test]
async fn a_pool_that_cannot_be_is_refused_by_its_field() {
    let central = Central::start().await;
    let refused = |body: Value| {
        let central = &central;
        async move { central.put("/pools/desks", &body.to_string()).await.assert_problem(422, "invalid-field") }
    };
    let no_template = refused(json!({"name": "desks", "template": "nobody", "min_ready": 1, "max": 1})).await;
    assert_eq!(no_template["errors"][0]["field"], "template");
    let too_few = refused(json!({"name": "desks", "template": "bare", "min_ready": 3, "max": 1})).await;
    assert_eq!(too_few["errors"][0]["field"], "min_ready");
    refused(json!({"name": "other", "template": "bare", "min_ready": 1, "max": 1})).await;
}

#[tokio::test]
async fn a_node_that_connects_later_gets_its_pools_and_one_that_is_not_named_gets_none() {
    let (central, _node, _api) = with_pool(1).await;
    let only = r#"{"name":"only","template":"bare","min_ready":1,"max":1,"nodes":["n2"]}"#;
    assert_eq!(central.put("/pools/only", only).await.status, 201);
    let (_second, api) = node(&central, "n2", 1).await;
    standing(&central, 2, 2).await;
    soon("both pools", async {
        while api.desks.lock().unwrap().pools.len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let only = central.get("/pools/only").await.json();
    let nodes: Vec<_> = only["nodes"].as_array().unwrap().iter().map(|on| on["node"].clone()).collect();
    assert_eq!(nodes, ["n2"]);
}

#[tokio::test]
async fn a_claim_brings_what_it_holds_to_the_node_and_becomes_a_sandbox() {
    let (central, node, api) = with_pool(2).await;
    let body = json!({
        "pool": "desks", "name": "mine", "env": {"TASK": "42"}, "secrets": {"key": "aHVzaCE="},
        "identity": {"agent": "agt-7"}, "hostname": "desk-7",
        "files": [{"path": "/home/agent/a", "content": "aGk=", "mode": "0640"}],
    });
    let claimed = claim(&central, "first-key", &body).await;
    assert_eq!((id(&claimed).as_str(), claimed.header("idempotent-replayed")), (id(&claimed).as_str(), ""));
    let answer = claimed.json();
    assert_eq!((answer["hook_exit_code"].clone(), answer["cold"].clone()), (json!(7), json!(false)));
    assert_eq!(answer["steps"], json!([{"name": "files", "duration_us": 900}]));
    assert_eq!(
        (answer["sandbox"]["name"].clone(), answer["sandbox"]["node_id"].clone()),
        (json!("mine"), json!(node.id))
    );

    let asked = api.desks.lock().unwrap().asked[0].clone();
    assert_eq!((asked.tenant.as_str(), asked.secrets["key"].as_slice()), ("default", b"hush!".as_slice()));
    assert_eq!((asked.files[0].content.as_slice(), asked.files[0].mode), (b"hi".as_slice(), 0o640));
    let binding = asked.binding.unwrap();
    assert_eq!(
        (binding.env["TASK"].as_str(), binding.secrets, binding.hostname.as_str()),
        ("42", vec!["key".to_owned()], "desk-7")
    );

    let found = central.get("/sandboxes/mine").await.json();
    assert_eq!(
        (found["id"].clone(), found["observed"]["phase"].clone()),
        (answer["sandbox"]["id"].clone(), json!("Ready"))
    );
    // Released is deleted: the node is told of it like of any other.
    assert_eq!(central.delete("/sandboxes/mine").await.status, 202);
    soon("its end", async {
        while central.get("/sandboxes/mine").await.status != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for file in std::fs::read_dir(central.path().join("state")).unwrap() {
        let path = file.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
        assert!(!holds(b"hush!") && !holds(b"aHVzaCE="), "a secret is in {}", path.display());
    }
}

#[tokio::test]
async fn the_same_key_is_the_same_desktop_and_another_body_a_conflict() {
    let (central, _node, api) = with_pool(2).await;
    let body = json!({"pool": "desks", "env": {"TASK": "1"}});
    let together = (0..6).map(|_| claim(&central, "one-key-of-mine", &body));
    let ids: BTreeSet<String> = futures::future::join_all(together).await.iter().map(id).collect();
    assert_eq!((ids.len(), api.desks.lock().unwrap().claimed.len()), (1, 1));
    let again = claim(&central, "one-key-of-mine", &body).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    let other = json!({"pool": "desks", "env": {"TASK": "2"}});
    claim(&central, "one-key-of-mine", &other).await.assert_problem(409, "idempotency-conflict");
    assert_ne!(id(&claim(&central, "", &body).await), id(&again), "no key is no repetition");
}

#[tokio::test]
async fn a_central_that_ends_between_the_node_and_the_database_finds_the_desktop_again() {
    let (central, node, api) = with_pool(1).await;
    api.desks.lock().unwrap().is_silent = true;
    let body = json!({"pool": "desks", "name": "mine"});
    {
        // The node has bound it, and central never learns of it.
        let lost = claim(&central, "the-lost-one", &body);
        let bound = async {
            while api.desks.lock().unwrap().claimed.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = lost => panic!("answered: {}", answer.text()),
            () = soon("the claim at the node", bound) => {}
        }
    }
    let central = central.restart().await;
    central.get("/sandboxes/mine").await.assert_problem(404, "sandbox-not-found");
    api.desks.lock().unwrap().is_silent = false;
    let mut session = node.at(&central).connect(0).await;
    session.api = api.clone();
    session.heartbeat(true, Some(crate::node::status(8)), &[]).await;
    tokio::spawn(session.serve_all());
    let claimed = id(&claim(&central, "the-lost-one", &body).await);
    let held: Vec<_> =
        api.desks.lock().unwrap().claimed.values().map(|s| s.desired.clone().unwrap().sandbox_id).collect();
    assert_eq!(held, std::slice::from_ref(&claimed), "another desktop was taken");
    assert_eq!(central.get("/sandboxes/mine").await.json()["id"], claimed.as_str());
}

#[tokio::test]
async fn a_claim_that_nobody_finishes_is_adopted_if_its_caller_can_ask_again_and_deleted_else() {
    let (central, _node, api) = with_pool(2).await;
    api.desks.lock().unwrap().is_silent = true;
    {
        let (kept, lost) = (json!({"pool": "desks", "name": "kept"}), json!({"pool": "desks", "name": "lost"}));
        let claims = futures::future::join(claim(&central, "with-a-key", &kept), claim(&central, "", &lost));
        let bound = async {
            while api.desks.lock().unwrap().claimed.len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            (first, _) = claims => panic!("answered: {}", first.text()),
            () = soon("both claims at the node", bound) => {}
        }
    }
    roost_central::app::sweep_claims(&central.inner).await.unwrap();
    central.get("/sandboxes/kept").await.assert_problem(404, "sandbox-not-found");
    // As if they were made long ago.
    let database = rusqlite::Connection::open(central.path().join("state/central.db")).unwrap();
    database.execute("UPDATE claims SET created_at_unix_ms = 0", []).unwrap();
    roost_central::app::sweep_claims(&central.inner).await.unwrap();
    let kept = central.get("/sandboxes/kept").await.json();
    soon("the end of the other", async {
        while api.desks.lock().unwrap().claimed.len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    api.desks.lock().unwrap().is_silent = false;
    let again = claim(&central, "with-a-key", &json!({"pool": "desks", "name": "kept"})).await;
    assert_eq!(id(&again), kept["id"].as_str().unwrap());
    central.get("/sandboxes/lost").await.assert_problem(404, "sandbox-not-found");
}

#[tokio::test]
async fn an_empty_pool_leads_to_another_node_and_then_to_a_cold_start() {
    let (central, _first, one_left) = with_pool(1).await;
    let (_second, emptied) = node(&central, "n2", 3).await;
    standing(&central, 2, 4).await;
    // What central has seen is old by now.
    emptied.desks.lock().unwrap().ready = 0;
    let body = json!({"pool": "desks"});
    let warm = claim(&central, "warm-claim", &body).await;
    assert_eq!((id(&warm), &warm.json()["cold"]), (id(&warm), &json!(false)));
    assert_eq!(one_left.desks.lock().unwrap().claimed.len(), 1);

    let cold = claim(&central, "cold-claim", &json!({"pool": "desks", "name": "cold"})).await;
    let answer = cold.json();
    assert_eq!((id(&cold), &answer["cold"]), (id(&cold), &json!(true)));
    assert!(answer["cold_reason"].as_str().unwrap().contains("no desktop ready"), "{answer}");
    assert_eq!(answer["sandbox"]["generation"], 2);
    let again = claim(&central, "cold-claim", &json!({"pool": "desks", "name": "cold"})).await;
    assert_eq!((id(&again), again.header("idempotent-replayed")), (id(&cold), "true"));
    let all = central.get("/sandboxes").await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
}

#[tokio::test]
async fn a_cold_start_that_fails_leaves_nothing_behind_and_says_why() {
    let (central, _node, api) = with_pool(0).await;
    api.desks.lock().unwrap().is_broken = true;
    let refused = claim(&central, "cold-claim", &json!({"pool": "desks", "name": "cold"})).await;
    let problem = refused.assert_problem(409, "sandbox-not-ready");
    assert!(problem["detail"].as_str().unwrap().contains("workload-exited"), "{problem}");
    soon("nothing", async {
        while !central.get("/sandboxes").await.json()["items"].as_array().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    api.desks.lock().unwrap().is_broken = false;
    id(&claim(&central, "cold-claim", &json!({"pool": "desks", "name": "cold"})).await);
}

#[tokio::test]
async fn a_hook_that_does_not_answer_leaves_a_sandbox_that_the_same_key_binds() {
    let (central, _node, api) = with_pool(1).await;
    api.desks.lock().unwrap().is_mute = true;
    let body = json!({"pool": "desks", "name": "mine"});
    let problem = claim(&central, "mute-claim", &body).await.assert_problem(409, "claim-not-bound");
    let held = central.get("/sandboxes/mine").await.json();
    assert!(problem["detail"].as_str().unwrap().contains(held["id"].as_str().unwrap()), "{problem}");
    claim(&central, "mute-claim", &body).await.assert_problem(409, "claim-not-bound");
    api.desks.lock().unwrap().is_mute = false;
    assert_eq!(id(&claim(&central, "mute-claim", &body).await), held["id"].as_str().unwrap());
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_claim_in_its_place() {
    let (central, _node, api) = with_pool(2).await;
    let claims = json!({"claims": [{"pool": "desks"}, {"pool": "nobodys"}, {"pool": "desks"}]});
    let request = central.request(Method::POST, "/claims:batch").header("content-type", "application/json");
    let request = request.header("idempotency-key", "batch-of-three");
    let answer = central.send(request.body(Full::new(claims.to_string().into())).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let items = answer.json()["items"].as_array().unwrap().clone();
    assert_eq!(items[1]["problem"]["code"], "pool-not-found");
    assert_ne!(items[0]["claimed"]["sandbox"]["id"], items[2]["claimed"]["sandbox"]["id"]);
    assert_eq!(api.desks.lock().unwrap().claimed.len(), 2);
    central.post("/claims:batch", r#"{"claims":[]}"#).await.assert_problem(422, "invalid-field");
}

#[tokio::test]
async fn a_wrong_claim_is_refused_before_any_node_hears_of_it() {
    let (central, _node, api) = with_pool(1).await;
    for (body, field) in [
        (json!({"pool": "desks", "env": {"A-B": "1"}}), "env.A-B"),
        (json!({"pool": "desks", "secrets": {"../x": ""}}), "secrets.../x"),
        (json!({"pool": "desks", "files": [{"path": "a", "content": ""}]}), "files[0].path"),
        (json!({"pool": "desks", "secrets": {"key": "%"}}), "secrets.key"),
    ] {
        let problem = claim(&central, "", &body).await.assert_problem(422, "invalid-field");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    claim(&central, "", &json!({"pool": "nobodys"})).await.assert_problem(404, "pool-not-found");
    assert!(api.desks.lock().unwrap().asked.is_empty());
    // Far beyond what other bodies may have.
    let large = json!({"pool": "desks", "files": [{"path": "/a", "content": "A".repeat(1 << 20)}]});
    id(&claim(&central, "", &large).await);
    assert_eq!(api.desks.lock().unwrap().asked[0].files[0].content.len(), 3 << 18);
}
