//! Time: pauses, and how long sandboxes live.

use std::sync::Arc;

use roost_proto::convert::InvalidMessage;
use roost_proto::id::SandboxId;
use roost_proto::model::UpdateSandbox;

use super::{Manager, RequestError};
use crate::sandbox::activity::Activity;
use crate::sandbox::node_time::NodeTime;
use crate::sandbox::request_queue::{Request, decide_update};
use crate::sandbox::{Desired, View};

impl Manager {
    /// Makes the processes of a local sandbox stand still, or lets them go on.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn set_paused(&self, id: &SandboxId, paused: bool) -> Result<View, RequestError> {
        self.request(id, if paused { Request::Pause } else { Request::Resume }).await
    }

    /// Changes requests, limits and times of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn update(&self, id: &SandboxId, change: UpdateSandbox) -> Result<View, RequestError> {
        let (manager, id) = (self.clone(), id.clone());
        let set = async move {
            let now_ms = manager.node_time().now_ms();
            let decide = |desired: &Desired, _: &View| decide_update(&change, desired, now_ms).map_err(InvalidMessage);
            manager.settle(&id, decide).await
        };
        self.whole(set).await
    }

    /// What deadlines are kept in.
    #[must_use]
    pub fn node_time(&self) -> NodeTime {
        self.services.time
    }

    /// Whether the time of a sandbox ends some day.
    #[must_use]
    pub fn has_deadlines(&self) -> bool {
        let ends = |desired: &Desired| desired.clock.is_some() && !desired.lifetime().is_endless();
        self.lock().handles.values().any(|handle| ends(&handle.record.desired))
    }

    /// Where the use of a sandbox is noted; none if it is not here.
    #[must_use]
    pub fn activity(&self, id: &SandboxId) -> Option<Arc<Activity>> {
        self.lock().handles.get(id).map(|handle| handle.activity.clone())
    }
}
