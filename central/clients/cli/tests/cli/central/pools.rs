//! Pools, and claims whose hook ends with the variable STATUS.

use roost_proto::model::{CreateClaim, CreateSandbox, FleetPool};
use serde_json::json as value;

use super::{Recorded, Shared};
use crate::fakes;
use crate::server::{Reply, body, json, problem};

pub(super) fn route(shared: &Shared, request: &Recorded, segments: &[&str]) -> Reply {
    match (request.method.as_str(), segments) {
        ("PUT", ["pools", _]) => json(201, &serde_json::from_slice::<FleetPool>(&request.body).unwrap()),
        ("GET", ["pools"]) => json(200, &value!({"items": [status()]})),
        ("GET", ["pools", "desks"]) => json(200, &status()),
        ("DELETE", ["pools", "desks"]) => http::Response::builder().status(204).body(body("")).unwrap(),
        ("POST", ["claims"]) => claim(shared, request),
        _ => problem(404, "pool-not-found", "there is no such pool: see roost pool ls", &[]),
    }
}

/// One node is full, the other lacks one and says why.
fn status() -> serde_json::Value {
    let on = |name: &str, ready: u32, problem: Option<&str>| {
        value!({"node_id": fakes::NODE, "node": name, "name": "central-0123456789ab-desks", "seen_at_unix_ms": fakes::now_unix_ms(),
            "standing": {"in_step": true, "ready": ready, "starting": 1, "outdated": 0, "hits": 7, "misses": 2,
                "oldest_ready_ms": 5000, "problem": problem}})
    };
    value!({"pool": {"name": "desks", "template": "desktop", "min_ready": 2, "max": 4},
        "nodes": [on("gpu-1", 2, None), on("gpu-2", 1, Some("the image is on no registry"))]})
}

fn claim(shared: &Shared, request: &Recorded) -> Reply {
    let wanted: CreateClaim = serde_json::from_slice(&request.body).unwrap();
    let key = request.header("idempotency-key").expect("every claim has a key");
    let made = CreateSandbox {
        template: "desktop".parse().unwrap(),
        profile: None,
        name: wanted.name,
        env: Default::default(),
        lifetime: Default::default(),
    };
    let sandbox = fakes::ready(fakes::sandbox(&made));
    shared.state().put(sandbox.clone());
    let is_cold = wanted.pool.as_str() == "empty";
    let mut claimed = value!({"claim_id": key, "sandbox": sandbox, "cold": is_cold,
        "steps": [{"name": "files", "duration_us": 1500}, {"name": "hook", "duration_us": 2500}]});
    if is_cold {
        claimed["cold_reason"] = "the pool has no desktop ready".into();
    }
    if let Some(status) = wanted.env.get("STATUS") {
        claimed["hook_exit_code"] = status.parse::<i32>().unwrap().into();
    }
    json(201, &claimed)
}
