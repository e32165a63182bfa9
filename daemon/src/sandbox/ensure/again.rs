//! What is made again while the display stays.

use roost_proto::model::{Stage, WindowManager};
use tokio::time::{Duration, Instant};

use super::{DisplayUp, Making, NotStarted, Probe, WorkloadUp, display_error, start};
use crate::containerd::Role;
use crate::display::{Cookie, PlatformManager, XAddress};
use crate::host::{blocking, fault};
use crate::sandbox::failure::StartError;
use crate::sandbox::prepare::renew_shm;
use crate::sandbox::restart::Scope;
use crate::sandbox::teardown::{self, TeardownError};

/// Makes a part of a sandbox again and brings it to Ready.
///
/// # Errors
/// See [`StartError`]; what was made stays until a teardown.
pub async fn again(scope: Scope, not_started: NotStarted<'_>) -> Result<(), StartError> {
    match scope {
        Scope::Sandbox => start(not_started).await,
        Scope::Workload => not_started.remake_workload().await?.run_workload().await?.await_ready().await,
        Scope::WindowManager => not_started.keep_workload().await?.await_ready().await,
    }
}

impl<'a> NotStarted<'a> {
    /// Puts a new container in the place of the one that ended, on the same
    /// files and with an empty `/dev/shm`.
    async fn remake_workload(self) -> Result<DisplayUp<'a>, StartError> {
        let probe = self.probe()?;
        self.publisher.stage(Stage::Workload);
        let (display, workload) = self.images().await?;
        // It runs still where only its window manager is gone.
        let grace = Duration::from_millis(self.desired.spec.stop_grace_ms.into());
        let removed = teardown::remove_workload(self.node, &self.desired.id, grace).await;
        removed.map_err(|error| match error {
            TeardownError::Containerd(error) => StartError::from(error),
            TeardownError::Host(error) => error.into(),
        })?;
        fault::point("again.removed")?;
        self.watch.check()?;
        let shm = (probe.dirs.shm(), self.desired.resources().shm_bytes, self.record.first_id);
        blocking(move || renew_shm(&shm.0, shm.1, shm.2)).await?;
        let making = Making { dirs: probe.dirs.clone(), start: self, workload, display };
        making.create(Role::Workload).await?;
        fault::point("again.container")?;
        making.start.watch.check()?;
        making.create_task(Role::Workload).await?;
        fault::point("again.task")?;
        making.attach_volumes().await?;
        making.start.watch.check()?;
        let Making { start, .. } = making;
        start.ensure_manager(&probe).await?;
        Ok(DisplayUp { start, probe })
    }

    async fn keep_workload(self) -> Result<WorkloadUp<'a>, StartError> {
        let probe = self.probe()?;
        self.publisher.stage(Stage::WindowManager);
        self.ensure_manager(&probe).await?;
        Ok(WorkloadUp { start: self, probe })
    }

    /// Starts the platform's window manager unless it runs.
    async fn ensure_manager(&self, probe: &Probe) -> Result<(), StartError> {
        let manager = PlatformManager::new(&probe.dirs.display());
        if self.desired.spec.window_manager != WindowManager::Platform || manager.exit_code().is_none() {
            return Ok(());
        }
        manager.start().await.map_err(display_error)
    }

    /// The display that stays.
    fn probe(&self) -> Result<Probe, StartError> {
        let deadline = Instant::now() + Duration::from_millis(self.desired.spec.start_timeout_ms.into());
        let dirs = self.node.layout.sandbox(&self.desired.id);
        let cookie = Cookie::read(&dirs.xauth()).map_err(display_error)?;
        let address = XAddress { socket: dirs.x11_socket(self.record.display_number), cookie };
        Ok(Probe { dirs, address, deadline })
    }
}
