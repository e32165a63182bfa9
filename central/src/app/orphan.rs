//! What was found on nodes after the database went back in time: list, adopt,
//! remove; and nodes that it does not know any more.

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::{AdoptOrphan, Node, Orphan, ReadmitNode, Sandbox};

use super::sandbox::check_name;
use super::{Conflict, Noun, RequestError, Scope};
use crate::clock;
use crate::link::check_node_name;
use crate::store::{AdoptError, ReadmitError};

fn refused(id: &SandboxId, error: AdoptError) -> RequestError {
    match error {
        AdoptError::NotFound => RequestError::not_found(Noun::Orphan, id),
        AdoptError::NameTaken(name) => Conflict::NameTaken(name.into()).into(),
        AdoptError::Store(error) => error.into(),
    }
}

impl Scope {
    /// Every orphan, by id.
    ///
    /// # Errors
    /// [`RequestError::Store`].
    pub async fn orphans(&self) -> Result<Vec<Orphan>, RequestError> {
        Ok(self.store().orphans().await?)
    }

    /// Makes an orphan a sandbox like any other; nothing of it is restarted.
    ///
    /// # Errors
    /// [`RequestError::NotFound`], [`Conflict::NameTaken`], a name that is none,
    /// and [`RequestError::Store`].
    pub async fn adopt_orphan(&self, id: &SandboxId, adopt: AdoptOrphan) -> Result<Sandbox, RequestError> {
        adopt.name.as_ref().map_or(Ok(()), check_name)?;
        let adopted = self.store().adopt_orphan(id.clone(), adopt.name).await;
        let mut sandbox = adopted.map_err(|error| refused(id, error))?;
        tracing::info!(sandbox = %id, node = %sandbox.node_id, "orphan adopted");
        self.central.live.overlay(&mut sandbox);
        Ok(sandbox)
    }

    /// Has the node of an orphan delete it, with everything it holds.
    ///
    /// # Errors
    /// [`RequestError::NotFound`] and [`RequestError::Store`].
    pub async fn remove_orphan(&self, id: &SandboxId) -> Result<Sandbox, RequestError> {
        let sandbox = self.store().remove_orphan(id.clone()).await.map_err(|error| refused(id, error))?;
        tracing::info!(sandbox = %id, node = %sandbox.node_id, "orphan is removed");
        Ok(sandbox)
    }

    /// Takes a node back that has a certificate of this central and that the
    /// database does not know: it was enrolled after the backup.
    ///
    /// # Errors
    /// [`Conflict::NodeExists`], a name that is none, and
    /// [`RequestError::Store`].
    pub async fn readmit_node(&self, id: &NodeId, readmit: ReadmitNode) -> Result<Node, RequestError> {
        check_node_name(&readmit.name).map_err(|problem| RequestError::field("name", problem))?;
        let readmitted = self.store().readmit_node(id.clone(), readmit.name, clock::now_unix_ms()).await;
        readmitted.map_err(|error| match error {
            ReadmitError::Known => RequestError::from(Conflict::NodeExists(id.to_string())),
            ReadmitError::Store(error) => error.into(),
        })?;
        tracing::info!(node = %id, "node readmitted");
        self.central.rooms.forget();
        self.node(id).await
    }
}
