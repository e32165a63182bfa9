//! The same claims through the REST API of central.

use std::time::Duration;

use http::Method;
use roost_proto::id::ClaimId;
use roost_tests::system::System;
use roost_tests::{Rest, Result, eventually};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{NOTE, POOL, READY, filled};
use crate::node::set_log_filter;
use crate::progress::{Progress, say};
use crate::report::{Report, Samples};

/// How long the node may take to let a pool go.
const CLEAR_LIMIT: Duration = Duration::from_secs(60);
const TEMPLATE: &str = "bench-waiting";

/// The body of a claim: as much as the claims at the node bring.
fn body() -> Value {
    json!({
        "pool": POOL,
        "env": {"USER_ID": "42", "TASK": "book a flight", "LANGUAGE": "nb"},
        "identity": {"agent": "agt-1"},
        "hostname": "desk",
        // 64 and 1024 bytes in base64.
        "secrets": {"token": format!("{}==", "A".repeat(86))},
        "files": [{"path": "/home/agent/task.json", "content": format!("{}==", "A".repeat(1366))}],
    })
}

async fn prepare(rest: &mut Rest) -> Result<()> {
    let mut template = rest.good(Method::GET, "/api/v1/templates/fluxbox", None).await?;
    let spec = super::waiting()?;
    template["name"] = TEMPLATE.into();
    template["command"] = json!(spec.command);
    template["claim"] = json!(spec.claim);
    rest.good(Method::PUT, &format!("/api/v1/templates/{TEMPLATE}"), Some(&template)).await?;
    let pool = json!({"name": POOL, "template": TEMPLATE, "min_ready": READY, "max": READY, "starts_at_once": 4});
    rest.good(Method::PUT, &format!("/api/v1/pools/{POOL}"), Some(&pool)).await.map(drop)
}

/// Claims one; its sandbox.
async fn take(rest: &mut Rest) -> Result<String> {
    let (status, answer) = rest.claim(&ClaimId::random(), &body()).await?;
    if !status.is_success() || answer["cold"] != false {
        return Err(format!("the claim was not answered from the pool: {status}: {answer}").into());
    }
    Ok(answer["sandbox"]["id"].as_str().ok_or("a claim without sandbox")?.to_owned())
}

/// Claims `n` one after the other, over one connection to central.
///
/// # Errors
/// When a claim is refused, or a pool that was full had none.
pub(super) async fn run(report: &Report, n: usize) -> Result<()> {
    say(report.bench(), "starting a central and a node");
    let system = System::start().await?;
    set_log_filter(&system.node.client).await?;
    let mut rest = system.rest().await?;
    prepare(&mut rest).await?;
    let progress = Progress::new(report.bench(), "claiming desktops through central", n)?;
    let mut whole = Samples::default();
    while whole.len() < n {
        filled(&system.node, READY).await?;
        let mut taken = Vec::new();
        for _ in 0..(n - whole.len()).min(READY as usize / 2) {
            let asked = Instant::now();
            taken.push(take(&mut rest).await?);
            whole.push(asked.elapsed());
            progress.step();
        }
        for id in taken {
            rest.good(Method::DELETE, &format!("/api/v1/sandboxes/{id}"), None).await?;
        }
    }
    drop(progress);
    rest.good(Method::DELETE, &format!("/api/v1/pools/{POOL}"), None).await?;
    eventually("the pool is gone", CLEAR_LIMIT, || async {
        Ok(system.node.client.list().await?.is_empty().then_some(()))
    })
    .await?;
    let note = format!("{NOTE}; POST /claims with an Idempotency-Key, central with SQLite on the same machine");
    report.median_ms("central_p50_ms", &whole, &note)?;
    report.figure("central_p99_ms", whole.percentile_ms(99)?, "ms", whole.len(), &note)
}
