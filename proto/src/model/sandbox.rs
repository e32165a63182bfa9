//! A sandbox as it is seen from outside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::check_env;
use super::{
    BindingState, Ends, FieldError, LastEnd, Lifetime, LifetimeChange, OutOfMemory, Pressure, Resources,
    ResourcesChange, SandboxSpec, Validate,
};
use crate::id::{NodeId, ProfileName, SandboxId, SandboxName, TemplateName, TenantId};

/// What is wanted of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It is to run.
    Running,
    /// It is to hold its state without a process.
    Stopped,
    /// It is to be removed with everything it holds.
    Deleted,
}

/// Where a sandbox is in its life; `docs/lifecycle.md` has the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Phase {
    /// Accepted; the node has not begun.
    Pending,
    /// A start is under way.
    Starting,
    /// X answers, the window manager runs, the probe passed, a frame was seen.
    Ready,
    /// A stop is under way.
    Stopping,
    /// No process; what it holds is kept.
    Stopped,
    /// The last start failed or a part died; `reason` says why.
    Failed,
    /// Removal is under way.
    Deleting,
    /// Nothing of it is left on the node.
    Gone,
    /// Its processes stand still and keep their memory.
    Paused,
}

impl Phase {
    /// Every phase, in the order of the diagram.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Starting,
        Self::Ready,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Deleting,
        Self::Gone,
    ];
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Ready => "Ready",
            Self::Paused => "Paused",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
            Self::Deleting => "Deleting",
            Self::Gone => "Gone",
        })
    }
}

/// The steps of a start, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The request is durable in the ledger, with its id range.
    Ledger,
    /// The image is pulled; only in starts that pull.
    Image,
    /// Namespaces are made and pinned.
    Namespaces,
    /// Cgroup, tmpfs mounts and both root file systems are ready.
    Rootfs,
    /// The display container is created in containerd.
    DisplayContainer,
    /// The X server answered.
    DisplayServer,
    /// The workload container runs.
    Workload,
    /// The window manager manages the screen.
    WindowManager,
    /// The template's own probe passed.
    Readiness,
    /// A frame of the declared geometry was captured.
    FirstFrame,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 10] = [
        Self::Ledger,
        Self::Image,
        Self::Namespaces,
        Self::Rootfs,
        Self::DisplayContainer,
        Self::DisplayServer,
        Self::Workload,
        Self::WindowManager,
        Self::Readiness,
        Self::FirstFrame,
    ];

    /// The name as metrics, benches and JSON spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Image => "image",
            Self::Namespaces => "namespaces",
            Self::Rootfs => "rootfs",
            Self::DisplayContainer => "display_container",
            Self::DisplayServer => "display_server",
            Self::Workload => "workload",
            Self::WindowManager => "window_manager",
            Self::Readiness => "readiness",
            Self::FirstFrame => "first_frame",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How long one stage of a start took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StageTiming {
    /// Which stage.
    pub stage: Stage,
    /// From the acceptance of the start to the begin of the stage, in microseconds.
    pub begin_us: u64,
    /// From its begin to its end, in microseconds.
    pub duration_us: u64,
}

/// What a sandbox uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Memory charged to it (display, workload, tmpfs), in bytes.
    pub memory_bytes: u64,
    /// CPU time used since its cgroup was made, in microseconds.
    pub cpu_us: u64,
    /// Bytes held in `/dev/shm`.
    pub shm_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// What counts against the disk limit, in bytes; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Time lost by waiting; absent where the kernel does not measure it per
    /// cgroup (cgroup v1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// The display as the node runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DisplayState {
    /// X display number inside the sandbox.
    pub number: u32,
}

/// What the node saw of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Generation of the desired state that this answers; 0 before any.
    pub observed_generation: u64,
    /// Rises by one with each change of this observation.
    pub revision: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// While starting: the stage that runs now.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Stable word for why; absent when all is well.
    #[serde(default)]
    pub reason: Option<String>,
    /// One sentence for people, with the next step.
    #[serde(default)]
    pub message: Option<String>,
    /// Stages of the last start, in order.
    #[serde(default)]
    pub stages: Vec<StageTiming>,
    /// Present once the display server answered.
    #[serde(default)]
    pub display: Option<DisplayState>,
    /// Unix time of the last entry into Ready, in milliseconds.
    #[serde(default)]
    pub ready_at_unix_ms: Option<u64>,
    /// How often it was started.
    #[serde(default)]
    pub starts: u32,
    /// Exit code of the workload when it ended by itself.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// What it uses now, as of the last sample.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// How often a part of it was made again after it ended by itself.
    #[serde(default)]
    pub restarts: u32,
    /// Unix time of the next such restart, in milliseconds; present while it
    /// is waited for.
    #[serde(default)]
    pub next_restart_at_unix_ms: Option<u64>,
    /// The last end that nobody asked for.
    #[serde(default)]
    pub last_end: Option<LastEnd>,
    /// Processes that the kernel killed for want of memory.
    #[serde(default)]
    pub out_of_memory: OutOfMemory,
    /// What the kernel enforces now; absent while nothing runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// What came of its claim; absent unless it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingState>,
    /// The next time that will be over; absent while it lives without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Ends>,
}

impl Observed {
    /// A sandbox that nobody has begun to start.
    #[must_use]
    pub fn pending() -> Self {
        Self {
            observed_generation: 0,
            revision: 0,
            phase: Phase::Pending,
            stage: None,
            reason: None,
            message: None,
            stages: Vec::new(),
            display: None,
            ready_at_unix_ms: None,
            starts: 0,
            exit_code: None,
            usage: None,
            restarts: 0,
            next_restart_at_unix_ms: None,
            last_end: None,
            out_of_memory: OutOfMemory::default(),
            limits: None,
            binding: None,
            ends: None,
        }
    }
}

/// A sandbox as central shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Made by central, never reused.
    pub id: SandboxId,
    /// Given by people; unique in the tenant while the sandbox lives.
    #[serde(default)]
    pub name: Option<SandboxName>,
    /// Who owns it.
    pub tenant: TenantId,
    /// Where it was placed.
    pub node_id: NodeId,
    /// Rises with every change of what is wanted.
    pub generation: u64,
    /// What is wanted.
    pub run_state: RunState,
    /// Asked restarts so far.
    pub restart_count: u64,
    /// What it is to be.
    pub spec: SandboxSpec,
    /// Requests and limits in place of those of the spec, when they were
    /// changed since; absent = those of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Whether its processes are to stand still; counts while it is wanted
    /// running.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Lifetime in place of that of the spec, when it was changed since;
    /// absent = that of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Lifetime>,
    /// Times to live that were set so far: each counts from then on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ttl_count: u64,
    /// What the node saw, as of `observed_at_unix_ms`.
    pub observed: Observed,
    /// Unix time of its creation, in milliseconds.
    pub created_at_unix_ms: u64,
    /// Unix time of the node's last word on it, in milliseconds.
    #[serde(default)]
    pub observed_at_unix_ms: Option<u64>,
}

impl Sandbox {
    /// The requests and limits that count.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        self.resources.as_ref().unwrap_or(&self.spec.resources)
    }

    /// The lifetime that counts.
    #[must_use]
    pub fn lifetime(&self) -> &Lifetime {
        self.lifetime.as_ref().unwrap_or(&self.spec.lifetime)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A sandbox that runs on a node and that central's database did not know,
/// because it went back in time; kept until somebody decides on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Orphan {
    /// What its node says of it; `name` is the one that it had.
    pub sandbox: Sandbox,
    /// Unix time at which it was found, in milliseconds.
    pub found_at_unix_ms: u64,
}

/// The body of `POST /api/v1/orphans/{sandbox}/adopt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AdoptOrphan {
    /// Its name from now on; absent = the one that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SandboxName>,
}

/// The body of `PATCH /api/v1/sandboxes/{sandbox}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateSandbox {
    /// New requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesChange>,
    /// New times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<LifetimeChange>,
}

impl Validate for UpdateSandbox {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        if self.resources.is_none() && self.lifetime.is_none() {
            errors.push(FieldError::new(format!("{path}resources"), "must be given, or lifetime"));
        }
    }
}

/// The body of `POST /api/v1/sandboxes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateSandbox {
    /// Template to make it from.
    pub template: TemplateName,
    /// Profile; absent = the template's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SandboxName>,
    /// Environment laid over the template's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Laid over the lifetime of template and profile.
    #[serde(default, skip_serializing_if = "LifetimeChange::is_nothing")]
    pub lifetime: LifetimeChange,
}

impl Validate for CreateSandbox {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        check_env(&self.env, path, errors);
        self.lifetime.check(&format!("{path}lifetime."), errors);
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Page<T> {
    /// The items of this page, in a stable order.
    pub items: Vec<T>,
    /// Give this as `page_token` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
