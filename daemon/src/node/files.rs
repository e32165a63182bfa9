//! The files of running workloads.

use std::sync::Arc;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;

use crate::api::files::{Files, FilesError, Tree};
use crate::host::inside::copy::Inside;
use crate::sandbox::claim::{BindError, workload};
use crate::sandbox::{Manager, Node};

/// Files of the manager's sandboxes.
#[derive(Debug, Clone)]
pub struct WorkloadFiles {
    node: Arc<Node>,
    manager: Manager,
}

impl WorkloadFiles {
    /// Files of the manager's sandboxes.
    #[must_use]
    pub fn new(node: Arc<Node>, manager: Manager) -> Self {
        Self { node, manager }
    }
}

fn runtime<E: std::error::Error + Send + Sync + 'static>(id: &SandboxId) -> impl FnOnce(E) -> FilesError {
    let id = id.clone();
    move |error| FilesError::Runtime { id, source: Box::new(error) }
}

#[tonic::async_trait]
impl Files for WorkloadFiles {
    async fn open(&self, id: &SandboxId) -> Result<Box<dyn Tree>, FilesError> {
        let not_found = || FilesError::NotFound(id.clone());
        let view = self.manager.get(id).ok_or_else(not_found)?;
        let not_ready = |phase| FilesError::NotReady { id: id.clone(), phase };
        if view.observed.phase != Phase::Ready {
            return Err(not_ready(view.observed.phase));
        }
        let first_id = self.manager.record(id).ok_or_else(not_found)?.first_id;
        let image = self.node.images.prepare(&view.desired.spec.image).await.map_err(runtime(id))?;
        let (uid, gid) = (image.account.uid, image.account.gid);
        let root = match workload(&self.node, id).await {
            Ok(process) => process.root().map_err(runtime(id))?,
            // Seen before its end was.
            Err(BindError::NotRunning) => return Err(not_ready(Phase::Starting)),
            Err(error) => return Err(runtime(id)(error)),
        };
        Ok(Box::new(Inside { root, first_id, uid, gid }))
    }
}
