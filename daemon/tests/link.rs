//! The connection to central, against a central with real TLS and a real CA.

// A test fails by a panic, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/central.rs"]
mod central;
#[path = "support/fakes.rs"]
mod fakes;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use central::TestCentral;
use fakes::{FakeNode, desired, eventually, spec};
use roost_proto::convert::WireEnum;
use roost_proto::id::SandboxId;
use roost_proto::model::{NodeStatus, Phase, RunState, Usage};
use roost_proto::node as wire;
use roost_proto::node::central_message::Body as FromCentral;
use roost_proto::node::node_api_client::NodeApiClient;
use roost_proto::node::node_debug_client::NodeDebugClient;
use roostd::api::sandbox::Sandboxes;
use roostd::link::{LinkConfig, LinkHandle, LinkParts, LinkPhase, LinkState};
use roostd::sandbox::Origin;
use roostd::tasks::Tasks;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

/// One node; its state directory outlives its connections.
struct Machine {
    dir: tempfile::TempDir,
    node: FakeNode,
    status: watch::Sender<NodeStatus>,
}

/// A connection that is being held; dropped, it is closed.
struct Held {
    handle: LinkHandle,
    _shutdown: DropGuard,
}

impl Machine {
    fn new() -> Self {
        let (status, _) = watch::channel(fakes::status());
        Self { dir: tempfile::tempdir().unwrap(), node: FakeNode::new(), status }
    }

    fn identity_file(&self) -> PathBuf {
        self.dir.path().join("identity/identity.json")
    }

    fn connect(&self, central: &TestCentral, join: Option<&str>) -> Held {
        let tasks = Tasks::default();
        let config = LinkConfig {
            address: format!("https://{}", central.address),
            abandon_sandboxes: true,
            state_dir: self.dir.path().join("identity"),
            node_name: "n1".into(),
            join: join.map(|join| join.parse().unwrap()),
        };
        let parts = LinkParts {
            sandboxes: Arc::new(self.node.clone()),
            status: self.status.subscribe(),
            api: fakes::api(&self.node, self.dir.path(), &tasks),
            tasks,
        };
        let shutdown = CancellationToken::new();
        let handle = roostd::link::start(config, parts, shutdown.clone()).unwrap();
        Held { handle, _shutdown: shutdown.drop_guard() }
    }

    /// Enrols with a fresh token.
    fn join(&self, central: &TestCentral) -> Held {
        self.connect(central, Some(&central.join_string()))
    }

    fn sandbox(&self) -> SandboxId {
        let id = SandboxId::random();
        self.node.put(desired(&id, Origin::Local));
        id
    }
}

impl Held {
    /// Waits until the last error says `part`.
    async fn last_error(&self, part: &str) {
        let mut state = self.handle.state();
        let is_it = |state: &LinkState| state.last_error.as_ref().is_some_and(|error| error.contains(part));
        if tokio::time::timeout(Duration::from_secs(10), state.wait_for(is_it)).await.is_err() {
            panic!("no error with \"{part}\": {:?}", self.handle.state().borrow());
        }
    }
}

fn ids(heartbeat: &wire::Heartbeat) -> Vec<&str> {
    heartbeat.sandboxes.iter().map(|observed| observed.sandbox_id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_enrols_once_and_comes_back_by_its_certificate() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let join = central.join_string();
    let first = machine.connect(&central, Some(&join));
    let session = central.welcomed().await;
    let enrolments = central.office.enrolments();
    assert_eq!(enrolments.len(), 1);
    let token = join.split('.').next().unwrap();
    assert_eq!((enrolments[0].join_token.as_str(), enrolments[0].node_name.as_str()), (token, "n1"));

    let file = machine.identity_file();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&file).unwrap().contains(token), "a join token is never kept");
    let node = first.handle.state().borrow().node_id.clone().unwrap();
    assert_eq!(session.node, node.as_str());
    first.handle.stopped(Duration::ZERO).await;

    // The used token is still configured: it is not even shown to central.
    let _second = machine.connect(&central, Some(&join));
    assert_eq!(central.welcomed().await.node, node.as_str());
    assert_eq!(central.office.enrolments().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_with_another_ca_gets_no_token() {
    let (central, impostor, machine) = (TestCentral::start().await, TestCentral::start().await, Machine::new());
    let held = machine.connect(&impostor, Some(&central.join_string()));
    held.last_error("the CA certificate that the join string names").await;
    assert_eq!(impostor.office.enrolments(), []);
    assert!(!machine.identity_file().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_not_tried_again_and_the_node_says_what_it_needs() {
    let (central, machine) = (TestCentral::start().await, Machine::new());
    let join = central.join_string();
    let other = Machine::new();
    let held = other.connect(&central, Some(&join));
    eventually("the token is used up", || other.identity_file().exists()).await;
    drop(held);

    let held = machine.connect(&central, Some(&join));
    held.last_error("unknown, used or expired").await;
    let mut state = held.handle.state();
    let state = state.wait_for(|state| state.problem.is_some()).await.unwrap().clone();
    assert!(state.problem.unwrap().contains("join token"), "{state:?}");
    assert_eq!(state.condition().reason, "NoCertificate");
    assert_eq!(central.office.enrolments().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_told_first_and_then_only_what_changes() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let (one, two) = (machine.sandbox(), machine.sandbox());
    let held = machine.join(&central);
    let mut session = central.welcomed().await;
    let full = session.acked_heartbeat(false).await;
    assert_eq!((full.sequence, full.full, ids(&full)), (1, true, vec![one.as_str(), two.as_str()]));
    assert_eq!(full.node.unwrap().facts.unwrap().hostname, "n1");

    machine.node.observe(&two, |observed| observed.phase = Phase::Ready);
    let delta = session.acked_heartbeat(false).await;
    assert_eq!((delta.sequence, delta.full, ids(&delta), &delta.node), (2, false, vec![two.as_str()], &None));

    // Load and usage alone are no news; a capacity is, and brings only itself.
    machine.node.observe(&one, |observed| observed.usage = Some(Usage::default()));
    machine.status.send_modify(|status| status.load.load1_milli = 5);
    machine.status.send_modify(|status| status.capacity.sandboxes_max = 7);
    let news = session.acked_heartbeat(false).await;
    assert_eq!((news.node.as_ref().unwrap().sandboxes_max, ids(&news)), (7, vec![]));

    let mut state = held.handle.state();
    let state = state.wait_for(|state| state.rtt_us.is_some()).await.unwrap().clone();
    assert!(matches!(state.phase, LinkPhase::Connected { .. }));
    assert!(state.clock_offset_ms.unwrap() < -1_000_000, "that central's clock says 1970");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_comes_each_period_and_brings_the_usage() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let id = machine.sandbox();
    let _held = machine.join(&central);
    let mut session = central.session().await;
    session.welcome(50).await;
    session.acked_heartbeat(false).await;
    machine.node.observe(&id, |observed| observed.usage = Some(Usage { pids: 9, ..Usage::default() }));
    let with_usage = loop {
        let heartbeat = session.acked_heartbeat(false).await;
        if !heartbeat.sandboxes.is_empty() {
            break heartbeat;
        }
    };
    assert_eq!(with_usage.sandboxes[0].usage.unwrap().pids, 9);
    let quiet = session.acked_heartbeat(false).await;
    assert_eq!((quiet.full, ids(&quiet), quiet.sequence), (false, vec![], with_usage.sequence + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_is_answered_with_everything() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let (one, two) = (machine.sandbox(), machine.sandbox());
    let _held = machine.join(&central);
    let mut session = central.welcomed().await;
    session.acked_heartbeat(false).await;
    machine.node.observe(&one, |observed| observed.starts = 1);
    assert!(!session.acked_heartbeat(true).await.full);
    let again = session.acked_heartbeat(false).await;
    assert_eq!((again.full, ids(&again)), (true, vec![two.as_str(), one.as_str()]));
}

fn wish(id: &SandboxId, tenant: &str) -> wire::DesiredSandbox {
    wire::DesiredSandbox {
        sandbox_id: id.to_string(),
        generation: 1,
        run_state: RunState::Running.to_wire(),
        restart_count: 0,
        spec: Some(spec().into()),
        tenant: tenant.into(),
        name: String::new(),
        resources: None,
        binding: None,
        pool: String::new(),
        paused: false,
        lifetime: None,
        ttl_count: 0,
    }
}

fn desired_state(generation: u64, base: Option<u64>, sandboxes: Vec<wire::DesiredSandbox>) -> FromCentral {
    FromCentral::DesiredState(wire::DesiredState {
        generation,
        full: base.is_none(),
        base_generation: base.unwrap_or_default(),
        sandboxes,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn desired_state_is_applied_in_order_and_acknowledged_when_durable() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let id = SandboxId::random();
    let _held = machine.join(&central);
    let mut session = central.session().await;
    assert_eq!(session.welcome(60_000).await.desired_generation, 0);
    session.send(desired_state(4, None, vec![wish(&id, "default")])).await;
    session.send(desired_state(5, Some(4), vec![])).await;
    assert_eq!(session.desired_ack().await, wire::DesiredAck { generation: 4, resync: false });
    assert_eq!(session.desired_ack().await, wire::DesiredAck { generation: 5, resync: false });
    assert_eq!(machine.node.applied(), [4, 5]);
    assert_eq!(Sandboxes::get(&machine.node, &id).unwrap().desired.origin, Origin::Central);

    session.send(desired_state(9, Some(8), vec![])).await;
    assert_eq!(session.desired_ack().await, wire::DesiredAck { generation: 5, resync: true });

    // One that cannot be read is not acknowledged and stops nothing.
    session.send(desired_state(6, Some(5), vec![wish(&id, "No Label")])).await;
    session.send(desired_state(7, Some(5), vec![])).await;
    assert_eq!(session.desired_ack().await, wire::DesiredAck { generation: 7, resync: false });
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_of_central_the_node_comes_back_with_what_it_holds() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let held = machine.join(&central);
    let mut session = central.session().await;
    let before = session.welcome(60_000).await;
    session.send(desired_state(3, None, vec![])).await;
    session.desired_ack().await;
    central.kill().await;
    let mut state = held.handle.state();
    state.wait_for(|state| !state.is_connected()).await.unwrap();
    let id = machine.sandbox();
    central.resume().await;
    let mut session = central.session().await;
    let after = session.welcome(60_000).await;
    assert_eq!((after.instance_id, after.desired_generation), (before.instance_id, 3));
    assert_eq!(ids(&session.heartbeat().await), [id.as_str()]);
    assert_eq!(state.borrow().connects, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_of_another_version_is_not_talked_to() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let held = machine.join(&central);
    let mut session = central.session().await;
    session.hello().await;
    let welcome = wire::Welcome { protocol_version: 99, ..wire::Welcome::default() };
    session.send(FromCentral::Welcome(welcome)).await;
    held.last_error("NodeLink version 99 to 99").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_carries_the_nodes_api_and_nothing_more() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let id = machine.sandbox();
    let _held = machine.join(&central);
    let mut session = central.welcomed().await;
    session.acked_heartbeat(false).await;
    let channel = session.tunnel().await;
    let mut api = NodeApiClient::new(channel.clone());
    let list = api.list_sandboxes(wire::ListSandboxesRequest {}).await.unwrap().into_inner();
    assert_eq!(list.sandboxes[0].desired.as_ref().unwrap().sandbox_id, id.as_str());

    // More than every window and queue, in both directions at once.
    let data = |bytes| wire::ImportImageInput { input: Some(wire::import_image_input::Input::Data(vec![1; bytes])) };
    let start = wire::import_image_input::Input::Start(wire::ImportImageStart {
        reference: "roost/desktop".into(),
        size_bytes: 0,
    });
    let archive = std::iter::once(wire::ImportImageInput { input: Some(start) }).chain((0..20).map(|_| data(1 << 20)));
    let archive: Vec<_> = archive.collect();
    let mut progress = api.import_image(tokio_stream::iter(archive)).await.unwrap().into_inner();
    let mut last = None;
    while let Some(message) = progress.message().await.unwrap() {
        last = message.progress;
    }
    let Some(wire::import_image_progress::Progress::Done(image)) = last else { panic!("last was {last:?}") };
    assert_eq!(image.size_bytes, 20 << 20);

    let hidden = NodeDebugClient::new(channel).list_tasks(wire::ListTasksRequest {}).await.unwrap_err();
    assert_eq!(hidden.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_of_what_central_owns_is_refused_in_a_tunnel_too() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let id = SandboxId::random();
    machine.node.put(desired(&id, Origin::Central));
    let _held = machine.join(&central);
    let session = central.welcomed().await;
    let mut api = NodeApiClient::new(session.tunnel().await);
    let refused = api.stop_sandbox(wire::SandboxRequest { sandbox_id: id.to_string() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_in_time_with_a_fresh_key() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    central.office.set_life(Duration::from_secs(2));
    let held = machine.join(&central);
    let session = central.welcomed().await;
    let first = std::fs::read_to_string(machine.identity_file()).unwrap();
    central.office.set_life(Duration::from_secs(3600));
    let mut state = held.handle.state();
    let short = state.borrow().certificate_not_after_unix_ms;
    state.wait_for(|state| state.certificate_not_after_unix_ms > short).await.unwrap();
    assert_eq!(central.office.renewals(), 1);
    assert_eq!(central.office.enrolments().len(), 1);
    let second = std::fs::read_to_string(machine.identity_file()).unwrap();
    let key = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["key_pem"].clone();
    assert_ne!(key(&first), key(&second));

    central.kill().await;
    central.resume().await;
    assert_eq!(central.session().await.node, session.node, "the renewed certificate is the same node's");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_reported_and_a_new_token_replaces_it() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let held = machine.join(&central);
    let first = central.welcomed().await.node;
    held.handle.stopped(Duration::ZERO).await;
    let text = std::fs::read_to_string(machine.identity_file()).unwrap();
    let mut identity: serde_json::Value = serde_json::from_str(&text).unwrap();
    identity["not_after_unix_ms"] = 1.into();
    std::fs::write(machine.identity_file(), identity.to_string()).unwrap();

    central.kill().await;
    let held = machine.connect(&central, None);
    let mut state = held.handle.state();
    let state = state.wait_for(|state| state.problem.is_some()).await.unwrap().clone();
    assert!(state.problem.unwrap().contains("expired"), "{state:?}");
    held.handle.stopped(Duration::ZERO).await;

    central.resume().await;
    let _held = machine.join(&central);
    assert_ne!(central.welcomed().await.node, first);
    assert_eq!(central.office.enrolments().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_central_removed_says_so_and_joins_again_by_a_new_token() {
    let (mut central, machine) = (TestCentral::start().await, Machine::new());
    let held = machine.join(&central);
    let first = central.welcomed().await.node;
    held.handle.stopped(Duration::ZERO).await;
    central.office.remove(&first);

    let held = machine.connect(&central, None);
    let mut state = held.handle.state();
    let state = state.wait_for(|state| state.problem.is_some()).await.unwrap().clone();
    assert!(state.problem.unwrap().contains("does not know the node"), "{state:?}");
    held.handle.stopped(Duration::ZERO).await;

    let _held = machine.join(&central);
    assert_ne!(central.welcomed().await.node, first);
}
