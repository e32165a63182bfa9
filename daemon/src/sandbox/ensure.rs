//! A start, as a chain of phases:
//!
//! ```text
//! NotStarted ─ prepare ─► Prepared ─ run_display ─► DisplayUp ─ run_workload ─► WorkloadUp ─ await_ready ─► Ready
//! ```
//!
//! [`again`] enters the chain further on, for what is made again while the
//! display stays. Each phase is a type that the next step consumes. A step that fails leaves
//! what it made; the driver then calls [`super::teardown::stop`], which undoes
//! any phase. A start is given up only between two calls to containerd, never
//! within one: a call that is cut off may still take effect.

mod again;
pub mod manager;
mod pull;
mod watch;

use std::sync::Arc;

use roost_proto::model::{Readiness, Stage, WindowManager};
use tokio::time::{Duration, Instant};

use super::failure::StartError;
use super::image::PreparedImage;
use super::layout::SandboxDirs;
use super::prepare::{HostPlan, make_namespaces, make_rootfs};
use super::publisher::Publisher;
use super::{Desired, Node, containers, volumes};
use crate::containerd::spec::ContainerSpec;
use crate::containerd::{ContainerId, ContainerImage, Role};
use crate::display::{Cookie, Geometry, Owner, PlatformManager, ReadyFifo, Screenshots, XAddress};
use crate::display::{paint_background, wait_for_window_manager, wait_for_window_title};
use crate::host::{blocking, fault};
use crate::reconcile::ledger::{Record, encode};

pub use again::again;
pub use watch::{Ended, Watch};

/// All that a start needs.
#[derive(Debug)]
pub struct NotStarted<'a> {
    /// The node.
    pub node: &'a Node,
    /// What is wanted.
    pub desired: Arc<Desired>,
    /// What is allocated.
    pub record: &'a Record,
    /// Where stages are published.
    pub publisher: &'a mut Publisher,
    /// Tells when to give up.
    pub watch: Watch<'a>,
}

/// What both containers are made of.
#[derive(Debug)]
struct Making<'a> {
    start: NotStarted<'a>,
    dirs: SandboxDirs,
    workload: Arc<PreparedImage>,
    display: Arc<PreparedImage>,
}

/// Namespaces, cgroup and root file systems are there.
#[derive(Debug)]
pub struct Prepared<'a> {
    making: Making<'a>,
    cookie: Cookie,
    ready: ReadyFifo,
    deadline: Instant,
}

/// The X server answered.
#[derive(Debug)]
pub struct DisplayUp<'a> {
    start: NotStarted<'a>,
    probe: Probe,
}

/// The workload runs.
#[derive(Debug)]
pub struct WorkloadUp<'a> {
    start: NotStarted<'a>,
    probe: Probe,
}

/// What is needed to look at a display from outside.
#[derive(Debug)]
pub struct Probe {
    dirs: SandboxDirs,
    address: XAddress,
    deadline: Instant,
}

fn display_error(error: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::Display(Box::new(error))
}

/// Brings a sandbox from nothing to Ready.
///
/// # Errors
/// See [`StartError`]; what was made stays until a teardown.
pub async fn start(start: NotStarted<'_>) -> Result<(), StartError> {
    start.prepare().await?.run_display().await?.run_workload().await?.await_ready().await
}

impl<'a> NotStarted<'a> {
    async fn prepare(mut self) -> Result<Prepared<'a>, StartError> {
        // The time limit is about starting, not about a slow network.
        self.pull_images().await?;
        let deadline = Instant::now() + Duration::from_millis(self.desired.spec.start_timeout_ms.into());
        self.publisher.stage(Stage::Namespaces);
        let (display, workload) = self.images().await?;
        let dirs = self.node.layout.sandbox(&self.desired.id);
        let plan = HostPlan {
            id: self.desired.id.clone(),
            dirs: dirs.clone(),
            first_id: self.record.first_id,
            uid: workload.account.uid,
            gid: workload.account.gid,
            spec: self.desired.spec.clone(),
            resources: self.desired.resources().clone(),
            display_layers: display.layers.clone(),
            workload_layers: workload.layers.clone(),
            storage: self.node.storage.clone(),
        };
        let namespaces_plan = plan.clone();
        blocking(move || make_namespaces(&namespaces_plan)).await?;
        fault::point("create.namespaces")?;
        self.watch.check()?;
        self.publisher.stage(Stage::Rootfs);
        let owner = Owner { uid: plan.first_id + plan.uid, gid: plan.first_id + plan.gid };
        let cgroups = self.node.cgroups.clone();
        blocking(move || make_rootfs(&plan, &cgroups)).await?;
        fault::point("create.rootfs")?;
        let cookie = Cookie::create(&dirs.xauth(), owner).map_err(display_error)?;
        let ready = ReadyFifo::create_and_open(&dirs.display_fd(), owner).map_err(display_error)?;
        if self.desired.spec.window_manager == WindowManager::Platform {
            PlatformManager::new(&dirs.display()).create(owner).map_err(display_error)?;
        }
        fault::point("create.cookie")?;
        self.watch.check()?;
        let making = Making { start: self, dirs, workload, display };
        Ok(Prepared { making, cookie, ready, deadline })
    }

    async fn images(&self) -> Result<(Arc<PreparedImage>, Arc<PreparedImage>), StartError> {
        let prepare = async |reference: &roost_proto::model::ImageRef| {
            let image = self.node.images.prepare(reference).await;
            image.map_err(|source| StartError::Image { reference: reference.clone(), source })
        };
        let display = self.node.display_image(self.desired.spec.display.glx);
        Ok((prepare(display).await?, prepare(&self.desired.spec.image).await?))
    }
}

impl Making<'_> {
    fn spec(&self, role: Role) -> ContainerSpec<'_> {
        let (desired, number) = (&self.start.desired, self.start.record.display_number);
        let (program, binds) = match role {
            Role::Display => (
                containers::display_program(&desired.spec, number, &self.workload),
                containers::display_binds(&self.dirs),
            ),
            Role::Workload => (
                containers::workload_program(&desired.spec, number, &self.workload, desired.id.as_str()),
                containers::workload_binds(&self.dirs),
            ),
        };
        ContainerSpec {
            sandbox_id: &desired.id,
            role,
            program,
            rootfs: self.dirs.rootfs(role),
            namespaces: self.dirs.namespaces(),
            first_id: self.start.record.first_id,
            cgroup_path: self.start.node.cgroups.path(&format!("{}/{}", desired.id, role.as_str())),
            binds,
            nested_user_namespaces: role == Role::Workload && desired.spec.isolation.nested_user_namespaces,
        }
    }

    async fn create(&self, role: Role) -> Result<(), StartError> {
        let image = match role {
            Role::Display => &self.display,
            Role::Workload => &self.workload,
        };
        let node = self.start.node;
        let record = encode(self.start.record).unwrap_or_default();
        let image = ContainerImage { name: image.reference.as_str(), chain_id: &image.chain_id };
        node.client.create_container(image, &self.spec(role), &node.runtime, &record).await?;
        Ok(())
    }

    /// The workload's task is made, and its program does not run yet.
    async fn attach_volumes(&self) -> Result<(), StartError> {
        let NotStarted { node, desired, record, .. } = &self.start;
        volumes::attach(node, desired, record.first_id, &self.workload.account, desired.volumes()).await?;
        Ok(())
    }

    async fn create_task(&self, role: Role) -> Result<(), StartError> {
        let id = ContainerId::new(&self.start.desired.id, role);
        let node = self.start.node;
        let pid = node.client.create_task(&id, &self.dirs.log(role)).await?;
        if role == Role::Workload {
            node.workload_pids.keep(&self.start.desired.id, pid);
        }
        Ok(())
    }
}

impl<'a> Prepared<'a> {
    /// The workload's task is made while the X server comes up: the two need
    /// each other only when the workload starts.
    async fn run_display(self) -> Result<DisplayUp<'a>, StartError> {
        let Self { making, cookie, ready, deadline } = self;
        making.start.publisher.stage(Stage::DisplayContainer);
        let (display, workload) = tokio::join!(making.create(Role::Display), making.create(Role::Workload));
        display.and(workload)?;
        fault::point("create.containers")?;
        making.create_task(Role::Display).await?;
        fault::point("create.display_task")?;
        making.start.watch.check()?;
        making.start.publisher.stage(Stage::DisplayServer);
        let id = ContainerId::new(&making.start.desired.id, Role::Display);
        making.start.node.client.start_task(&id).await?;
        fault::point("create.display_started")?;
        making.create_task(Role::Workload).await?;
        fault::point("create.workload_task")?;
        making.attach_volumes().await?;
        let Making { mut start, dirs, .. } = making;
        let number = start.watch.during(ready.wait(deadline)).await?.map_err(|e| start.display_error(deadline, e))?;
        start.publisher.display(number);
        fault::point("create.display_up")?;
        let address = XAddress { socket: dirs.x11_socket(number), cookie };
        let painted = start.watch.during(paint_background(&address, deadline)).await?;
        painted.map_err(|e| start.display_error(deadline, e))?;
        if start.desired.spec.window_manager == WindowManager::Platform {
            // Beside the start of the workload: neither waits for the other.
            PlatformManager::new(&dirs.display()).start().await.map_err(display_error)?;
        }
        Ok(DisplayUp { start, probe: Probe { dirs, address, deadline } })
    }
}

impl<'a> DisplayUp<'a> {
    async fn run_workload(self) -> Result<WorkloadUp<'a>, StartError> {
        let Self { start, probe } = self;
        start.publisher.stage(Stage::Workload);
        start.node.client.start_task(&ContainerId::new(&start.desired.id, Role::Workload)).await?;
        fault::point("create.workload")?;
        start.watch.check()?;
        Ok(WorkloadUp { start, probe })
    }
}

impl WorkloadUp<'_> {
    async fn await_ready(self) -> Result<(), StartError> {
        let Self { mut start, probe } = self;
        let spec = &start.desired.spec;
        if spec.window_manager != WindowManager::None {
            start.publisher.stage(Stage::WindowManager);
            let appears = wait_for_window_manager(&probe.address, probe.deadline);
            let ends = manager::ended(&start.desired, &probe.dirs);
            let waited = start.watch.during(async {
                // Cancel-safe: the connection of the one and the timer of the
                // other end with them.
                tokio::select! {
                    found = appears => Ok(found),
                    exit_code = ends => Err(StartError::WindowManager { exit_code }),
                }
            });
            waited.await??.map_err(|e| start.display_error(probe.deadline, e))?;
        }
        if let Readiness::WindowTitle(title) = &spec.readiness {
            start.publisher.stage(Stage::Readiness);
            let wait = wait_for_window_title(&probe.address, title, probe.deadline);
            let waited = start.watch.during(wait).await?;
            waited.map_err(|e| start.display_error(probe.deadline, e))?;
        }
        start.publisher.stage(Stage::FirstFrame);
        fault::point("create.first_frame")?;
        let geometry = Geometry { width_px: spec.display.width_px, height_px: spec.display.height_px };
        start.watch.during(capture(&start.node.screenshots, &probe.dirs, geometry)).await??;
        start.publisher.end_stage();
        Ok(())
    }
}

/// Reads one frame; its geometry must be the declared one.
async fn capture(screenshots: &Screenshots, dirs: &SandboxDirs, geometry: Geometry) -> Result<(), StartError> {
    screenshots.read(dirs.framebuffer(), geometry).await.map(drop).map_err(display_error)
}

impl NotStarted<'_> {
    /// What a failed wait means: the start's own deadline, or the display.
    fn display_error(&self, deadline: Instant, error: impl std::error::Error + Send + Sync + 'static) -> StartError {
        if Instant::now() >= deadline {
            return StartError::Timeout { timeout_ms: self.desired.spec.start_timeout_ms };
        }
        display_error(error)
    }
}

/// Looks whether a sandbox that runs already is Ready: for adoption.
///
/// # Errors
/// See [`StartError`].
pub async fn verify(
    node: &Node,
    desired: &Desired,
    display_number: u32,
    watch: &mut Watch<'_>,
    timeout: Duration,
) -> Result<(), StartError> {
    let dirs = node.layout.sandbox(&desired.id);
    let cookie = Cookie::read(&dirs.xauth()).map_err(display_error)?;
    let address = XAddress { socket: dirs.x11_socket(display_number), cookie };
    let deadline = Instant::now() + timeout;
    if desired.spec.window_manager != WindowManager::None {
        watch.during(wait_for_window_manager(&address, deadline)).await?.map_err(display_error)?;
    }
    let display = desired.spec.display;
    let geometry = Geometry { width_px: display.width_px, height_px: display.height_px };
    watch.during(capture(&node.screenshots, &dirs, geometry)).await?
}
