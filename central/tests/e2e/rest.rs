//! What REST answers to requests that are wrong, and to lists.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};

use crate::harness::{Answer, Central, PLAIN, open};
use crate::node::Node;

#[tokio::test]
async fn without_the_right_token_nothing_is_answered() {
    let central = Central::start().await;
    for header in [None, Some("Bearer rat_wrong"), Some("Basic eDp5"), Some("Bearer ")] {
        let request = Request::get("/api/v1/sandboxes").header("host", "x");
        let request = header.iter().fold(request, |request, value| request.header("authorization", *value));
        let answer = central.send(request.body(Full::default()).unwrap()).await;
        answer.assert_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let open = Request::get("/api/v1/version").header("host", "x").body(Full::default()).unwrap();
    assert_eq!(central.send(open).await.json()["node_link_version"], roost_proto::PROTOCOL_VERSION);
}

async fn create(central: &Central, body: impl Into<Bytes>) -> Answer {
    let request = central.request(Method::POST, "/sandboxes").header("content-type", "application/json");
    central.send(request.body(Full::new(body.into())).unwrap()).await
}

fn fields(problem: &serde_json::Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_wrong_body_is_refused_with_what_is_wrong() {
    let central = Central::start().await;
    create(&central, "").await.assert_problem(400, "malformed-body");
    create(&central, "{").await.assert_problem(400, "malformed-body");
    let unknown = create(&central, r#"{"template":"bare","colour":"red"}"#).await;
    assert_eq!(fields(&unknown.assert_problem(422, "invalid-field")), ["colour"]);
    let reserved = create(&central, r#"{"template":"bare","env":{"DISPLAY":":1"}}"#).await;
    assert_eq!(fields(&reserved.assert_problem(422, "invalid-field")), ["env.DISPLAY"]);
    let name = create(&central, r#"{"template":"bare","name":"Not_A_Label"}"#).await;
    assert_eq!(fields(&name.assert_problem(422, "invalid-field")), ["name"]);
    let large = format!(r#"{{"template":"bare","env":{{"A":"{}"}}}}"#, "x".repeat(70_000));
    create(&central, large).await.assert_problem(413, "body-too-large");
    let form = central.request(Method::POST, "/sandboxes").header("content-type", "application/x-www-form-urlencoded");
    central.send(form.body(Full::new("a=b".into())).unwrap()).await.assert_problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn what_does_not_exist_is_named_by_its_kind() {
    let central = Central::start().await;
    create(&central, r#"{"template":"nobody"}"#).await.assert_problem(404, "template-not-found");
    create(&central, r#"{"template":"bare","profile":"nobody"}"#).await.assert_problem(404, "profile-not-found");
    for path in ["/sandboxes/nobody", "/sandboxes/sbx-0000000000000000", "/sandboxes/..%2f..%2fetc"] {
        central.get(path).await.assert_problem(404, "sandbox-not-found");
        central.delete(path).await.assert_problem(404, "sandbox-not-found");
    }
    central.get("/nodes/nobody").await.assert_problem(404, "node-not-found");
    central.get("/templates/No_Name").await.assert_problem(404, "template-not-found");
    central.delete("/profiles/nobody").await.assert_problem(404, "profile-not-found");
    central.get("/nowhere").await.assert_problem(404, "route-not-found");
    central.put("/sandboxes", "{}").await.assert_problem(405, "method-not-allowed");
}

#[tokio::test]
async fn nothing_fits_says_what_to_do_first() {
    let central = Central::start().await;
    let problem = create(&central, r#"{"template":"bare"}"#).await.assert_problem(409, "nothing-fits");
    assert!(problem["detail"].as_str().unwrap().contains("no node is enrolled"), "{problem}");
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let central = Central::start().await;
    let request = central.request(Method::GET, "/sandboxes").header("x-request-id", "mine-7");
    assert_eq!(central.send(request.body(Full::default()).unwrap()).await.header("x-request-id"), "mine-7");
    assert!(central.get("/sandboxes").await.header("x-request-id").starts_with("req-"));
}

#[tokio::test]
async fn pages_and_filters_of_sandboxes() {
    let central = Central::start().await;
    let (node, _session) = Node::ready(&central, "n1", 9).await;
    for n in 0..5 {
        assert_eq!(create(&central, format!(r#"{{"template":"bare","name":"box-{n}"}}"#)).await.status, 201);
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = central.get(&format!("/sandboxes?page_size=2{token}")).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = format!("&page_token={next}");
    }
    assert_eq!(seen, ["box-0", "box-1", "box-2", "box-3", "box-4"]);
    let count =
        async |query: &str| central.get(&format!("/sandboxes{query}")).await.json()["items"].as_array().unwrap().len();
    assert_eq!(count("?template=bare&phase=Pending").await, 5);
    assert_eq!(count("?phase=Ready").await, 0);
    assert_eq!(count(&format!("?node={}", node.id)).await, 5);
    for bad in ["?page_size=0", "?page_size=501", "?page_token=x", "?phase=Happy", "?colour=red", "?node=x"] {
        central.get(&format!("/sandboxes{bad}")).await.assert_problem(422, "invalid-field");
    }
    create(&central, r#"{"template":"bare","name":"box-1"}"#).await.assert_problem(409, "name-taken");
}

#[tokio::test]
async fn templates_and_profiles_are_put_listed_and_removed() {
    let central = Central::start().await;
    let profile = r#"{"name":"p","resources":{"memory_limit_bytes":1}}"#;
    let problem = central.put("/profiles/p", profile).await.assert_problem(422, "invalid-field");
    assert!(fields(&problem).contains(&"resources.memory_limit_bytes"), "{problem}");
    assert_eq!(central.put("/profiles/p", r#"{"name":"p"}"#).await.status, 201);
    assert_eq!(central.put("/profiles/p", r#"{"name":"p"}"#).await.status, 200);
    let elsewhere = central.put("/profiles/q", r#"{"name":"p"}"#).await;
    assert_eq!(fields(&elsewhere.assert_problem(422, "invalid-field")), ["name"]);

    let orphan = central.put("/templates/t", r#"{"name":"t","image":"i","profile":"nobody"}"#).await;
    assert_eq!(fields(&orphan.assert_problem(422, "invalid-field")), ["profile"]);
    assert_eq!(central.put("/templates/t", r#"{"name":"t","image":"i","profile":"p"}"#).await.status, 201);
    let used = central.delete("/profiles/p").await.assert_problem(409, "profile-in-use");
    assert!(used["detail"].as_str().unwrap().contains("templates t:"), "{used}");
    assert_eq!(central.delete("/templates/t").await.status, 204);
    assert_eq!(central.delete("/profiles/p").await.status, 204);
    central.delete("/templates/t").await.assert_problem(404, "template-not-found");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let central = Central::start().await;
    let spec = central.get("/openapi.json").await.json();
    assert!(spec["paths"]["/api/v1/sandboxes"]["post"].is_object());
    assert!(spec["components"]["schemas"]["CreateSandbox"].is_object());
    let methods = ["get", "post", "put", "delete"];
    for (path, operations) in spec["paths"].as_object().unwrap() {
        let concrete = path.replace(['{', '}'], "").replace("/api/v1", "");
        for method in methods {
            let request = central.request(method.to_uppercase().parse().unwrap(), &concrete);
            // Only the head: some answers never end.
            let status = open(central.ends.api, request.body(Full::default()).unwrap()).await.status();
            let is_documented = operations[method].is_object();
            assert_eq!(status != 405, is_documented, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn more_requests_than_allowed_are_shed() {
    let central = Central::start_with(&PLAIN.replace("[api]", "[api]\nrequests_max = 1")).await;
    let requests = (0..64).map(|_| central.get("/sandboxes"));
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.assert_problem(503, "overloaded");
    }
}
