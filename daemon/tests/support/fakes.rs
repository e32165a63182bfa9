//! The rest of the daemon as the API and the link see it: fakes at their own
//! traits. Programs are real processes of this machine.

// Each test target uses a part of this.
#![allow(dead_code)]

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roost_proto::convert::InvalidMessage;
use roost_proto::id::{PoolName, SandboxId, SandboxName, TenantId};
use roost_proto::model::{
    HostReport, ImageInfo, ImageRef, NodeFacts, NodeStatus, Observed, Phase, Pool, PoolSpec, PullPolicy, RunState,
    SandboxSpec, StartRecord, SupportPart, UpdateSandbox,
};
use roostd::api::claim::Claims;
use roostd::api::debug::DebugSource;
use roostd::api::exec::{ExecControl, ExecError, ExecRunner, ExecSession, ExecSpec, TerminalSize};
use roostd::api::files::{Files, FilesError, Tree};
use roostd::api::image::{Archive, ImageStore, Pull};
use roostd::api::logs::LogFiles;
use roostd::api::sandbox::Sandboxes;
use roostd::api::screenshot::{Png, ScreenshotError, Screenshots};
use roostd::api::support::SupportSource;
use roostd::api::{Api, ApiParts};
use roostd::containerd::image::archive::ArchiveError;
use roostd::containerd::image::source::BlobStream;
use roostd::containerd::image::{ImageError, Progress};
use roostd::host::inside::copy::Inside;
use roostd::link::NodeSandboxes;
use roostd::logging::LoggingError;
use roostd::sandbox::claim::Bound;
use roostd::sandbox::manager::claim::{Claim, From};
use roostd::sandbox::{ApplyError, Desired, Origin, RequestError, View};
use roostd::tasks::Tasks;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// A spec that every test may use.
pub(crate) fn spec() -> SandboxSpec {
    serde_json::from_str(r#"{"template":"bare","image":"roost/desktop"}"#).unwrap()
}

/// A wish of nobody in particular.
pub(crate) fn desired(id: &SandboxId, origin: Origin) -> Desired {
    Desired {
        id: id.clone(),
        name: None,
        tenant: TenantId::try_from("default".to_owned()).unwrap(),
        origin,
        generation: 1,
        run_state: RunState::Running,
        restart_count: 0,
        spec: spec(),
        resources: None,
        asked_generation: None,
        created_at_unix_ms: 1_700_000_000_000,
        pool: None,
        binding: None,
        unconfirmed: false,
        paused: false,
        lifetime: None,
        ttl_count: 0,
        clock: None,
        brings_files: false,
    }
}

#[derive(Default)]
struct Table {
    views: Vec<View>,
    generation: u64,
    applied: Vec<u64>,
}

/// Sandboxes without containers; cheap to clone.
#[derive(Clone)]
pub(crate) struct FakeNode {
    table: Arc<Mutex<Table>>,
    changes: watch::Sender<u64>,
}

impl FakeNode {
    pub(crate) fn new() -> Self {
        Self { table: Arc::default(), changes: watch::Sender::new(0) }
    }

    /// Adds or replaces a wish.
    pub(crate) fn put(&self, desired: Desired) -> View {
        let mut table = self.table.lock().unwrap();
        let change = *self.changes.borrow() + 1;
        let id = desired.id.clone();
        let observed =
            table.views.iter().find(|v| v.desired.id == id).map_or_else(Observed::pending, |v| v.observed.clone());
        let view = View { desired: Arc::new(desired), observed, change };
        table.views.retain(|v| v.desired.id != id);
        table.views.push(view.clone());
        drop(table);
        self.changes.send_replace(change);
        view
    }

    /// Changes what is observed.
    pub(crate) fn observe(&self, id: &SandboxId, edit: impl FnOnce(&mut Observed)) {
        let mut table = self.table.lock().unwrap();
        let change = *self.changes.borrow() + 1;
        let at = table.views.iter().position(|v| v.desired.id == *id).unwrap();
        let mut view = table.views.remove(at);
        edit(&mut view.observed);
        view.observed.revision += 1;
        view.change = change;
        table.views.push(view);
        drop(table);
        self.changes.send_replace(change);
    }

    /// Generations that central's desired state was applied with, in order.
    pub(crate) fn applied(&self) -> Vec<u64> {
        self.table.lock().unwrap().applied.clone()
    }

    fn local(&self, id: &SandboxId) -> Result<Desired, RequestError> {
        let view = Sandboxes::get(self, id).ok_or_else(|| RequestError::NotFound(id.clone()))?;
        match view.desired.origin {
            Origin::Central => Err(RequestError::OwnedByCentral(id.clone())),
            Origin::Local | Origin::Pool => Ok((*view.desired).clone()),
        }
    }
}

#[tonic::async_trait]
impl Sandboxes for FakeNode {
    async fn create(&self, id: SandboxId, name: Option<SandboxName>, spec: SandboxSpec) -> Result<View, RequestError> {
        match Sandboxes::get(self, &id) {
            Some(view) if view.desired.spec == spec => Ok(view),
            Some(_) => Err(RequestError::Conflict(id)),
            None => Ok(self.put(Desired { name, spec, ..desired(&id, Origin::Local) })),
        }
    }

    async fn set_run_state(&self, id: &SandboxId, run_state: RunState) -> Result<View, RequestError> {
        let desired = self.local(id)?;
        Ok(self.put(Desired { run_state, generation: desired.generation + 1, ..desired }))
    }

    async fn restart(&self, id: &SandboxId) -> Result<View, RequestError> {
        let desired = self.local(id)?;
        Ok(self.put(Desired { restart_count: desired.restart_count + 1, ..desired }))
    }

    async fn set_paused(&self, id: &SandboxId, paused: bool) -> Result<View, RequestError> {
        let desired = self.local(id)?;
        Ok(self.put(Desired { paused, generation: desired.generation + 1, ..desired }))
    }

    async fn update(&self, id: &SandboxId, change: UpdateSandbox) -> Result<View, RequestError> {
        let desired = self.local(id)?;
        let change = change.resources.unwrap_or_default();
        let resources = change.apply(desired.resources()).map_err(|e| RequestError::Invalid(InvalidMessage(e)))?;
        Ok(self.put(Desired { resources: Some(resources), generation: desired.generation + 1, ..desired }))
    }

    fn get(&self, id: &SandboxId) -> Option<View> {
        self.table.lock().unwrap().views.iter().find(|v| v.desired.id == *id).cloned()
    }

    fn changed_since(&self, change: u64) -> Vec<View> {
        self.table.lock().unwrap().views.iter().filter(|v| v.change > change).cloned().collect()
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[tonic::async_trait]
impl NodeSandboxes for FakeNode {
    async fn apply_central(
        &self,
        generation: u64,
        full: bool,
        base_generation: u64,
        sandboxes: Vec<Desired>,
    ) -> Result<u64, ApplyError> {
        {
            let mut table = self.table.lock().unwrap();
            if !full && base_generation != table.generation {
                return Err(ApplyError::Base { base: base_generation, held: table.generation });
            }
            table.generation = generation;
            table.applied.push(generation);
        }
        for desired in sandboxes {
            self.put(desired);
        }
        Ok(generation)
    }

    fn central_generation(&self) -> u64 {
        self.table.lock().unwrap().generation
    }

    fn changed_since(&self, change: u64) -> Vec<View> {
        Sandboxes::changed_since(self, change)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        Sandboxes::subscribe(self)
    }
}

/// Runs programs on this machine, outside of any sandbox.
pub(crate) struct HostPrograms;

#[tonic::async_trait]
impl ExecRunner for HostPrograms {
    async fn start(&self, id: &SandboxId, spec: ExecSpec) -> Result<ExecSession, ExecError> {
        let mut command = Command::new(&spec.command[0]);
        command.args(&spec.command[1..]).envs(&spec.env).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if spec.stdin { Stdio::piped() } else { Stdio::null() });
        let mut child =
            command.spawn().map_err(|_| ExecError::Command { id: id.clone(), program: spec.command[0].clone() })?;
        let pid = Pid::from_raw(child.id().unwrap().cast_signed());
        Ok(ExecSession {
            stdin: child.stdin.take().map(|stdin| Box::new(stdin) as _),
            stdout: Box::new(child.stdout.take().unwrap()),
            stderr: Some(Box::new(child.stderr.take().unwrap())),
            control: Arc::new(HostProgram { pid, child: tokio::sync::Mutex::new(child) }),
        })
    }
}

struct HostProgram {
    pid: Pid,
    child: tokio::sync::Mutex<Child>,
}

#[tonic::async_trait]
impl ExecControl for HostProgram {
    async fn resize(&self, _: TerminalSize) -> Result<(), ExecError> {
        Ok(())
    }

    async fn signal(&self, signal: i32) -> Result<(), ExecError> {
        // Only fails when it has ended already.
        let _ = kill(self.pid, Signal::try_from(signal).unwrap());
        Ok(())
    }

    async fn wait(&self) -> Result<i32, ExecError> {
        let status = self.child.lock().await.wait().await.unwrap();
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap()))
    }
}

/// Answers with a file that names the sandbox; panics for a sandbox that is
/// not there, as a bug would.
struct FakeScreens(FakeNode);

#[tonic::async_trait]
impl Screenshots for FakeScreens {
    async fn png(&self, id: &SandboxId) -> Result<Png, ScreenshotError> {
        let view = Sandboxes::get(&self.0, id).expect("a bug that a test asked for");
        if view.observed.phase != Phase::Ready {
            return Err(ScreenshotError::NotRunning(id.clone()));
        }
        Ok(Png { bytes: id.as_str().into(), width_px: 4, height_px: 3 })
    }
}

/// Counts the bytes of what it is given and keeps nothing.
struct FakeImages;

#[tonic::async_trait]
impl ImageStore for FakeImages {
    async fn import(
        &self,
        mut archive: Archive,
        _: Option<u64>,
        reference: Option<ImageRef>,
        _: &Progress,
    ) -> Result<ImageInfo, ImageError> {
        let mut size_bytes = 0;
        while let Some(piece) = archive.next().await {
            size_bytes += piece.map_err(ArchiveError::NotTar)?.len() as u64;
        }
        let reference = reference.ok_or(ArchiveError::NoImage)?;
        Ok(ImageInfo::new(reference, "sha256:0".into(), size_bytes, 1))
    }

    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        Ok(Vec::new())
    }

    async fn remove(&self, reference: &ImageRef) -> Result<(), ImageError> {
        Err(ImageError::NotFound { reference: reference.clone() })
    }

    async fn pull(&self, reference: &ImageRef, _: PullPolicy) -> Result<Pull, ImageError> {
        Ok(Pull::Here(Box::new(ImageInfo::new(reference.clone(), "sha256:0".into(), 7, 1))))
    }

    async fn set_pinned(&self, reference: &ImageRef, is_pinned: bool) -> Result<ImageInfo, ImageError> {
        Ok(ImageInfo { pinned: is_pinned, ..ImageInfo::new(reference.clone(), "sha256:0".into(), 7, 1) })
    }

    async fn prune(&self, _: Duration, _: bool) -> Result<(Vec<ImageInfo>, u64), ImageError> {
        Ok((Vec::new(), 0))
    }

    async fn export(&self, reference: &ImageRef) -> Result<(u64, BlobStream), ImageError> {
        Err(ImageError::NotFound { reference: reference.clone() })
    }
}

struct FakeDebug;

#[tonic::async_trait]
impl DebugSource for FakeDebug {
    async fn state(&self) -> serde_json::Value {
        serde_json::json!({ "sandboxes": 0 })
    }

    fn set_log_filter(&self, filter: &str) -> Result<String, LoggingError> {
        match tracing_subscriber::EnvFilter::try_new(filter) {
            Ok(_) => Ok("info".into()),
            Err(source) => Err(LoggingError::Filter { filter: filter.into(), source }),
        }
    }
}

struct FakeSupport;

#[tonic::async_trait]
impl SupportSource for FakeSupport {
    async fn examine(&self, sandboxes: Option<u32>) -> HostReport {
        HostReport {
            hostname: "n1".into(),
            kernel: "6.1".into(),
            daemon_version: "0.1.0".into(),
            sandboxes: sandboxes.unwrap_or(7),
            checks: Vec::new(),
        }
    }

    fn starts(&self, _: Option<&SandboxId>, _: Option<usize>) -> Vec<StartRecord> {
        Vec::new()
    }

    async fn collect(&self, _: Option<usize>) -> Vec<SupportPart> {
        vec![SupportPart::Begin { files: 1 }, SupportPart::Chunk { path: "log.txt".into(), text: "one".into() }]
    }
}

/// Every sandbox has the same files: those of a directory.
struct FakeFiles(std::path::PathBuf);

#[tonic::async_trait]
impl Files for FakeFiles {
    async fn open(&self, id: &SandboxId) -> Result<Box<dyn Tree>, FilesError> {
        let root = std::fs::File::open(&self.0);
        let root = root.map_err(|error| FilesError::Runtime { id: id.clone(), source: Box::new(error) })?;
        Ok(Box::new(Inside { root: root.into(), first_id: 0, uid: 0, gid: 0 }))
    }
}

/// A node that keeps nothing ready.
struct NoPools;

#[tonic::async_trait]
impl Claims for NoPools {
    async fn claim(&self, claim: Claim) -> Result<(View, Bound), RequestError> {
        match claim.from {
            From::Pool(pool) => Err(RequestError::PoolEmpty(pool)),
            From::Sandbox(id) => Err(RequestError::NotFound(id)),
        }
    }

    async fn put(&self, _: PoolSpec) -> Result<Pool, RequestError> {
        Err(RequestError::Full { max: 0 })
    }

    async fn remove(&self, _: &PoolName) -> Result<(), RequestError> {
        Ok(())
    }

    fn list(&self) -> Vec<Pool> {
        Vec::new()
    }
}

/// What a node named `n1` says of itself.
pub(crate) fn status() -> NodeStatus {
    NodeStatus { facts: NodeFacts { hostname: "n1".into(), ..NodeFacts::default() }, ..NodeStatus::default() }
}

/// The API over the fakes; logs lie under `dir`.
pub(crate) fn api(node: &FakeNode, dir: &Path, tasks: &Tasks) -> Api {
    let (_, node_status) = watch::channel(status());
    Api::new(ApiParts {
        sandboxes: Arc::new(node.clone()),
        claims: Arc::new(NoPools),
        volumes: None,
        execs: Arc::new(HostPrograms),
        files: Arc::new(FakeFiles(dir.join("files"))),
        screenshots: Arc::new(FakeScreens(node.clone())),
        images: Arc::new(FakeImages),
        logs: LogFiles { dir: dir.to_path_buf() },
        node: node_status,
        debug: Arc::new(FakeDebug),
        support: Arc::new(FakeSupport),
        tasks: tasks.clone(),
    })
}

/// Asks until it is so; fails after ten seconds of it not being so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => panic!("cannot look at process {pid}: {error}"),
    }
}
