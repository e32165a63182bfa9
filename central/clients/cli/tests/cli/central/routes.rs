//! Requests whose answer is one document.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::model::{CreateSandbox, Phase, RunState, Sandbox, Stage, UpdateSandbox};
use serde_json::json as value;

use super::{Recorded, Shared, streams};
use crate::fakes;
use crate::server::{HangUp, Reply, body, json, problem};

/// Time between two phases: long enough to be seen, short enough to wait for.
const STEP: Duration = Duration::from_millis(15);

pub(super) fn route(shared: &Arc<Shared>, request: &Recorded) -> Result<Reply, HangUp> {
    let segments: Vec<_> = request.path.split('/').skip(1).collect();
    Ok(match (request.method.as_str(), segments.as_slice()) {
        ("POST", ["sandboxes"]) => return create(shared, request),
        ("GET", ["sandboxes"]) => list(shared, request),
        ("POST", ["sandboxes:batch"]) => create_many(shared, request),
        ("POST", ["sandboxes:batch-delete"]) => delete_many(shared, request),
        ("GET", ["watch", "sandboxes"]) => streams::watch(shared, request),
        (_, ["sandboxes", name, rest @ ..]) => one(shared, request, name, rest),
        ("GET", ["nodes"]) => json(200, &value!({"items": shared.state().nodes})),
        ("GET", ["nodes", id]) => node(shared, id),
        ("DELETE", ["nodes", _]) => http::Response::builder().status(204).body(body("")).unwrap(),
        ("DELETE", ["nodes", _, "images"]) => http::Response::builder().status(204).body(body("")).unwrap(),
        ("GET", ["nodes", _, "images", "export"]) => super::images::export(request),
        ("POST", ["join-tokens"]) => join_token(request),
        ("GET", ["join-tokens"]) => json(
            200,
            &value!({"items": [{"id": "join-0123456789abcdef", "created_at_unix_ms": 1, "expires_at_unix_ms": 2}]}),
        ),
        ("GET", ["images"]) => json(
            200,
            &value!({"items": [{"reference": "roost/desktop:latest", "digest": format!("sha256:{}", "ab".repeat(32)),
                "size_bytes": 300_000_000, "nodes": [fakes::NODE]}]}),
        ),
        ("POST", ["images", "pull"]) => super::images::pull(request),
        ("POST", ["images", "prune"]) => super::images::prune(request),
        ("GET", ["version"]) => json(200, &value!({"version": "0.1.0"})),
        (_, ["pools" | "claims", ..]) => super::pools::route(shared, request, &segments),
        (_, ["templates" | "profiles", ..]) => catalog(shared, request, &segments),
        _ => problem(404, "route-not-found", "there is nothing here", &[]),
    })
}

fn create(shared: &Arc<Shared>, request: &Recorded) -> Result<Reply, HangUp> {
    let wanted: CreateSandbox = serde_json::from_slice(&request.body).unwrap();
    let key = request.header("idempotency-key").expect("every create has a key").to_owned();
    let mut state = shared.state();
    if let Some(known) = state.answers.get(&key) {
        return Ok(json(201, known));
    }
    if wanted.template.as_str() != "desktop" {
        let detail = "there is no template \"nope\": see roost template ls";
        return Ok(problem(404, "template-not-found", detail, &[("template", "does not exist")]));
    }
    if wanted.name.as_ref().is_some_and(|name| state.find(name.as_str()).is_some()) {
        return Ok(problem(409, "name-taken", "the name is taken: choose another", &[]));
    }
    let sandbox = fakes::sandbox(&wanted);
    state.answers.insert(key, sandbox.clone());
    let id = state.put(sandbox.clone());
    let is_lost = state.lost_creates > 0;
    state.lost_creates = state.lost_creates.saturating_sub(1);
    drop(state);
    tokio::spawn(start(Arc::clone(shared), id));
    if is_lost { Err(HangUp) } else { Ok(json(201, &sandbox)) }
}

/// Those of another template are refused.
fn create_many(shared: &Arc<Shared>, request: &Recorded) -> Reply {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let wanted: Vec<CreateSandbox> = serde_json::from_value(body["sandboxes"].clone()).unwrap();
    let one = |wanted: &CreateSandbox| {
        if wanted.name.as_ref().is_some_and(|name| name.as_str().ends_with("-2")) {
            return value!({"problem": refused(409, "name-taken", "a sandbox of this name exists")});
        }
        let sandbox = fakes::sandbox(wanted);
        let id = shared.state().put(sandbox.clone());
        tokio::spawn(start(Arc::clone(shared), id));
        value!({"sandbox": sandbox})
    };
    json(200, &value!({"items": wanted.iter().map(one).collect::<Vec<_>>()}))
}

fn delete_many(shared: &Arc<Shared>, request: &Recorded) -> Reply {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let names: Vec<String> = serde_json::from_value(body["sandboxes"].clone()).unwrap();
    let one = |name: &String| match shared.state().find(name).cloned() {
        Some(sandbox) => {
            tokio::spawn(delete(Arc::clone(shared), sandbox.id.to_string()));
            value!({"sandbox": sandbox})
        }
        None => value!({"problem": refused(404, "sandbox-not-found", "there is no such sandbox")}),
    };
    json(200, &value!({"items": names.iter().map(one).collect::<Vec<_>>()}))
}

fn refused(status: u16, code: &str, detail: &str) -> serde_json::Value {
    value!({"type": format!("/problems/{code}"), "title": code, "status": status, "code": code, "detail": detail})
}

/// Plays the node.
async fn start(shared: Arc<Shared>, id: String) {
    let fails = shared.state().start_fails;
    let hangs = shared.state().start_hangs;
    for stage in [Stage::Rootfs, Stage::WindowManager] {
        tokio::time::sleep(STEP).await;
        shared.change(&id, |sandbox| {
            sandbox.observed.observed_generation = sandbox.generation;
            sandbox.observed.phase = Phase::Starting;
            sandbox.observed.stage = Some(stage);
        });
    }
    tokio::time::sleep(STEP).await;
    match fails {
        _ if hangs => {}
        None => shared.change(&id, |sandbox| *sandbox = fakes::ready(sandbox.clone())),
        Some((reason, message)) => shared.change(&id, |sandbox| {
            sandbox.observed.phase = Phase::Failed;
            sandbox.observed.reason = Some(reason.into());
            sandbox.observed.message = Some(message.into());
        }),
    }
}

fn list(shared: &Shared, request: &Recorded) -> Reply {
    let state = shared.state();
    let phase = request.param("phase");
    let all: Vec<_> = state
        .sandboxes
        .values()
        .filter(|sandbox| phase.is_none_or(|phase| sandbox.observed.phase.to_string() == phase))
        .collect();
    let size = state.page_size.unwrap_or(500);
    let begin: usize = request.param("page_token").map_or(0, |token| token.parse().unwrap());
    let items = all.get(begin..all.len().min(begin + size)).unwrap();
    let mut page = value!({"items": items});
    if begin + size < all.len() {
        page["next_page_token"] = (begin + size).to_string().into();
    }
    json(200, &page)
}

fn one(shared: &Arc<Shared>, request: &Recorded, name: &str, rest: &[&str]) -> Reply {
    let Some(sandbox) = shared.state().find(name).cloned() else {
        let detail = format!("there is no sandbox \"{name}\": see roost sandbox ls");
        return problem(404, "sandbox-not-found", &detail, &[]);
    };
    let id = sandbox.id.to_string();
    match (request.method.as_str(), rest) {
        ("GET", []) => json(200, &sandbox),
        ("DELETE", []) => {
            tokio::spawn(delete(Arc::clone(shared), id));
            json(202, &sandbox)
        }
        ("PATCH", []) => update(shared, request, &sandbox),
        ("POST", [verb]) => ask(shared, &sandbox, verb),
        ("GET", ["screenshot"]) => png(),
        ("GET", ["logs"]) => streams::logs(request),
        (_, ["files"]) => crate::copy::route(request),
        _ => problem(404, "route-not-found", "there is nothing here", &[]),
    }
}

fn ask(shared: &Arc<Shared>, sandbox: &Sandbox, verb: &str) -> Reply {
    let id = sandbox.id.to_string();
    shared.change(&id, |sandbox| {
        sandbox.generation += 1;
        sandbox.run_state = if verb == "stop" { RunState::Stopped } else { RunState::Running };
    });
    let shared = Arc::clone(shared);
    if verb == "stop" {
        tokio::spawn(async move {
            tokio::time::sleep(STEP).await;
            shared.change(&id, |sandbox| {
                sandbox.observed.observed_generation = sandbox.generation;
                sandbox.observed.phase = Phase::Stopped;
            });
        });
    } else {
        tokio::spawn(start(shared, id));
    }
    json(202, sandbox)
}

/// The node refuses less memory than a gibibyte.
fn update(shared: &Arc<Shared>, request: &Recorded, sandbox: &Sandbox) -> Reply {
    if request.header("if-match").is_some_and(|tag| tag != format!("\"{}\"", sandbox.generation)) {
        return problem(412, "generation-mismatch", "it was changed since: look at it again", &[]);
    }
    let body: UpdateSandbox = serde_json::from_slice(&request.body).unwrap();
    let resources = match body.resources.unwrap_or_default().apply(sandbox.resources()) {
        Ok(resources) => resources,
        Err(errors) => {
            let fields: Vec<_> = errors.iter().map(|e| (e.field.as_str(), e.problem.as_str())).collect();
            return problem(422, "invalid-field", "one field must be mended", &fields);
        }
    };
    let id = sandbox.id.to_string();
    let before = sandbox.resources().clone();
    shared.change(&id, |sandbox| {
        sandbox.generation += 1;
        sandbox.resources = Some(resources.clone());
    });
    let changed = shared.state().find(&id).cloned().unwrap();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(STEP).await;
        shared.change(&id, |sandbox| {
            sandbox.observed.observed_generation = sandbox.generation;
            let is_refused = resources.memory_limit_bytes < 1 << 30;
            sandbox.observed.limits = Some(if is_refused { before } else { resources });
            sandbox.observed.reason = is_refused.then(|| "limits-in-use".into());
            sandbox.observed.message = is_refused.then(|| "memory is in use".into());
        });
    });
    json(202, &changed)
}

async fn delete(shared: Arc<Shared>, id: String) {
    shared.change(&id, |sandbox| {
        sandbox.generation += 1;
        sandbox.observed.phase = Phase::Deleting;
    });
    tokio::time::sleep(STEP).await;
    shared.remove(&id);
}

fn png() -> Reply {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend(1280_u32.to_be_bytes());
    png.extend(800_u32.to_be_bytes());
    http::Response::builder().header("content-type", "image/png").body(body(png)).unwrap()
}

fn node(shared: &Shared, id: &str) -> Reply {
    match shared.state().nodes.iter().find(|node| node.id.as_str() == id) {
        Some(node) => json(200, node),
        None => problem(404, "node-not-found", "there is no such node: see roost node ls", &[]),
    }
}

fn join_token(request: &Recorded) -> Reply {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let expires = fakes::now_unix_ms() + body["expires_in_s"].as_u64().unwrap() * 1000;
    json(201, &value!({"id": "join-0123456789abcdef", "token": "rjt_secret", "expires_at_unix_ms": expires}))
}

fn catalog(shared: &Shared, request: &Recorded, segments: &[&str]) -> Reply {
    let mut state = shared.state();
    macro_rules! serve {
        ($map:ident) => {
            match (request.method.as_str(), segments) {
                ("GET", [_]) => json(200, &value!({"items": state.$map.values().collect::<Vec<_>>()})),
                ("GET", [_, name]) => match state.$map.get(*name) {
                    Some(found) => json(200, found),
                    None => problem(404, "not-found", &format!("there is no {name}"), &[]),
                },
                ("PUT", [_, name]) => {
                    let item = serde_json::from_slice(&request.body).unwrap();
                    state.$map.insert((*name).into(), item);
                    json(200, &state.$map[*name])
                }
                ("DELETE", [_, name]) if state.$map.remove(*name).is_some() => json(200, &value!({})),
                _ => problem(404, "not-found", "there is nothing to delete", &[]),
            }
        };
    }
    if segments.first() == Some(&"templates") { serve!(templates) } else { serve!(profiles) }
}
