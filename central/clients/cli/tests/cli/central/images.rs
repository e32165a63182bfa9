//! Image imports: a body that streams in while progress streams out.

use bytes::Bytes;
use futures::SinkExt as _;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};

use super::Recorded;
use crate::server::Reply;

pub(super) fn is_import(request: &Recorded) -> bool {
    request.method == "POST" && request.path.starts_with("/nodes/") && request.path.ends_with("/images")
}

/// Takes the whole archive and says so; `bad` archives are refused.
pub(super) async fn import(mut body: Incoming, request: &Recorded) -> Reply {
    let reference = request.param("reference").unwrap_or("from/archive:latest").to_owned();
    let total = request.header("content-length").map_or(0, |length| length.parse::<u64>().unwrap());
    let (mut sender, receiver) = futures::channel::mpsc::channel(4);
    tokio::spawn(async move {
        let mut line = async |text: String| {
            let frame = Frame::data(Bytes::from(format!("{text}\n")));
            sender.send(Ok(frame)).await.unwrap();
        };
        line(step("receive", 0, total)).await;
        let (mut received, mut is_bad) = (0, false);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            is_bad |= data.starts_with(b"bad");
            received += data.len();
        }
        line(step("receive", u64::try_from(received).unwrap(), total)).await;
        if is_bad {
            let problem = r#"{"problem":{"type":"/problems/x","title":"x","status":422,"code":"bad-archive","detail":"the archive holds no index.json"}}"#;
            return line(problem.into()).await;
        }
        line(step("unpack", 1, 2)).await;
        let image = serde_json::json!({"done": {"reference": reference, "digest": format!("sha256:{}", "cd".repeat(32)),
            "size_bytes": received, "imported_at_unix_ms": 1}});
        line(image.to_string()).await;
    });
    let body = StreamBody::new(receiver).boxed_unsync();
    Response::builder().header("content-type", "application/x-ndjson").body(body).unwrap()
}

fn step(name: &str, done: u64, total: u64) -> String {
    serde_json::json!({"step": {"name": name, "done_bytes": done, "total_bytes": total}}).to_string()
}

/// Tells a step and the end of one node, and the failure of another.
pub(super) fn pull(request: &Recorded) -> Reply {
    let wanted: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let event = |kind: &str, data: serde_json::Value| format!("event: {kind}\ndata: {data}\n\n");
    let layer = serde_json::json!({"digest": format!("sha256:{}", "ef".repeat(32)), "done_bytes": 1, "total_bytes": 2,
        "state": "downloading"});
    let step = serde_json::json!({"name": "download", "done_bytes": 1, "total_bytes": 2, "layers": [layer],
        "source": "mirror.example"});
    let image = serde_json::json!({"reference": wanted["reference"], "digest": format!("sha256:{}", "cd".repeat(32)),
        "size_bytes": 3 << 20, "imported_at_unix_ms": 1});
    let problem = serde_json::json!({"type": "/problems/x", "title": "x", "status": 502, "code": "node-error",
        "detail": "no space for layer 1"});
    let mut text = event("step", serde_json::json!({"node": "node-a", "name": "gpu-a", "step": step}));
    text += &event("done", serde_json::json!({"node": "node-a", "name": "gpu-a", "image": image}));
    if wanted["nodes"].as_array().unwrap().is_empty() {
        text += &event("failed", serde_json::json!({"node": "node-b", "name": "gpu-b", "problem": problem}));
    }
    let reply = Response::builder().header("content-type", "text/event-stream");
    reply.body(crate::server::body(text)).unwrap()
}

/// Tells what went from one node and, where all are meant, the failure of
/// another.
pub(super) fn prune(request: &Recorded) -> Reply {
    let wanted: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let image = serde_json::json!({"reference": "old/app:1", "digest": "sha256:0", "size_bytes": 1,
        "imported_at_unix_ms": 1, "unpacked_bytes": 3 << 20});
    let done = serde_json::json!({"node": "node-a", "name": "gpu-a", "removed": [image], "freed_bytes": 2 << 20});
    let mut text = format!(": still there\n\nevent: done\ndata: {done}\n\n");
    if wanted["nodes"].as_array().unwrap().is_empty() {
        let problem = serde_json::json!({"type": "/problems/x", "title": "x", "status": 502, "code": "node-error",
            "detail": "containerd does not answer"});
        let failed = serde_json::json!({"node": "node-b", "name": "gpu-b", "problem": problem});
        text += &format!("event: failed\ndata: {failed}\n\n");
    }
    let reply = Response::builder().header("content-type", "text/event-stream");
    reply.body(crate::server::body(text)).unwrap()
}

/// Five bytes; of a `cut` image there should have been more.
pub(super) fn export(request: &Recorded) -> Reply {
    let is_cut = request.param("reference").is_some_and(|reference| reference.starts_with("cut/"));
    let pieces = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"whole")))]);
    let reply = Response::builder().header("content-length", if is_cut { 500 } else { 5 });
    reply.body(StreamBody::new(pieces).boxed_unsync()).unwrap()
}
