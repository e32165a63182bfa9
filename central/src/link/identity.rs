//! Who calls: what the verified client certificate says.

use roost_proto::id::NodeId;
use tonic::{Request, Status};

use crate::app::Central;
use crate::ca;
use crate::store::{LinkNode, StoreError};

/// The node that the client certificate names.
pub(super) fn of<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let certificates = request.peer_certs();
    let certificate = certificates.as_ref().and_then(|chain| chain.first());
    let certificate =
        certificate.ok_or_else(|| Status::unauthenticated("this call needs a node certificate: enrol first"))?;
    ca::node_of(certificate).map_err(|error| Status::unauthenticated(error.to_string()))
}

/// The same, if the node is still enrolled.
pub(super) async fn enrolled<T>(central: &Central, request: &Request<T>) -> Result<(NodeId, LinkNode), Status> {
    let node_id = of(request)?;
    let found = central.store.system().link_node(node_id.clone()).await.map_err(|error| store_status(&error))?;
    let removed = || Status::unauthenticated(format!("{node_id} was removed from central: join again"));
    let node = found.ok_or_else(removed)?;
    Ok((node_id, node))
}

/// What a node is told when the store fails: try again.
pub(super) fn store_status(error: &StoreError) -> Status {
    tracing::error!(error = crate::log::chain(error), "store failed for a node");
    Status::unavailable("the database of central failed: see its log")
}
