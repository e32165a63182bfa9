//! `roost debug` against a daemon that plays the local API.

use std::path::Path;
use std::pin::Pin;

use futures::Stream;
use roost_proto::model::{self, ResourcesChange};
use roost_proto::node::node_api_server::{NodeApi, NodeApiServer};
use roost_proto::node::node_debug_server::{NodeDebug, NodeDebugServer};
use roost_proto::node::node_support_server::{NodeSupport, NodeSupportServer};
use roost_proto::node::*;
use roost_proto::types::{NodeStatus, Resources, RunState, SandboxObserved};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use crate::fakes;
use crate::run::Roost;

type Answer<T> = Result<Response<T>, Status>;
type Many<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Daemon;

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not played here"))
}

/// A sandbox as the daemon shows it.
fn demo(resources: Option<Resources>, from_central: bool) -> Sandbox {
    let sandbox = fakes::ready(fakes::named("demo"));
    let desired = DesiredSandbox {
        sandbox_id: sandbox.id.to_string(),
        generation: 1,
        run_state: RunState::Running.into(),
        restart_count: 0,
        resources,
        binding: None,
        pool: String::new(),
        paused: false,
        lifetime: None,
        ttl_count: 0,
        spec: Some(sandbox.spec.into()),
        tenant: "default".into(),
        name: "demo".into(),
    };
    let observed = Some(SandboxObserved::new(&sandbox.id, sandbox.observed));
    Sandbox { desired: Some(desired), observed, from_central, created_at_unix_ms: 1 }
}

#[tonic::async_trait]
impl NodeApi for Daemon {
    type WatchSandboxesStream = Many<Sandbox>;
    type ExecStream = Many<ExecOutput>;
    type LogsStream = Many<LogChunk>;
    type UploadFilesStream = Many<UploadFilesProgress>;
    type DownloadFilesStream = Many<DownloadFilesPiece>;
    type ImportImageStream = Many<ImportImageProgress>;
    type PullImageStream = Many<PullImageProgress>;
    type ExportImageStream = Many<ExportImageChunk>;

    async fn create_sandbox(&self, _: Request<CreateSandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn get_sandbox(&self, _: Request<GetSandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn list_sandboxes(&self, _: Request<ListSandboxesRequest>) -> Answer<ListSandboxesResponse> {
        let sandboxes = vec![demo(None, true)];
        Ok(Response::new(ListSandboxesResponse { sandboxes }))
    }
    async fn watch_sandboxes(&self, _: Request<WatchSandboxesRequest>) -> Answer<Self::WatchSandboxesStream> {
        no()
    }
    async fn start_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn stop_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn claim_sandbox(&self, _: Request<ClaimSandboxRequest>) -> Answer<ClaimSandboxResponse> {
        no()
    }
    async fn put_pool(&self, _: Request<PutPoolRequest>) -> Answer<Pool> {
        no()
    }
    async fn remove_pool(&self, _: Request<RemovePoolRequest>) -> Answer<RemovePoolResponse> {
        no()
    }
    async fn list_pools(&self, _: Request<ListPoolsRequest>) -> Answer<ListPoolsResponse> {
        no()
    }
    async fn update_sandbox(&self, request: Request<UpdateSandboxRequest>) -> Answer<Sandbox> {
        let change: ResourcesChange = request.into_inner().resources.unwrap_or_default().into();
        match change.apply(&model::Resources { disk_limit_bytes: 1 << 30, ..model::Resources::default() }) {
            Ok(resources) => Ok(Response::new(demo(Some(resources.into()), false))),
            Err(errors) => Err(Status::invalid_argument(format!("{}: {}", errors[0].field, errors[0].problem))),
        }
    }
    async fn restart_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }

    async fn pause_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }

    async fn resume_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn delete_sandbox(&self, _: Request<SandboxRequest>) -> Answer<Sandbox> {
        no()
    }
    async fn exec(&self, _: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        no()
    }
    async fn logs(&self, _: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        no()
    }
    async fn upload_files(&self, request: Request<Streaming<UploadFilesInput>>) -> Answer<Self::UploadFilesStream> {
        super::copy::take(request.into_inner()).await
    }
    async fn download_files(&self, request: Request<DownloadFilesRequest>) -> Answer<Self::DownloadFilesStream> {
        super::copy::give(&request.into_inner())
    }
    async fn screenshot(&self, _: Request<ScreenshotRequest>) -> Answer<ScreenshotResponse> {
        no()
    }
    async fn import_image(&self, _: Request<Streaming<ImportImageInput>>) -> Answer<Self::ImportImageStream> {
        no()
    }
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        no()
    }
    async fn pull_image(&self, _: Request<PullImageRequest>) -> Answer<Self::PullImageStream> {
        no()
    }
    async fn prune_images(&self, _: Request<PruneImagesRequest>) -> Answer<PruneImagesResponse> {
        no()
    }
    async fn export_image(&self, _: Request<ExportImageRequest>) -> Answer<Self::ExportImageStream> {
        no()
    }
    async fn pin_image(&self, _: Request<PinImageRequest>) -> Answer<PinImageResponse> {
        no()
    }
    async fn remove_image(&self, _: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        no()
    }
    async fn get_node(&self, _: Request<GetNodeRequest>) -> Answer<NodeStatus> {
        Ok(Response::new(fakes::node(fakes::NODE, "gpu-a").status.into()))
    }
}

#[tonic::async_trait]
impl NodeDebug for Daemon {
    async fn state_dump(&self, _: Request<StateDumpRequest>) -> Answer<StateDumpResponse> {
        Ok(Response::new(StateDumpResponse { json: r#"{"ledger":{"sandboxes":1}}"#.into() }))
    }
    async fn list_tasks(&self, _: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let task = TaskInfo { name: "reconcile".into(), state: "idle".into(), age_ms: 3_600_000, state_age_ms: 2_000 };
        Ok(Response::new(ListTasksResponse { tasks: vec![task] }))
    }
    async fn set_log_level(&self, request: Request<SetLogLevelRequest>) -> Answer<SetLogLevelResponse> {
        match request.into_inner().filter.as_str() {
            "nonsense==" => Err(Status::invalid_argument("\"nonsense==\" is no filter")),
            _ => Ok(Response::new(SetLogLevelResponse { previous: "info".into() })),
        }
    }
}

#[tonic::async_trait]
impl NodeSupport for Daemon {
    type CollectSupportStream = Many<SupportPart>;

    async fn examine(&self, request: Request<ExamineRequest>) -> Answer<HostReport> {
        let check = |name: &str, verdict: Verdict, advice: &str| Check {
            area: "kernel".into(),
            name: name.into(),
            verdict: verdict.into(),
            found: "what is there".into(),
            advice: advice.into(),
        };
        let sandboxes = request.into_inner().sandboxes;
        // As on a machine on which few sandboxes fit.
        let pids = if sandboxes > 100 { Verdict::Fail } else { Verdict::Warn };
        let checks = vec![check("kernel", Verdict::Ok, ""), check("processes", pids, "raise it")];
        let (hostname, kernel) = ("gpu-a".to_owned(), "6.1.0".to_owned());
        Ok(Response::new(HostReport { hostname, kernel, daemon_version: "0.1.0".into(), sandboxes, checks }))
    }

    async fn list_starts(&self, request: Request<ListStartsRequest>) -> Answer<ListStartsResponse> {
        let timing = |begin_us, duration_us| roost_proto::types::StageTiming {
            stage: roost_proto::types::Stage::Rootfs.into(),
            begin_us,
            duration_us,
        };
        let start = |number: u64| StartRecord {
            sandbox_id: "sbx-0123456789abcdef".into(),
            name: "demo".into(),
            template: "desktop".into(),
            ended_at_unix_ms: number,
            failure: if number == 1 { "image-missing".into() } else { String::new() },
            stages: vec![timing(0, number * 10_000)],
        };
        let last = u64::from(request.into_inner().last);
        Ok(Response::new(ListStartsResponse { starts: (1..=10.min(last)).map(start).collect() }))
    }

    async fn collect_support(&self, _: Request<CollectSupportRequest>) -> Answer<Self::CollectSupportStream> {
        use support_part::Part;
        let chunk = |path: &str, text: &str| Part::Chunk(SupportChunk { path: path.into(), text: text.into() });
        let parts = [
            Part::Begin(SupportBegin { files: 2 }),
            chunk("log.txt", "one\n"),
            chunk("log.txt", "two\n"),
            chunk("../evil", "x"),
            Part::LeftOut(LeftOut { what: "secrets".into(), why: "they are secret".into() }),
        ];
        let parts = parts.map(|part| Ok(SupportPart { part: Some(part) }));
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }
}

/// A daemon on a socket; it ends when dropped.
pub(crate) struct Node {
    pub(crate) roost: Roost,
    _stop: oneshot::Sender<()>,
}

impl Node {
    pub(crate) fn start() -> Self {
        let roost = Roost::alone();
        let socket = roost.home().join("roostd.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let (listening, is_listening) = std::sync::mpsc::channel();
        let path = socket.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::bind(path).unwrap();
                listening.send(()).unwrap();
                let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
                let server = tonic::transport::Server::builder()
                    .add_service(NodeApiServer::new(Daemon))
                    .add_service(NodeDebugServer::new(Daemon))
                    .add_service(NodeSupportServer::new(Daemon));
                // The sender's end, dropped, ends the server as well.
                let stopped = async { drop(stopped.await) };
                server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
            });
        });
        is_listening.recv().unwrap();
        let roost = roost.var("ROOST_NODE_SOCKET", socket.to_str().unwrap());
        Self { roost, _stop: stop }
    }
}

#[test]
fn the_nodes_sandboxes_are_listed_and_shown() {
    let node = Node::start();
    let table = node.roost.run(&["debug", "sandboxes"]).ok();
    assert!(table.lines().nth(1).unwrap().starts_with("demo   Ready    Running   central   1 / 1"), "{table}");
    assert!(node.roost.run(&["debug", "sandbox", "demo"]).ok().contains("Owner:"));
    assert!(node.roost.run(&["debug", "sandbox", "other"]).failed(3).contains("roost debug sandboxes"));
}

#[test]
fn limits_of_a_sandbox_of_the_node_itself_are_changed_over_its_socket() {
    let node = Node::start();
    let set = |extra: &[&str]| {
        let args = [&["sandbox", "set", "demo", "--socket"], extra].concat();
        node.roost.run(&args)
    };
    assert_eq!(set(&["--disk-limit", "2Gi"]).ok(), "demo changed\n");
    let json: serde_json::Value = serde_json::from_str(&set(&["--pids", "300", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["resources"]["pids_limit"], 300);
    assert!(set(&["--disk-limit", "512Mi"]).failed(2).contains("can only be raised"));
    assert!(set(&["--pids", "300", "--wait"]).failed(2).contains("--wait"));
    let other = node.roost.run(&["sandbox", "set", "other", "--pids", "300", "--socket"]).failed(3);
    assert!(other.contains("no sandbox \"other\" on this node"), "{other}");
}

#[test]
fn a_trace_is_a_chart_for_people_and_timings_for_programs() {
    let node = Node::start();
    let chart = node.roost.run(&["debug", "trace", "demo"]).ok();
    assert!(chart.starts_with("demo Ready, last start 231 ms\n\n"), "{chart}");
    assert!(
        chart.lines().any(|line| line.starts_with("display_container     61 ms  26%  ") && line.contains('█')),
        "{chart}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&node.roost.run(&["debug", "trace", "demo", "-o", "json"]).ok()).unwrap();
    assert_eq!(json[3]["stage"], "display_container");
}

#[test]
fn the_daemon_tells_of_itself() {
    let node = Node::start();
    assert!(node.roost.run(&["debug", "tasks"]).ok().contains("reconcile   idle    2s      60m"));
    assert_eq!(node.roost.run(&["debug", "dump"]).ok(), "{\n  \"ledger\": {\n    \"sandboxes\": 1\n  }\n}\n");
    assert!(node.roost.run(&["debug", "node"]).ok().contains("containerd 1.6.20"));
    assert_eq!(node.roost.run(&["debug", "log-level", "debug"]).ok(), "debug (before: info)\n");
    let error = node.roost.run(&["debug", "log-level", "nonsense=="]).failed(2);
    assert_eq!(error, "error: the daemon refused: \"nonsense==\" is no filter\n");
}

#[test]
fn a_daemon_that_is_not_there_is_told_with_the_way_to_find_it() {
    let roost = Roost::alone();
    let error = roost.run(&["debug", "tasks", "--node-socket", "/nonexistent.sock"]).failed(7);
    assert!(error.starts_with("error: cannot reach the daemon at /nonexistent.sock: No such file"), "{error}");
    assert!(error.contains("ROOST_NODE_SOCKET"), "{error}");
    assert!(Path::new("/nonexistent.sock").metadata().is_err());
}

#[test]
fn many_starts_are_summed_up() {
    let node = Node::start();
    let text = node.roost.run(&["debug", "trace", "--last", "10"]).ok();
    assert!(text.starts_with("this node: 9 starts Ready, p50 60 ms, p99 100 ms"), "{text}");
    assert!(text.contains("1 failed (1 image-missing)"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&node.roost.run(&["debug", "trace", "demo", "--last", "2", "-o", "json"]).ok()).unwrap();
    assert_eq!((json["ready"].as_u64(), json["stages"][0]["p99_us"].as_u64()), (Some(1), Some(20_000)));
}

#[test]
fn a_chart_is_ascii_where_the_locale_is() {
    let node = Node::start();
    let node = Node { roost: node.roost.var("LC_ALL", "C"), ..node };
    let chart = node.roost.run(&["debug", "trace", "demo"]).ok();
    assert!(chart.contains('#') && !chart.contains('█'), "{chart}");
}

#[test]
fn a_doctors_verdict_is_the_exit_code() {
    let node = Node::start();
    let socket = node.roost.home().join("roostd.sock").display().to_string();
    let text = node.roost.run(&["doctor", "--socket", &socket, "--sandboxes", "10"]).ok();
    assert!(text.contains("warn  processes  what is there\n") && text.contains("→ raise it"), "{text}");
    assert!(text.contains("gpu-a (Linux 6.1.0) for 10 sandboxes: fit, 1 to look at"), "{text}");
    let bad = node.roost.run(&["doctor", "--socket", "--sandboxes", "1000"]);
    assert_eq!(bad.code, 1, "{}", bad.stdout);
    assert!(bad.stdout.contains("not fit: 1 to mend"), "{}", bad.stdout);
    let json = node.roost.run(&["doctor", "--socket", "--sandboxes", "10", "-o", "json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["checks"][1]["verdict"], "warn");
}

#[test]
fn a_doctor_without_roostd_says_where_to_look() {
    let roost = Roost::alone().var("PATH", "/nonexistent");
    let error = roost.run(&["doctor", "--roostd", "/nonexistent/roostd"]).failed(1);
    assert!(error.contains("/nonexistent/roostd"), "{error}");
    let program = roost.home().join("roostd");
    let report = r#"{"hostname":"h","kernel":"6.1","daemon_version":"0","sandboxes":1,"checks":[]}"#;
    std::fs::write(&program, format!("#!/bin/sh\n[ \"$1 $2 $3\" = 'doctor --output json' ] && echo '{report}'\n"))
        .unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(roost.run(&["doctor", "--roostd", program.to_str().unwrap()]).ok().contains("h (Linux 6.1)"));
}

#[test]
fn a_bundle_holds_the_parts_and_says_what_is_not_there() {
    let node = Node::start();
    let ended = node.roost.run(&["debug", "bundle", "--out", "b.tar.zst"]);
    assert!(ended.stdout.starts_with("b.tar.zst ("), "{}{}", ended.stdout, ended.stderr);
    let path = node.roost.home().join("b.tar.zst");
    let mut tar = tar::Archive::new(zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap());
    let mut files = std::collections::BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        files.insert(name.split_once('/').unwrap().1.to_owned(), text);
    }
    assert_eq!(files.keys().collect::<Vec<_>>(), ["local/log.txt", "manifest.json"]);
    assert_eq!(files["local/log.txt"], "one\ntwo\n");
    let manifest: serde_json::Value = serde_json::from_str(&files["manifest.json"]).unwrap();
    assert_eq!(manifest["left_out"]["local"][1]["what"], "secrets");
}

#[test]
fn a_bundle_of_nobody_leaves_no_file_and_tells_why() {
    let roost = Roost::alone();
    let error = roost.run(&["debug", "bundle", "--node-socket", "/nonexistent.sock", "--out", "b.tar.zst"]).failed(7);
    assert!(error.contains("/nonexistent.sock"), "{error}");
    assert!(!roost.home().join("b.tar.zst").exists());
}
