//! NodeLink: who may come in, and what sessions agree on.

use roost_proto::PROTOCOL_VERSION;
use roost_proto::model::Phase;
use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::node_message::Body as ToCentral;
use roost_proto::node::{DesiredAck, Hello, NodeMessage, RenewRequest};
use tonic::Code;

use crate::harness::{Central, PLAIN};
use crate::node::{Node, enrol, seen, status, stranger};

#[tokio::test]
async fn a_join_token_enrols_one_node_and_its_fingerprint_is_the_ca() {
    let central = Central::start().await;
    let token = central.join_token().await;
    let (identity, _) = enrol(&central, &token, "n1").await.unwrap();
    let again = enrol(&central, &token, "n2").await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
    assert!(again.message().contains("used already"), "{again:?}");
    let der = <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(
        identity.ca_pem.as_bytes(),
    );
    let fingerprint = roost_central::secret::sha256_hex(&der.unwrap());
    assert_eq!(token.split_once('.').unwrap().1, fingerprint);
    assert!(central.get("/join-tokens").await.json()["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_withdrawn_or_invented_token_enrols_nobody() {
    let central = Central::start().await;
    let made = central.post("/join-tokens", r#"{"expires_in_s":60}"#).await.json();
    let path = format!("/join-tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(central.delete(&path).await.status, 204);
    central.delete(&path).await.assert_problem(404, "join-token-not-found");
    for token in [made["token"].as_str().unwrap(), "rjt_invented"] {
        assert_eq!(enrol(&central, token, "n1").await.unwrap_err().code(), Code::Unauthenticated);
    }
    let token = central.join_token().await;
    assert_eq!(enrol(&central, &token, "<b>").await.unwrap_err().code(), Code::InvalidArgument);
    assert!(enrol(&central, &token, "n1").await.is_ok(), "a refused request consumed the token");
}

#[tokio::test]
async fn without_a_certificate_there_is_no_session_and_no_renewal() {
    let central = Central::start().await;
    let mut stranger = stranger(&central).await;
    let hello = Hello { protocol_version: PROTOCOL_VERSION, instance_id: "x".into(), ..Hello::default() };
    let hello = tokio_stream::once(NodeMessage { body: Some(ToCentral::Hello(hello)) });
    assert_eq!(stranger.session(hello).await.unwrap_err().code(), Code::Unauthenticated);
    let renew = RenewRequest { csr_der: vec![] };
    assert_eq!(stranger.renew(renew).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(stranger.tunnel(tokio_stream::empty()).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_node_and_ends_in_time() {
    let central = Central::start_with(&PLAIN.replace("[link]", "[link]\ncertificate_validity_s = 3600")).await;
    let node = Node::join(&central, "n1").await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr_der = rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let renewed = node.client().await.renew(RenewRequest { csr_der }).await.unwrap().into_inner();
    assert_eq!(renewed.node_id, node.id);
    let now = roost_central::clock::now_unix_ms();
    assert!((now + 3_500_000..=now + 3_600_000).contains(&renewed.not_after_unix_ms));
    let broken = node.client().await.renew(RenewRequest { csr_der: b"x".to_vec() }).await.unwrap_err();
    assert_eq!(broken.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn another_protocol_version_is_refused_with_both_numbers() {
    let central = Central::start().await;
    let node = Node::join(&central, "n1").await;
    let mut session = node.open(Hello { protocol_version: 99, ..node.hello(0) }).await;
    let error = session.next().await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("99") && error.message().contains(&PROTOCOL_VERSION.to_string()), "{error:?}");
}

#[tokio::test]
async fn a_newer_session_fences_the_older_and_gets_the_desired_state() {
    let central = Central::start().await;
    let (node, mut older) = Node::ready(&central, "n1", 4).await;
    let mut newer = node.connect(0).await;
    assert_eq!(older.next().await.unwrap_err().code(), Code::Aborted);
    newer.heartbeat(true, Some(status(4)), &[]).await;
    assert_eq!(central.post("/sandboxes", r#"{"template":"bare"}"#).await.status, 201);
    assert_eq!(newer.desired().await.sandboxes.len(), 1);
}

#[tokio::test]
async fn a_gap_in_the_heartbeats_asks_for_everything() {
    let central = Central::start().await;
    let node = Node::join(&central, "n1").await;
    let mut session = node.connect(0).await;
    assert!(session.heartbeat_as(1, false, None, &[]).await, "the first one must be full");
    assert!(!session.heartbeat_as(2, true, Some(status(4)), &[]).await);
    assert!(!session.heartbeat_as(3, false, None, &[]).await);
    assert!(session.heartbeat_as(5, false, None, &[]).await);
    assert!(session.heartbeat_as(6, false, None, &[]).await, "only a full one mends a gap");
    assert!(!session.heartbeat_as(7, true, None, &[]).await);
}

#[tokio::test]
async fn an_unreadable_entry_does_not_silence_the_rest_of_a_heartbeat() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare"}"#).await.json();
    let id = made["id"].as_str().unwrap();
    session.desired().await;
    let mut nonsense = seen(id, Phase::Ready, 7);
    nonsense.sandbox_id = "../etc".into();
    let mut unknown = seen(id, Phase::Ready, 8);
    unknown.phase = 99;
    assert!(!session.heartbeat(false, None, &[nonsense, unknown, seen(id, Phase::Starting, 2)]).await);
    central.wait_for_phase(id, "Starting").await;
}

#[tokio::test]
async fn a_node_that_lost_its_ledger_gets_everything_again() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    for _ in 0..2 {
        central.post("/sandboxes", r#"{"template":"bare"}"#).await;
        session.desired().await;
    }
    session.send(ToCentral::DesiredAck(DesiredAck { generation: 0, resync: true })).await;
    let desired = session.desired().await;
    assert!(desired.full);
    assert_eq!((desired.generation, desired.sandboxes.len()), (2, 2));
}

#[tokio::test]
async fn after_a_restart_of_central_a_node_in_step_is_sent_nothing() {
    let central = Central::start().await;
    let (node, mut session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare"}"#).await.json();
    let id = made["id"].as_str().unwrap().to_owned();
    session.desired().await;
    session.heartbeat(false, None, &[seen(&id, Phase::Ready, 1)]).await;
    drop(session);
    let central = central.restart().await;
    assert_eq!(central.get(&format!("/nodes/{}", node.id)).await.json()["phase"], "Online");
    assert_eq!(central.get(&format!("/sandboxes/{id}")).await.json()["observed"]["phase"], "Ready");

    let mut session = node.at(&central).connect(1).await;
    // The first message is the ack, so nothing was desired before.
    assert!(!session.heartbeat(true, None, &[seen(&id, Phase::Ready, 1)]).await);
    central.post(&format!("/sandboxes/{id}/stop"), "").await;
    let desired = session.desired().await;
    assert_eq!((desired.full, desired.base_generation, desired.generation), (false, 1, 2));
}

#[tokio::test]
async fn a_node_ahead_of_a_restored_database_is_brought_back_in_step() {
    let central = Central::start().await;
    let node = Node::join(&central, "n1").await;
    let mut session = node.connect(40).await;
    let desired = session.desired().await;
    assert!(desired.full && desired.sandboxes.is_empty());
    assert_eq!(desired.generation, 41);
}

#[tokio::test]
async fn a_removed_node_has_no_way_back() {
    let central = Central::start().await;
    let node = Node::join(&central, "n1").await;
    assert_eq!(central.get(&format!("/nodes/{}", node.id)).await.json()["phase"], "Enrolled");
    let session = node.connect(0).await;
    central.delete(&format!("/nodes/{}", node.id)).await.assert_problem(409, "node-not-offline");
    drop(session);

    let idle = Node::join(&central, "n2").await;
    assert_eq!(central.delete(&format!("/nodes/{}", idle.id)).await.status, 204);
    central.get(&format!("/nodes/{}", idle.id)).await.assert_problem(404, "node-not-found");
    let hello = tokio_stream::once(NodeMessage { body: Some(ToCentral::Hello(idle.hello(0))) });
    assert_eq!(idle.client().await.session(hello).await.unwrap_err().code(), Code::Unauthenticated);
}

/// A stolen node goes on for as long as it likes.
#[tokio::test]
async fn a_node_that_is_connected_is_cut_off_by_force_alone() {
    let central = Central::start().await;
    let (node, mut session) = Node::ready(&central, "n1", 4).await;
    let path = format!("/nodes/{}", node.id);
    let problem = central.delete(&path).await.assert_problem(409, "node-not-offline");
    assert!(problem["detail"].as_str().unwrap().contains("--force"), "{problem}");
    assert_eq!(central.delete(&format!("{path}?force=true")).await.status, 204);
    crate::harness::soon("the end of its session", async { while session.next().await.is_ok() {} }).await;
    central.get(&path).await.assert_problem(404, "node-not-found");
    let hello = tokio_stream::once(NodeMessage { body: Some(ToCentral::Hello(node.hello(0))) });
    assert_eq!(node.client().await.session(hello).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_silent_node_gets_no_sandbox_and_says_why() {
    let silence = "[link]\nstale_after_s = 1\noffline_after_s = 2\nheartbeat_period_ms = 100";
    let central = Central::start_with(&PLAIN.replace("[link]", silence)).await;
    let (node, session) = Node::ready(&central, "n1", 4).await;
    drop(session);
    crate::harness::soon("Offline", async {
        while central.get(&format!("/nodes/{}", node.id)).await.json()["phase"] != "Offline" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let problem = central.post("/sandboxes", r#"{"template":"bare"}"#).await.assert_problem(409, "nothing-fits");
    assert!(problem["errors"][0]["problem"].as_str().unwrap().contains("Offline"), "{problem}");
    assert_eq!(central.delete(&format!("/nodes/{}", node.id)).await.status, 204);
}

#[tokio::test]
async fn the_welcome_carries_the_configured_period() {
    let central = Central::start_with(&PLAIN.replace("[link]", "[link]\nheartbeat_period_ms = 700")).await;
    let node = Node::join(&central, "n1").await;
    let mut session = node.open(node.hello(0)).await;
    let FromCentral::Welcome(welcome) = session.next().await.unwrap() else { panic!("no welcome") };
    assert_eq!(welcome.heartbeat_period_ms, 700);
    assert!(welcome.features.contains(&"tunnel".to_owned()));
}
