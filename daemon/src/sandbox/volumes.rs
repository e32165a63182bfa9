//! The volumes of a sandbox, attached to its workload.
//!
//! One way for all: the workload's container is there, and its program either
//! runs (a claim) or is about to (a start, a restart by its policy).

use roost_proto::model::VolumeMount;

use super::{Desired, Node};
use crate::containerd::{self, ContainerId, Role};
use crate::host::attach::Container;
use crate::host::namespaces::{Kind, pin};
use crate::host::passwd::Account;
use crate::host::{self, blocking};
use crate::volume::AttachError;

/// Why the volumes of a sandbox are not there.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    /// The workload is not there.
    #[error("the workload does not run")]
    NotRunning,
    /// containerd does not answer.
    #[error("the workload cannot be asked for")]
    Containerd(#[from] containerd::Error),
    /// The volume or the host.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The work was cut off.
    #[error("the volumes could not be attached")]
    Host(#[from] host::Error),
}

/// Attaches volumes that a sandbox holds to its workload. May be called again.
///
/// # Errors
/// See [`VolumesError`]; those before the one at fault are attached.
pub async fn attach(
    node: &Node,
    desired: &Desired,
    first_id: u32,
    account: &Account,
    mounts: Vec<VolumeMount>,
) -> Result<(), VolumesError> {
    if mounts.is_empty() {
        return Ok(());
    }
    let task = node.client.get_task(&ContainerId::new(&desired.id, Role::Workload)).await?;
    let pid = task.map(|task| task.pid).filter(|pid| *pid != 0).ok_or(VolumesError::NotRunning)?;
    attach_to(node, desired, first_id, account, mounts, pid).await
}

/// As [`attach`], to a workload whose first process is known.
///
/// # Errors
/// As [`attach`].
pub async fn attach_to(
    node: &Node,
    desired: &Desired,
    first_id: u32,
    account: &Account,
    mounts: Vec<VolumeMount>,
    pid: u32,
) -> Result<(), VolumesError> {
    let container = Container {
        pid,
        user_namespace: pin(&node.layout.sandbox(&desired.id).namespaces(), Kind::User),
        root: (first_id, first_id),
        user: (first_id + account.uid, first_id + account.gid),
    };
    let (homes, id, tenant) = (node.homes.clone(), desired.id.clone(), desired.tenant.clone());
    let user = (account.uid, account.gid);
    blocking(move || Ok(homes.attach(&id, &tenant, &mounts, &container, user))).await??;
    Ok(())
}
