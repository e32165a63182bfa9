//! The node's API over a real unix socket, with real processes for programs.

// A test fails by a panic, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/fakes.rs"]
mod fakes;
#[path = "api/logs.rs"]
mod logs;

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use fakes::{FakeNode, desired, eventually, is_alive, spec};
use futures::StreamExt;
use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use roost_proto::node as wire;
use roost_proto::node::exec_input::Input;
use roost_proto::node::exec_output::Output;
use roost_proto::node::node_api_client::NodeApiClient;
use roost_proto::node::node_debug_client::NodeDebugClient;
use roostd::api::status::CODE_METADATA_KEY;
use roostd::api::{ApiHandle, ListenError, SocketConfig};
use roostd::sandbox::Origin;
use roostd::tasks::Tasks;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Nobody: a user that is in no group of ours.
const NOBODY: u32 = 65_534;

/// A served socket in a directory of its own.
struct Room {
    dir: tempfile::TempDir,
    node: FakeNode,
    tasks: Tasks,
    shutdown: CancellationToken,
    handle: Option<ApiHandle>,
}

fn config(path: PathBuf) -> SocketConfig {
    SocketConfig { path, group_gid: None, allowed_uids: Vec::new(), allowed_gids: Vec::new() }
}

impl Room {
    fn open() -> Self {
        Self::open_with(|_| ())
    }

    fn open_with(edit: impl FnOnce(&mut SocketConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // So that another user can reach the socket, if its mode allows.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (node, tasks, shutdown) = (FakeNode::new(), Tasks::default(), CancellationToken::new());
        let mut config = config(dir.path().join("api.sock"));
        edit(&mut config);
        let api = fakes::api(&node, &dir.path().join("logs"), &tasks);
        let handle = Some(api.listen(config, shutdown.clone()).unwrap());
        Self { dir, node, tasks, shutdown, handle }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    async fn channel(&self) -> Channel {
        let address = format!("unix:{}", self.socket().display());
        Endpoint::from_shared(address).unwrap().connect().await.unwrap()
    }

    async fn client(&self) -> NodeApiClient<Channel> {
        NodeApiClient::new(self.channel().await)
    }

    /// A sandbox that was made here.
    fn sandbox(&self) -> SandboxId {
        let id = SandboxId::random();
        self.node.put(desired(&id, Origin::Local));
        id
    }

    fn log(&self, id: &SandboxId, name: &str) -> PathBuf {
        let dir = self.dir.path().join("logs").join(id.as_str());
        std::fs::create_dir_all(&dir).unwrap();
        dir.join(name)
    }
}

fn word(status: &Status) -> &str {
    status.metadata().get(CODE_METADATA_KEY).map_or("", |word| word.to_str().unwrap())
}

fn request(id: &SandboxId) -> wire::SandboxRequest {
    wire::SandboxRequest { sandbox_id: id.to_string() }
}

fn create(id: &SandboxId, name: &str) -> wire::CreateSandboxRequest {
    wire::CreateSandboxRequest { sandbox_id: id.to_string(), spec: Some(spec().into()), name: name.into() }
}

#[tokio::test]
async fn a_sandbox_is_made_once_seen_stopped_and_deleted() {
    let room = Room::open();
    let mut client = room.client().await;
    let id = SandboxId::random();
    let made = client.create_sandbox(create(&id, "box")).await.unwrap().into_inner();
    assert!(!made.from_central);
    let again = client.create_sandbox(create(&id, "box")).await.unwrap().into_inner();
    assert_eq!(again, made);
    let stopped = client.stop_sandbox(request(&id)).await.unwrap().into_inner().desired.unwrap();
    assert_eq!(stopped.run_state(), roost_proto::types::RunState::Stopped);
    let restarted = client.restart_sandbox(request(&id)).await.unwrap().into_inner().desired.unwrap();
    assert_eq!(restarted.restart_count, 1);
    client.delete_sandbox(request(&id)).await.unwrap();
    room.node.observe(&id, |observed| observed.phase = Phase::Gone);
    let list = client.list_sandboxes(wire::ListSandboxesRequest {}).await.unwrap().into_inner();
    assert_eq!(list.sandboxes, []);
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_stable_word() {
    let room = Room::open();
    let mut client = room.client().await;
    let id = SandboxId::random();
    let unknown = client.stop_sandbox(request(&id)).await.unwrap_err();
    assert_eq!((unknown.code(), word(&unknown)), (Code::NotFound, "sandbox-not-found"));
    let malformed = wire::SandboxRequest { sandbox_id: "box".into() };
    let malformed = client.start_sandbox(malformed).await.unwrap_err();
    assert_eq!((malformed.code(), word(&malformed)), (Code::InvalidArgument, "invalid-request"));
    assert!(malformed.message().contains("sandbox_id"), "{malformed}");
    room.node.put(desired(&id, Origin::Central));
    let foreign = client.delete_sandbox(request(&id)).await.unwrap_err();
    assert_eq!((foreign.code(), word(&foreign)), (Code::FailedPrecondition, "owned-by-central"));
    let mut other = create(&id, "");
    other.spec.as_mut().unwrap().stop_grace_ms = 1;
    let conflict = client.create_sandbox(other).await.unwrap_err();
    assert_eq!((conflict.code(), word(&conflict)), (Code::AlreadyExists, "sandbox-conflict"));
}

#[tokio::test]
async fn a_panic_costs_the_call_and_not_the_connection() {
    let room = Room::open();
    let mut client = room.client().await;
    let broken = wire::ScreenshotRequest { sandbox_id: SandboxId::random().to_string() };
    assert_eq!(client.screenshot(broken).await.unwrap_err().code(), Code::Internal);
    let id = room.sandbox();
    room.node.observe(&id, |observed| observed.phase = Phase::Ready);
    let shot = wire::ScreenshotRequest { sandbox_id: id.to_string() };
    let png = client.screenshot(shot).await.unwrap().into_inner();
    assert_eq!((png.png, png.width_px, png.height_px), (id.as_str().into(), 4, 3));
}

#[tokio::test]
async fn a_slow_watcher_skips_states_in_between_and_gets_the_last() {
    let room = Room::open();
    let (busy, quiet) = (room.sandbox(), room.sandbox());
    let mut client = room.client().await;
    let mut all = client.watch_sandboxes(wire::WatchSandboxesRequest::default()).await.unwrap().into_inner();
    for starts in 1..=50_000 {
        room.node.observe(&busy, |observed| observed.starts = starts);
    }
    let mut seen = 0;
    let mut has_quiet = false;
    loop {
        let observed = all.message().await.unwrap().unwrap().observed.unwrap();
        has_quiet |= observed.sandbox_id == quiet.as_str();
        seen += 1;
        if observed.starts == 50_000 {
            break;
        }
    }
    assert!(has_quiet, "the watch begins with every sandbox");
    assert!(seen < 50_000, "it saw each of {seen} states: they were queued");
}

#[tokio::test]
async fn the_watch_of_one_sandbox_ends_when_it_is_gone() {
    let room = Room::open();
    let (one, other) = (room.sandbox(), room.sandbox());
    let mut client = room.client().await;
    let watch = wire::WatchSandboxesRequest { sandbox_id: one.to_string() };
    let mut watch = client.watch_sandboxes(watch).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    room.node.observe(&other, |observed| observed.starts = 1);
    room.node.observe(&one, |observed| observed.phase = Phase::Gone);
    let last = watch.message().await.unwrap().unwrap().observed.unwrap();
    assert_eq!((last.sandbox_id.as_str(), last.phase()), (one.as_str(), roost_proto::types::Phase::Gone));
    assert_eq!(watch.message().await.unwrap(), None);
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_daemon() {
    let mut room = Room::open_with(|config| config.group_gid = Some(NOBODY));
    let metadata = std::fs::metadata(room.socket()).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.gid()), (0o660, NOBODY));
    room.shutdown.cancel();
    room.handle.take().unwrap().stopped(Duration::from_secs(5)).await;
    assert!(!room.socket().exists());
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_a_stale_socket_replaced() {
    let room = Room::open();
    let api = fakes::api(&room.node, room.dir.path(), &Tasks::default());
    let second = api.listen(config(room.socket()), room.shutdown.clone()).unwrap_err();
    assert!(matches!(second, ListenError::InUse { .. }), "{second}");
    room.client().await.list_sandboxes(wire::ListSandboxesRequest {}).await.unwrap();

    let stale = room.dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    api.listen(config(stale.clone()), room.shutdown.clone()).unwrap();
    std::os::unix::net::UnixStream::connect(stale).unwrap();

    let file = room.dir.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    let refused = api.listen(config(file.clone()), room.shutdown.clone()).unwrap_err();
    assert!(matches!(refused, ListenError::NotASocket { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

/// Opens an HTTP/2 connection as nobody; the first bytes of the answer.
fn answer_to_nobody(socket: &std::path::Path) -> Vec<u8> {
    // Connects, sends preface and empty settings, prints what comes first.
    let script = r#"
        use IO::Socket::UNIX;
        my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!";
        local $SIG{PIPE} = 'IGNORE';
        syswrite $s, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . "\0\0\0\4\0\0\0\0\0";
        sysread $s, my $answer, 9;
        print $answer;
    "#;
    let mut command = std::process::Command::new("perl");
    let output = command.args(["-e", script]).arg(socket).uid(NOBODY).gid(NOBODY).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_listed_is_hung_up_on() {
    assert!(nix::unistd::geteuid().is_root(), "this test changes users: run it as root");
    // The group owns the file, so the kernel lets nobody connect; the list decides.
    let refused = Room::open_with(|config| config.group_gid = Some(NOBODY));
    assert_eq!(answer_to_nobody(&refused.socket()), b"");
    let by_uid = Room::open_with(|config| {
        config.group_gid = Some(NOBODY);
        config.allowed_uids = vec![NOBODY];
    });
    assert_eq!(answer_to_nobody(&by_uid.socket()).len(), 9, "a settings frame");
    let by_gid = Room::open_with(|config| {
        config.group_gid = Some(NOBODY);
        config.allowed_gids = vec![NOBODY];
    });
    assert_eq!(answer_to_nobody(&by_gid.socket()).len(), 9, "a settings frame");
}

#[tokio::test]
async fn the_inside_of_the_daemon_is_shown_on_the_socket() {
    let room = Room::open();
    let mut client = NodeDebugClient::new(room.channel().await);
    let dump = client.state_dump(wire::StateDumpRequest {}).await.unwrap().into_inner();
    assert!(dump.json.contains("sandboxes"));
    let tasks = client.list_tasks(wire::ListTasksRequest {}).await.unwrap().into_inner().tasks;
    assert_eq!(tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["api"]);
    let set = wire::SetLogLevelRequest { filter: "debug".into() };
    assert_eq!(client.set_log_level(set).await.unwrap().into_inner().previous, "info");
    let bad = wire::SetLogLevelRequest { filter: "roostd=loud=1".into() };
    assert_eq!(word(&client.set_log_level(bad).await.unwrap_err()), "invalid-filter");
    let node = room.client().await.get_node(wire::GetNodeRequest {}).await.unwrap().into_inner();
    assert_eq!(node.facts.unwrap().hostname, "n1");
}

/// One program under way.
struct Exec {
    input: mpsc::Sender<wire::ExecInput>,
    output: Streaming<wire::ExecOutput>,
}

impl Exec {
    async fn start(room: &Room, script: &str, stdin: bool) -> Result<Self, Status> {
        let start = wire::ExecStart {
            sandbox_id: room.sandbox().to_string(),
            command: ["sh", "-c", script].map(Into::into).to_vec(),
            stdin,
            ..wire::ExecStart::default()
        };
        let (input, input_rx) = mpsc::channel(4);
        input.send(wire::ExecInput { input: Some(Input::Start(start)) }).await.unwrap();
        let output = room.client().await.exec(ReceiverStream::new(input_rx)).await?.into_inner();
        Ok(Self { input, output })
    }

    async fn send(&self, input: Input) {
        self.input.send(wire::ExecInput { input: Some(input) }).await.unwrap();
    }

    async fn next(&mut self) -> Option<Output> {
        self.output.message().await.unwrap().map(|message| message.output.unwrap())
    }

    /// Everything until the end: stdout, stderr and the last message.
    async fn finish(mut self) -> (Vec<u8>, Vec<u8>, Option<i32>) {
        let (mut out, mut err, mut code) = (Vec::new(), Vec::new(), None);
        while let Some(output) = self.next().await {
            assert_eq!(code, None, "the exit code is the last message");
            match output {
                Output::Stdout(bytes) => out.extend(bytes),
                Output::Stderr(bytes) => err.extend(bytes),
                Output::ExitCode(exit) => code = Some(exit),
            }
        }
        (out, err, code)
    }

    /// The pid that the script prints first.
    async fn pid(&mut self) -> i32 {
        let Some(Output::Stdout(line)) = self.next().await else { panic!("no pid came") };
        String::from_utf8(line).unwrap().trim().parse().unwrap()
    }
}

#[tokio::test]
async fn a_program_gets_its_input_and_its_exit_code_comes_last() {
    let room = Room::open();
    let exec = Exec::start(&room, "cat; echo oops >&2; exit 3", true).await.unwrap();
    exec.send(Input::Stdin(b"one ".to_vec())).await;
    exec.send(Input::Stdin(b"two".to_vec())).await;
    exec.send(Input::StdinEof(true)).await;
    assert_eq!(exec.finish().await, (b"one two".to_vec(), b"oops\n".to_vec(), Some(3)));
}

#[tokio::test]
async fn output_far_larger_than_every_buffer_arrives_whole() {
    let room = Room::open();
    let exec = Exec::start(&room, "head -c 20000000 /dev/zero", false).await.unwrap();
    let (out, err, code) = exec.finish().await;
    assert_eq!((out.len(), err.len(), code), (20_000_000, 0, Some(0)));
}

#[tokio::test]
async fn a_program_whose_client_leaves_is_killed() {
    let room = Room::open();
    let mut exec = Exec::start(&room, "echo $$; exec sleep 1000", false).await.unwrap();
    let pid = exec.pid().await;
    assert!(is_alive(pid));
    drop(exec);
    eventually("the program is killed", || !is_alive(pid)).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_hold_its_exit_code_back() {
    let room = Room::open();
    let mut exec = Exec::start(&room, "sleep 1000 & echo $!; exit 4", false).await.unwrap();
    let left_behind = exec.pid().await;
    let (_, _, code) = exec.finish().await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(left_behind), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(code, Some(4));
}

#[tokio::test]
async fn a_signal_reaches_the_program() {
    let room = Room::open();
    let mut exec = Exec::start(&room, "echo $$; exec sleep 1000", false).await.unwrap();
    exec.pid().await;
    exec.send(Input::Signal(15)).await;
    assert_eq!(exec.finish().await.2, Some(128 + 15));
}

#[tokio::test]
async fn input_that_was_not_asked_for_is_refused_and_ends_the_program() {
    let room = Room::open();
    let mut exec = Exec::start(&room, "echo $$; exec sleep 1000", false).await.unwrap();
    let pid = exec.pid().await;
    exec.send(Input::Stdin(b"x".to_vec())).await;
    let refused = exec.output.message().await.unwrap_err();
    assert_eq!((refused.code(), word(&refused)), (Code::InvalidArgument, "invalid-request"));
    eventually("the program is killed", || !is_alive(pid)).await;
}

fn import_start(reference: &str) -> wire::ImportImageInput {
    let start = wire::ImportImageStart { reference: reference.into(), size_bytes: 0 };
    wire::ImportImageInput { input: Some(wire::import_image_input::Input::Start(start)) }
}

fn import_data(bytes: usize) -> wire::ImportImageInput {
    wire::ImportImageInput { input: Some(wire::import_image_input::Input::Data(vec![7; bytes])) }
}

#[tokio::test]
async fn an_archive_passes_through_and_the_image_comes_last() {
    let room = Room::open();
    let whole = tokio_stream::iter([import_start("roost/desktop"), import_data(3_000_000), import_data(5)]);
    let mut progress = room.client().await.import_image(whole).await.unwrap().into_inner();
    let mut last = None;
    while let Some(message) = progress.message().await.unwrap() {
        last = message.progress;
    }
    let Some(wire::import_image_progress::Progress::Done(image)) = last else { panic!("last was {last:?}") };
    assert_eq!((image.reference.as_str(), image.size_bytes), ("roost/desktop:latest", 3_000_005));
    let unnamed = room.client().await.import_image(tokio_stream::iter([import_start("")])).await.unwrap();
    let refused = unnamed.into_inner().message().await.unwrap_err();
    assert_eq!((refused.code(), word(&refused)), (Code::InvalidArgument, "invalid-archive"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_ends_with_the_client_that_sends_it() {
    let room = Room::open();
    let address = format!("unix:{}", room.socket().display());
    // A client that dies: its runtime goes, and with it its connection.
    let client = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    client.spawn(async move {
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let endless = futures::stream::iter([import_start("a"), import_data(10)]).chain(futures::stream::pending());
        let mut progress = NodeApiClient::new(channel).import_image(endless).await.unwrap().into_inner();
        while progress.message().await.is_ok() {}
    });
    let is_importing = || room.tasks.list().iter().any(|task| task.name == "import");
    eventually("the import begins", is_importing).await;
    client.shutdown_background();
    eventually("the import ends", || !is_importing()).await;
}

/// Reads a log's stream until it has brought `text`.
async fn read_until(stream: &mut Streaming<wire::LogChunk>, text: &str) -> String {
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).ends_with(text) {
        let Some(chunk) = stream.message().await.unwrap() else { break };
        got.extend(chunk.data);
    }
    String::from_utf8(got).unwrap()
}
