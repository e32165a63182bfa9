//! Every sandbox of the node, by id.

use roost_proto::id::{SandboxId, SandboxName};
use roost_proto::model::{RunState, SandboxSpec};
use tokio::sync::watch;

use super::{Desired, View};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No such sandbox on this node.
    #[error("no sandbox {0} on this node")]
    NotFound(SandboxId),
    /// The id exists with another spec.
    #[error("sandbox {0} exists with another spec")]
    Conflict(SandboxId),
    /// The sandbox is being deleted.
    #[error("sandbox {0} is being deleted")]
    Deleting(SandboxId),
    /// Central owns it.
    #[error("sandbox {0} belongs to central: change it there")]
    OwnedByCentral(SandboxId),
    /// The node holds as many sandboxes as its configuration allows.
    #[error("the node is full: {max} sandboxes")]
    Full {
        /// The configured maximum.
        max: usize,
    },
    /// The request could not be made durable.
    #[error("the ledger could not keep the request")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why central's desired state was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The delta builds on a generation that this node does not hold.
    #[error("the change builds on generation {base}, the node holds {held}")]
    Base {
        /// Base of the delta.
        base: u64,
        /// What the node holds.
        held: u64,
    },
    /// It could not be made durable.
    #[error("the ledger could not keep the desired state")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Handle on every sandbox of the node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    changes: watch::Sender<u64>,
}

impl Manager {
    /// Makes a local sandbox; the same id and spec again returns it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn create(
        &self,
        _id: SandboxId,
        _name: Option<SandboxName>,
        _spec: SandboxSpec,
    ) -> Result<View, RequestError> {
        todo!()
    }

    /// Changes what is wanted of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn set_run_state(&self, _id: &SandboxId, _run_state: RunState) -> Result<View, RequestError> {
        todo!()
    }

    /// Asks for one more restart of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn restart(&self, _id: &SandboxId) -> Result<View, RequestError> {
        todo!()
    }

    /// Takes central's desired state. `full`: sandboxes of central that are
    /// not listed are to be deleted; else `base_generation` must be held.
    /// Returns once it is durable, with the generation that is held now. An
    /// older or equal generation changes nothing (a replay).
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply_central(
        &self,
        _generation: u64,
        _full: bool,
        _base_generation: u64,
        _sandboxes: Vec<Desired>,
    ) -> Result<u64, ApplyError> {
        todo!()
    }

    /// Generation of central's desired state that is durable here; 0 = none.
    #[must_use]
    pub fn central_generation(&self) -> u64 {
        todo!()
    }

    /// One sandbox.
    #[must_use]
    pub fn get(&self, _id: &SandboxId) -> Option<View> {
        todo!()
    }

    /// Sandboxes whose last change lies after `change` (0 = all), oldest
    /// change first. A removed sandbox stays for a while with phase Gone.
    #[must_use]
    pub fn changed_since(&self, _change: u64) -> Vec<View> {
        todo!()
    }

    /// Number of the newest change; wakes when it rises.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
