//! First start, configuration, operators' end.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use roost_central::app::{App, default_tenant, issue_join_token, keep_admin_token, new_admin_token};
use roost_central::config::Config;

use crate::harness::{Answer, Central, PLAIN, open};
use crate::node::{Node, enrol};

#[tokio::test]
async fn the_first_start_writes_a_private_token_and_the_second_keeps_it() {
    let central = Central::start().await;
    let file = central.path().join("token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(central.token.starts_with("rat_"));
    assert_eq!(central.get("/sandboxes").await.status, 200);
    let database = std::fs::read(central.config.state_dir.join("central.db")).unwrap();
    let secret = central.token.as_bytes();
    assert!(!database.windows(secret.len()).any(|window| window == secret), "the token is stored in clear");
    let before = central.token.clone();
    let central = central.restart().await;
    assert_eq!(central.token, before);
    assert_eq!(central.get("/sandboxes").await.status, 200);
}

#[tokio::test]
async fn tokens_can_be_made_beside_a_running_central() {
    let mut central = Central::start().await;
    let (store, authority) = App::open_store(&central.config).await.unwrap();
    let tenant = default_tenant().unwrap();
    let join = issue_join_token(&*store, &tenant, authority.serving().fingerprint(), 60).await.unwrap();
    let (secret, fingerprint) = join.token.split_once('.').unwrap();
    assert!(secret.starts_with("rjt_") && fingerprint.len() == 64, "{}", join.token);
    assert!(enrol(&central, &join.token, "n1").await.is_ok());

    let secret = new_admin_token();
    keep_admin_token(&*store, &tenant, &secret, std::time::Duration::ZERO).await.unwrap();
    central.get("/nodes").await.assert_problem(401, "unauthorized");
    central.token = secret.reveal().into();
    assert_eq!(central.get("/nodes").await.json()["items"][0]["name"], "n1");
}

#[tokio::test]
async fn seeds_are_created_once_and_never_changed() {
    let central = Central::start().await;
    let names = |answer: Answer| -> Vec<String> {
        answer.json()["items"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().into()).collect()
    };
    assert_eq!(names(central.get("/templates").await), ["bare", "desktop", "fluxbox", "platform"]);
    assert_eq!(names(central.get("/profiles").await), ["browser", "small"]);
    let changed = r#"{"name":"bare","image":"other/image","profile":"small"}"#;
    assert_eq!(central.put("/templates/bare", changed).await.status, 200);
    let central = central.restart().await;
    assert_eq!(central.get("/templates/bare").await.json()["image"], "other/image:latest");
}

#[tokio::test]
async fn a_bad_seed_stops_the_start_and_names_file_and_field() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("profiles")).unwrap();
    std::fs::write(dir.path().join("profiles/tiny.toml"), "name = \"tiny\"\n[resources]\npids_limit = 1\n").unwrap();
    let text = format!(
        "state_dir = \"{0}/state\"\nseed_dir = \"{0}\"\n{PLAIN}[admin]\nlisten = \"127.0.0.1:0\"\n",
        dir.path().display()
    );
    let config = Config::parse(&text, Path::new("test.toml")).unwrap();
    let error = roost_central::log::chain(&App::build(config).await.unwrap_err());
    assert!(error.contains("tiny.toml") && error.contains("resources.pids_limit"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_field() {
    let central = Central::start().await;
    let mut config = central.config.clone();
    config.link.listen = central.ends.link;
    let error = roost_central::log::chain(&App::build(config).await.unwrap_err());
    assert!(error.contains("link.listen") && error.contains(&central.ends.link.to_string()), "{error}");
}

#[tokio::test]
async fn operators_see_liveness_readiness_and_metrics() {
    let central = Central::start().await;
    let (_node, _session) = Node::ready(&central, "n1", 4).await;
    let made = central.post("/sandboxes", r#"{"template":"bare"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let admin = async |path: &str| {
        let request = Request::get(path).header("host", "x").body(Full::<Bytes>::default()).unwrap();
        let response = open(central.ends.admin, request).await;
        (response.status().as_u16(), http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes())
    };
    assert_eq!(admin("/live").await.0, 200);
    assert_eq!(admin("/ready").await.0, 200);
    let (_, metrics) = admin("/metrics").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in [
        "roost_central_nodes{phase=\"Online\"} 1",
        "roost_central_sandboxes{phase=\"Pending\"} 1",
        "roost_central_node_sessions 1",
        "route=\"/api/v1/sandboxes\",code=\"201\"",
        "operation=\"create_sandbox\"",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn shutdown_ends_endless_answers_and_sessions() {
    let central = Central::start().await;
    let (_node, mut session) = Node::ready(&central, "n1", 4).await;
    let watch = central.request(hyper::Method::GET, "/watch/sandboxes").body(Full::default()).unwrap();
    let watch = open(central.ends.api, watch).await;
    assert_eq!(watch.status(), 200);
    let stop = tokio::spawn(central.stop());
    assert_eq!(session.next().await.unwrap_err().code(), tonic::Code::Unavailable);
    drop(session);
    assert!(stop.await.unwrap(), "central did not end in time");
}
