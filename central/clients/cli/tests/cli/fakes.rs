//! Things that the server shows.

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{
    CreateSandbox, Node, NodeCapacity, NodeFacts, NodePhase, NodeStatus, Observed, Phase, RunState, Sandbox, Stage,
    StageTiming,
};

pub(crate) const NODE: &str = "node-0123456789abcdef";

pub(crate) fn now_unix_ms() -> u64 {
    u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub(crate) fn sandbox(request: &CreateSandbox) -> Sandbox {
    let mut spec: roost_proto::model::SandboxSpec =
        serde_json::from_str(r#"{"template":"desktop","image":"roost/desktop"}"#).unwrap();
    spec.template = request.template.clone();
    spec.env = request.env.clone();
    Sandbox {
        id: SandboxId::random(),
        name: request.name.clone(),
        tenant: "default".parse().unwrap(),
        node_id: NODE.parse().unwrap(),
        generation: 1,
        run_state: RunState::Running,
        restart_count: 0,
        spec,
        resources: None,
        paused: false,
        lifetime: None,
        ttl_count: 0,
        observed: Observed::pending(),
        created_at_unix_ms: now_unix_ms(),
        observed_at_unix_ms: None,
    }
}

pub(crate) fn named(name: &str) -> Sandbox {
    let request = CreateSandbox {
        template: "desktop".parse().unwrap(),
        profile: None,
        name: None,
        env: Default::default(),
        lifetime: Default::default(),
    };
    Sandbox { name: Some(name.parse().unwrap()), ..sandbox(&request) }
}

pub(crate) fn ready(mut sandbox: Sandbox) -> Sandbox {
    let timing = |stage, begin_us, duration_us| StageTiming { stage, begin_us, duration_us };
    sandbox.observed.phase = Phase::Ready;
    sandbox.observed.stage = None;
    sandbox.observed.observed_generation = sandbox.generation;
    sandbox.observed.revision += 1;
    sandbox.observed.starts += 1;
    sandbox.observed.ready_at_unix_ms = Some(now_unix_ms());
    sandbox.observed.stages = vec![
        timing(Stage::Ledger, 0, 2_000),
        timing(Stage::Namespaces, 2_000, 3_000),
        timing(Stage::Rootfs, 5_000, 40_000),
        timing(Stage::DisplayContainer, 45_000, 61_000),
        timing(Stage::DisplayServer, 106_000, 35_000),
        timing(Stage::Workload, 141_000, 52_000),
        timing(Stage::WindowManager, 193_000, 28_000),
        timing(Stage::FirstFrame, 221_000, 10_000),
    ];
    sandbox
}

pub(crate) fn node(id: &str, name: &str) -> Node {
    Node {
        id: id.parse::<NodeId>().unwrap(),
        name: name.into(),
        phase: NodePhase::Online,
        status: NodeStatus {
            facts: NodeFacts {
                hostname: name.into(),
                kernel: "6.1.0".into(),
                architecture: "x86_64".into(),
                cpus: 2,
                memory_bytes: 24 << 30,
                cgroup_version: "v2".into(),
                containerd_version: "1.6.20".into(),
                daemon_version: "0.1.0".into(),
                boot_id: "b".into(),
            },
            capacity: NodeCapacity {
                cpu_allocatable_millis: 2000,
                memory_allocatable_bytes: 20 << 30,
                sandboxes_max: 1000,
            },
            ..NodeStatus::default()
        },
        cpu_requested_millis: 500,
        memory_requested_bytes: 512 << 20,
        sandboxes: 1,
        last_heartbeat_unix_ms: Some(now_unix_ms()),
        enrolled_at_unix_ms: now_unix_ms() - 3_600_000,
        protocol_version: None,
        certificate: None,
    }
}
