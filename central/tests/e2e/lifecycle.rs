//! A sandbox from its creation to its end, and what its watchers see.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::Incoming;
use roost_proto::central::sandbox_service_client::SandboxServiceClient;
use roost_proto::central::{CreateSandboxRequest, GetSandboxRequest};
use roost_proto::model::Phase;
use roost_proto::types::{RunState, Usage};
use serde_json::Value;

use crate::harness::{Central, open, soon};
use crate::node::{Node, seen, status};

/// A watch as a client reads it.
pub(crate) struct Watch {
    body: Incoming,
    text: String,
}

impl Watch {
    pub(crate) async fn open(central: &Central, query: &str, last: Option<&str>) -> Self {
        let request = central.request(Method::GET, &format!("/watch/sandboxes{query}"));
        let request = last.map_or(request, |last| {
            central.request(Method::GET, &format!("/watch/sandboxes{query}")).header("last-event-id", last)
        });
        let response = open(central.ends.api, request.body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event: its kind, its id and its data.
    pub(crate) async fn next(&mut self) -> (String, String, Value) {
        soon("an event", async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.text = rest;
                    let field = |name: &str| {
                        event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
                    };
                    if !field("data:").is_empty() {
                        return (field("event:"), field("id:"), serde_json::from_str(&field("data:")).unwrap());
                    }
                    continue;
                }
                let frame = self.body.frame().await.expect("the watch ended").unwrap();
                self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_sandbox_lives_from_its_creation_to_gone() {
    let central = Central::start().await;
    let (node, mut session) = Node::ready(&central, "n1", 4).await;
    let mut watch = Watch::open(&central, "", None).await;

    let made = central.post("/sandboxes", r#"{"template":"bare","name":"box","env":{"A":"b"}}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/api/v1/sandboxes/{id}"));
    assert_eq!(made.json()["node_id"], node.id.as_str());
    assert_eq!(watch.next().await.2["observed"]["phase"], "Pending");

    let desired = session.desired().await;
    assert_eq!((desired.full, desired.base_generation, desired.generation), (false, 0, 1));
    assert_eq!(desired.sandboxes[0].sandbox_id, id);
    assert_eq!(desired.sandboxes[0].run_state(), RunState::Running);
    assert_eq!(desired.sandboxes[0].spec.as_ref().unwrap().env["A"], "b");

    assert!(!session.heartbeat(false, None, &[seen(&id, Phase::Ready, 3)]).await);
    assert_eq!(watch.next().await.2["observed"]["phase"], "Ready");
    assert_eq!(central.get("/sandboxes/box").await.json()["observed"]["phase"], "Ready");

    // A sample of usage reaches readers, but no watcher.
    let mut sample = seen(&id, Phase::Ready, 4);
    sample.usage = Some(Usage { memory_bytes: 77, ..Usage::default() });
    assert!(!session.heartbeat(false, None, &[sample]).await);
    assert_eq!(central.get("/sandboxes/box").await.json()["observed"]["usage"]["memory_bytes"], 77);

    for (verb, state) in [("stop", RunState::Stopped), ("start", RunState::Running), ("restart", RunState::Running)] {
        let answer = central.post(&format!("/sandboxes/{id}/{verb}"), "").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(session.desired().await.sandboxes[0].run_state(), state);
        watch.next().await;
    }
    assert_eq!(central.delete("/sandboxes/box").await.status, 202);
    assert_eq!(watch.next().await.2["observed"]["phase"], "Deleting");
    assert_eq!(session.desired().await.sandboxes[0].run_state(), RunState::Deleted);
    assert!(!session.heartbeat(false, None, &[seen(&id, Phase::Gone, 9)]).await);
    let (kind, _, data) = watch.next().await;
    assert_eq!((kind.as_str(), data["id"].as_str()), ("gone", Some(id.as_str())));
    central.get(&format!("/sandboxes/{id}")).await.assert_problem(404, "sandbox-not-found");
    let shown = central.get(&format!("/nodes/{}", node.id)).await.json();
    assert_eq!((&shown["sandboxes"], &shown["cpu_requested_millis"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn a_watcher_resumes_where_it_was_and_learns_of_a_gap() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare"}"#).await.json();
    let id = made["id"].as_str().unwrap();
    session.desired().await;
    let (_, last, _) = Watch::open(&central, &format!("?sandbox={id}"), None).await.next().await;

    session.heartbeat(false, None, &[seen(id, Phase::Starting, 1)]).await;
    session.heartbeat(false, None, &[seen(id, Phase::Ready, 2)]).await;
    let mut back = Watch::open(&central, &format!("?sandbox={id}"), Some(&last)).await;
    assert_eq!(back.next().await.2["observed"]["phase"], "Starting");
    let (_, newest, data) = back.next().await;
    assert_eq!(data["observed"]["phase"], "Ready");

    let central = central.restart().await;
    let mut back = Watch::open(&central, "", Some(&newest)).await;
    assert_eq!(back.next().await.0, "reset");
    assert_eq!(back.next().await.2["id"], id);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_sandbox_of_two_requests() {
    let central = Central::start().await;
    let (_node, _session) = Node::ready(&central, "n1", 4).await;
    let create = async |body: &'static str, key: &str| {
        let request = central.request(Method::POST, "/sandboxes").header("idempotency-key", key);
        central.send(request.body(Full::new(body.into())).unwrap()).await
    };
    let first = create(r#"{"template":"bare"}"#, "key-0001").await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, ""));
    let again = create(r#"{ "template" : "bare" }"#, "key-0001").await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (201, "true"));
    assert_eq!(again.json(), first.json());
    create(r#"{"template":"desktop"}"#, "key-0001").await.assert_problem(409, "idempotency-conflict");
    create(r#"{"template":"bare"}"#, "short").await.assert_problem(422, "invalid-field");
    assert_eq!(central.get("/sandboxes").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn two_hundred_concurrent_creations_fill_the_nodes_and_no_more() {
    let central = Central::start().await;
    let (_one, _first) = Node::ready(&central, "n1", 60).await;
    let (_two, _second) = Node::ready(&central, "n2", 60).await;
    let creations = (0..200).map(|_| central.post("/sandboxes", r#"{"template":"bare"}"#));
    let answers = futures::future::join_all(creations).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 120);
    let refused = answers.iter().find(|answer| answer.status != 201).unwrap();
    let problem = refused.assert_problem(409, "nothing-fits");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    for node in central.get("/nodes").await.json()["items"].as_array().unwrap() {
        assert_eq!(node["sandboxes"], 60, "{node}");
    }
}

#[tokio::test]
async fn a_deletion_waits_for_an_absent_node() {
    let central = Central::start().await;
    let (node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare","name":"box"}"#).await.json();
    let id = made["id"].as_str().unwrap();
    session.desired().await;
    drop(session);
    assert_eq!(central.delete("/sandboxes/box").await.json()["observed"]["phase"], "Deleting");
    assert_eq!(central.get("/sandboxes?phase=Deleting").await.json()["items"][0]["id"], id);

    // Back again, one generation behind: everything is sent, then it is gone.
    let mut session = node.connect(1).await;
    let desired = session.desired().await;
    assert!(desired.full);
    assert_eq!(desired.sandboxes[0].run_state(), RunState::Deleted);
    session.heartbeat(true, Some(status(4)), &[]).await;
    central.get("/sandboxes/box").await.assert_problem(404, "sandbox-not-found");
}

#[tokio::test]
async fn grpc_speaks_of_the_same_sandboxes() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", central.ends.api)).unwrap();
    let channel = channel.connect().await.unwrap();
    let token: tonic::metadata::MetadataValue<_> = format!("Bearer {}", central.token).parse().unwrap();
    let mut client = SandboxServiceClient::with_interceptor(channel.clone(), move |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", token.clone());
        Ok(request)
    });
    let create = CreateSandboxRequest { template: "bare".into(), name: "box".into(), ..Default::default() };
    let made = client.create_sandbox(create.clone()).await.unwrap().into_inner();
    assert_eq!(central.get("/sandboxes/box").await.json()["id"], made.id.as_str());
    let taken = client.create_sandbox(create).await.unwrap_err();
    assert_eq!(taken.code(), tonic::Code::AlreadyExists);
    assert!(taken.message().starts_with("name-taken: "), "{taken:?}");

    let sandbox = GetSandboxRequest { sandbox: "box".into(), ..Default::default() };
    let mut watch = client.watch_sandbox(sandbox.clone()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    session.desired().await;
    session.heartbeat(false, None, &[seen(&made.id, Phase::Ready, 1)]).await;
    let ready = soon("Ready", watch.message()).await.unwrap().unwrap();
    assert_eq!(ready.observed.unwrap().phase(), roost_proto::types::Phase::Ready);
    client.delete_sandbox(sandbox).await.unwrap();

    let mut stranger = SandboxServiceClient::new(channel.clone());
    let refused =
        stranger.get_sandbox(GetSandboxRequest { sandbox: "box".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let service = tonic_health::pb::HealthCheckRequest { service: "roost.central.v1.SandboxService".into() };
    let health = health.check(service).await.unwrap().into_inner();
    assert_eq!(health.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
}
