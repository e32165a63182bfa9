//! Create, look, start, stop, restart, pause, resume, change, delete.

use roost_proto::id::{SandboxId, SandboxName};
use roost_proto::model::{Phase, RunState, SandboxSpec, UpdateSandbox};
use roost_proto::node as wire;
use tokio::sync::watch;
use tonic::Status;

use super::convert;
use super::status::invalid;
use crate::sandbox::{Manager, RequestError, View};

/// The life of the sandboxes, as the API needs it.
#[tonic::async_trait]
pub trait Sandboxes: Send + Sync + 'static {
    /// Makes a local sandbox; the same id and spec again returns it.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn create(&self, id: SandboxId, name: Option<SandboxName>, spec: SandboxSpec) -> Result<View, RequestError>;

    /// Changes what is wanted of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn set_run_state(&self, id: &SandboxId, run_state: RunState) -> Result<View, RequestError>;

    /// Asks for one more restart of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn restart(&self, id: &SandboxId) -> Result<View, RequestError>;

    /// Makes the processes of a local sandbox stand still, or lets them go on.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn set_paused(&self, id: &SandboxId, paused: bool) -> Result<View, RequestError>;

    /// Changes requests, limits and times of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn update(&self, id: &SandboxId, change: UpdateSandbox) -> Result<View, RequestError>;

    /// One sandbox.
    fn get(&self, id: &SandboxId) -> Option<View>;

    /// Sandboxes whose last change lies after `change` (0 = all), oldest
    /// change first.
    fn changed_since(&self, change: u64) -> Vec<View>;

    /// Number of the newest change; wakes when it rises.
    fn subscribe(&self) -> watch::Receiver<u64>;
}

#[tonic::async_trait]
impl Sandboxes for Manager {
    async fn create(&self, id: SandboxId, name: Option<SandboxName>, spec: SandboxSpec) -> Result<View, RequestError> {
        Self::create(self, id, name, spec).await
    }

    async fn set_run_state(&self, id: &SandboxId, run_state: RunState) -> Result<View, RequestError> {
        Self::set_run_state(self, id, run_state).await
    }

    async fn restart(&self, id: &SandboxId) -> Result<View, RequestError> {
        Self::restart(self, id).await
    }

    async fn set_paused(&self, id: &SandboxId, paused: bool) -> Result<View, RequestError> {
        Self::set_paused(self, id, paused).await
    }

    async fn update(&self, id: &SandboxId, change: UpdateSandbox) -> Result<View, RequestError> {
        Self::update(self, id, change).await
    }

    fn get(&self, id: &SandboxId) -> Option<View> {
        Self::get(self, id)
    }

    fn changed_since(&self, change: u64) -> Vec<View> {
        Self::changed_since(self, change)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        Self::subscribe(self)
    }
}

pub(super) async fn create(
    sandboxes: &dyn Sandboxes,
    request: wire::CreateSandboxRequest,
) -> Result<wire::Sandbox, Status> {
    let (id, name, spec) = convert::create(request).map_err(invalid)?;
    Ok(convert::sandbox(sandboxes.create(id, name, spec).await?))
}

pub(super) fn get(sandboxes: &dyn Sandboxes, id: &str) -> Result<wire::Sandbox, Status> {
    let id = convert::sandbox_id(id).map_err(invalid)?;
    let view = sandboxes.get(&id).ok_or(RequestError::NotFound(id))?;
    Ok(convert::sandbox(view))
}

/// Sandboxes that are gone stay out: the list says what exists.
pub(super) fn list(sandboxes: &dyn Sandboxes) -> wire::ListSandboxesResponse {
    let mut views = sandboxes.changed_since(0);
    views.retain(|view| view.observed.phase != Phase::Gone);
    views.sort_by(|a, b| {
        (a.desired.created_at_unix_ms, &a.desired.id).cmp(&(b.desired.created_at_unix_ms, &b.desired.id))
    });
    wire::ListSandboxesResponse { sandboxes: views.into_iter().map(convert::sandbox).collect() }
}

async fn want(
    sandboxes: &dyn Sandboxes,
    request: wire::SandboxRequest,
    run_state: RunState,
) -> Result<wire::Sandbox, Status> {
    let id = convert::sandbox_id(&request.sandbox_id).map_err(invalid)?;
    Ok(convert::sandbox(sandboxes.set_run_state(&id, run_state).await?))
}

pub(super) async fn start(sandboxes: &dyn Sandboxes, request: wire::SandboxRequest) -> Result<wire::Sandbox, Status> {
    want(sandboxes, request, RunState::Running).await
}

pub(super) async fn stop(sandboxes: &dyn Sandboxes, request: wire::SandboxRequest) -> Result<wire::Sandbox, Status> {
    want(sandboxes, request, RunState::Stopped).await
}

pub(super) async fn delete(sandboxes: &dyn Sandboxes, request: wire::SandboxRequest) -> Result<wire::Sandbox, Status> {
    want(sandboxes, request, RunState::Deleted).await
}

pub(super) async fn restart(sandboxes: &dyn Sandboxes, request: wire::SandboxRequest) -> Result<wire::Sandbox, Status> {
    let id = convert::sandbox_id(&request.sandbox_id).map_err(invalid)?;
    Ok(convert::sandbox(sandboxes.restart(&id).await?))
}

pub(super) async fn set_paused(
    sandboxes: &dyn Sandboxes,
    request: wire::SandboxRequest,
    paused: bool,
) -> Result<wire::Sandbox, Status> {
    let id = convert::sandbox_id(&request.sandbox_id).map_err(invalid)?;
    Ok(convert::sandbox(sandboxes.set_paused(&id, paused).await?))
}

pub(super) async fn update(
    sandboxes: &dyn Sandboxes,
    request: wire::UpdateSandboxRequest,
) -> Result<wire::Sandbox, Status> {
    let id = convert::sandbox_id(&request.sandbox_id).map_err(invalid)?;
    let lifetime = request.lifetime.map(TryInto::try_into).transpose().map_err(invalid)?;
    let change = UpdateSandbox { resources: request.resources.map(Into::into), lifetime };
    Ok(convert::sandbox(sandboxes.update(&id, change).await?))
}
