//! Who calls: what the verified client certificate says.

use roost_proto::id::NodeId;
use roost_proto::model::NodeCertificate;
use tonic::{Request, Status};

use crate::app::Central;
use crate::ca;
use crate::store::{LinkNode, StoreError};

/// A node that is still enrolled.
pub(super) struct Caller {
    pub(super) node_id: NodeId,
    /// What the store knows of it.
    pub(super) node: LinkNode,
    /// What it presents.
    pub(super) certificate: NodeCertificate,
}

/// The node that the client certificate names.
pub(super) fn of<T>(request: &Request<T>) -> Result<(NodeId, NodeCertificate), Status> {
    let certificates = request.peer_certs();
    let certificate = certificates.as_ref().and_then(|chain| chain.first());
    let certificate =
        certificate.ok_or_else(|| Status::unauthenticated("this call needs a node certificate: enrol first"))?;
    let read = ca::node_of(certificate).and_then(|node| Ok((node, ca::describe(certificate)?)));
    read.map_err(|error| Status::unauthenticated(error.to_string()))
}

/// The same, if the node is still enrolled.
pub(super) async fn enrolled<T>(central: &Central, request: &Request<T>) -> Result<Caller, Status> {
    let (node_id, certificate) = of(request)?;
    let found = central.store.system().link_node(node_id.clone()).await.map_err(|error| store_status(&error))?;
    let node = found.ok_or_else(|| {
        tracing::info!(node = %node_id, "refused: a node with a good certificate is not in the database");
        removed(&node_id)
    })?;
    Ok(Caller { node_id, node, certificate })
}

/// Keeps what a node presents, where it is news.
pub(super) async fn keep_certificate(central: &Central, caller: &Caller) -> Result<(), Status> {
    if caller.node.certificate.as_ref() == Some(&caller.certificate) {
        return Ok(());
    }
    let system = central.store.system();
    let kept = system.save_certificate(caller.node_id.clone(), caller.certificate.clone()).await;
    kept.map_err(|error| store_status(&error))
}

/// What a node is told that central has removed.
pub(super) fn removed(node: &NodeId) -> Status {
    Status::unauthenticated(format!(
        "{node} was removed from central: join again; if central was restored from a backup, `roost node readmit {node}`"
    ))
}

/// What a node is told when the store fails: try again.
pub(super) fn store_status(error: &StoreError) -> Status {
    tracing::error!(error = crate::log::chain(error), "store failed for a node");
    Status::unavailable("the database of central failed: see its log")
}
