//! Sandboxes that run for real: containerd and the host's kernel.

use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Resources, Usage};
use tokio::time::Instant;

use super::{Bind, Liveness, OomKills, Runtime, Start};
use crate::containerd::{ContainerId, Role, TaskStatus};
use crate::display::{Cookie, XAddress, input_idle};
use crate::host::cgroup::{InUse, LimitsSet};
use crate::host::{self, blocking, disk, mount};
use crate::sandbox::claim::{self, BindError, Bound};
use crate::sandbox::ensure::{self, Ended, NotStarted, Watch, manager};
use crate::sandbox::failure::{StartError, chain};
use crate::sandbox::restart::Scope;
use crate::sandbox::teardown::{self, TeardownError};
use crate::sandbox::{Desired, Node};

/// How long the processes of a sandbox may take to stand still: one that waits
/// for a disk does not before it has its answer.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the X server may take to say when the last input was.
const INPUT_TIMEOUT: Duration = Duration::from_secs(2);

#[tonic::async_trait]
impl Runtime for Node {
    async fn start(&self, start: Start<'_>) -> Result<(), StartError> {
        let Start { desired, record, publisher, watch } = start;
        ensure::start(NotStarted { node: self, desired, record, publisher, watch }).await
    }

    async fn restart(&self, scope: Scope, start: Start<'_>) -> Result<(), StartError> {
        let Start { desired, record, publisher, watch } = start;
        ensure::again(scope, NotStarted { node: self, desired, record, publisher, watch }).await
    }

    async fn window_manager_lost(&self, desired: &Desired, display_number: u32) -> Option<i32> {
        manager::lost(self, desired, display_number).await
    }

    fn oom_kills(&self, id: &SandboxId) -> Result<OomKills, host::Error> {
        let of = |role: Role| self.cgroups.oom_kills(&format!("{id}/{}", role.as_str()));
        Ok(OomKills { display: of(Role::Display)?, workload: of(Role::Workload)? })
    }

    async fn bind(&self, bind: Bind) -> Result<Bound, BindError> {
        claim::bind(self, bind).await
    }

    async fn verify(
        &self,
        desired: &Desired,
        display_number: u32,
        watch: &mut Watch<'_>,
        timeout: Duration,
    ) -> Result<(), StartError> {
        ensure::verify(self, desired, display_number, watch, timeout).await
    }

    async fn look(&self, id: &SandboxId) -> Liveness {
        let mut liveness = Liveness::Runs;
        for role in Role::ALL {
            match self.client.get_task(&ContainerId::new(id, role)).await {
                Ok(Some(task)) => match task.status {
                    TaskStatus::Stopped(code) => return Liveness::Ended(Ended { role, exit_code: Some(code) }),
                    TaskStatus::Unknown => liveness = Liveness::Unknown,
                    TaskStatus::Created | TaskStatus::Running => {}
                },
                Ok(None) => return Liveness::Ended(Ended { role, exit_code: None }),
                Err(error) => {
                    tracing::warn!(sandbox = %id, role = role.as_str(), %error, "task cannot be asked for");
                    liveness = Liveness::Unknown;
                }
            }
        }
        liveness
    }

    async fn stop(&self, id: &SandboxId, grace: Duration) -> Result<(), TeardownError> {
        teardown::stop(self, id, grace).await
    }

    async fn remove_files(&self, id: &SandboxId) -> Result<(), TeardownError> {
        teardown::remove_files(self, id).await
    }

    async fn set_limits(&self, id: &SandboxId, wanted: &Resources) -> Result<LimitsSet, host::Error> {
        let (cgroups, storage, dirs) = (self.cgroups.clone(), self.storage.clone(), self.layout.sandbox(id));
        let shm = dirs.shm();
        let (id, wanted) = (id.clone(), wanted.clone());
        let set = move || {
            let mut set = cgroups.set_limits(id.as_str(), &wanted)?;
            if !mount::resize_tmpfs(&shm, wanted.shm_bytes)? {
                let disk::DiskSpace { used_bytes, total_bytes, .. } = disk::space(&shm)?;
                set.refused.push(InUse { what: "/dev/shm", wanted_bytes: wanted.shm_bytes, used_bytes });
                set.in_force.shm_bytes = total_bytes;
            }
            if wanted.disk_limit_bytes > 0 {
                set.in_force.disk_limit_bytes = storage.raise(&dirs.bounded(), wanted.disk_limit_bytes)?;
            }
            Ok(set)
        };
        blocking(set).await
    }

    async fn pause(&self, id: &SandboxId) -> Result<(), host::Error> {
        let (cgroups, id) = (self.cgroups.clone(), id.clone());
        blocking(move || cgroups.freeze(id.as_str(), PAUSE_TIMEOUT)).await
    }

    async fn resume(&self, id: &SandboxId) -> Result<(), host::Error> {
        let (cgroups, id) = (self.cgroups.clone(), id.clone());
        blocking(move || cgroups.thaw(id.as_str())).await
    }

    async fn input_idle(&self, id: &SandboxId, display_number: u32) -> Option<Duration> {
        let dirs = self.layout.sandbox(id);
        let asked = match Cookie::read(&dirs.xauth()) {
            Ok(cookie) => {
                let address = XAddress { socket: dirs.x11_socket(display_number), cookie };
                input_idle(&address, Instant::now() + INPUT_TIMEOUT).await.map_err(|e| chain(&e))
            }
            Err(error) => Err(chain(&error)),
        };
        // A client of the sandbox may hold the server for itself.
        asked.inspect_err(|error| tracing::debug!(sandbox = %id, error, "the last input is not known")).ok()
    }

    fn usage(&self, id: &SandboxId) -> Result<Usage, host::Error> {
        let usage = self.cgroups.usage(id.as_str())?;
        let dirs = self.layout.sandbox(id);
        let shm_bytes = disk::space(&dirs.shm())?.used_bytes;
        let disk_bytes = self.storage.held(&dirs.bounded())?.map(|held| held.used_bytes);
        Ok(Usage { shm_bytes, disk_bytes, ..usage })
    }
}
