//! Certificates, CAs and trust while nodes are connected.

use std::time::Duration;

use roost_central::ca::Authorities;
use roost_proto::id::SandboxId;
use roost_proto::node::ListSandboxesRequest;
use roostd::link::LinkState;
use roostd::sandbox::Origin;

use crate::central::RealCentral;
use crate::fakes;
use crate::machine::Machine;
use crate::soon;

/// Waits until the certificate that central knows of the node is of this CA.
async fn certified_by(central: &RealCentral, machine: &Machine, key_id: &str) {
    let id = machine.link.state().borrow().node_id.clone().unwrap();
    let scope = central.scope().await;
    soon("a certificate of the CA", async {
        while scope.node(&id).await.unwrap().certificate.is_none_or(|certificate| certificate.ca_key_id != key_id) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn joined(central: &RealCentral) -> Machine {
    let machine = Machine::join(&central.address(), &central.join_string().await);
    machine.state("the link stands", LinkState::is_connected).await;
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_rotated_and_retired_without_a_connection_lost() {
    let central = RealCentral::start("").await;
    let machine = joined(&central).await;
    let old = central.central.ca.present().serving().key_id().to_owned();
    certified_by(&central, &machine, &old).await;

    // As `roost-central ca rotate` does it, beside the running server.
    let new = Authorities::rotate(&central.ca_dir()).unwrap().issuing().key_id().to_owned();
    certified_by(&central, &machine, &new).await;
    let late = joined(&central).await;
    certified_by(&central, &late, &new).await;

    Authorities::retire(&central.ca_dir()).unwrap();
    soon("the retirement", async {
        while central.central.ca.present().serving().key_id() != new {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    machine.trusts(1).await;
    assert_eq!(machine.link.state().borrow().connects, 1, "the rotation broke the connection");

    // Both come back to a central that knows the new CA only, and strangers join.
    let central = central.restart("").await;
    machine.state("it comes back", |state| state.connects == 2 && state.is_connected()).await;
    late.state("it comes back", |state| state.connects == 2 && state.is_connected()).await;
    joined(&central).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_renews_when_central_asks_for_it() {
    let central = RealCentral::start("").await;
    let machine = joined(&central).await;
    let before = machine.identity();
    let id = machine.link.state().borrow().node_id.clone().unwrap();
    central.scope().await.rotate_node(&id).await.unwrap();
    soon("a new key", async {
        while machine.identity()["key_pem"] == before["key_pem"] {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(machine.identity()["node_id"], before["node_id"]);
    assert_eq!(machine.link.state().borrow().connects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_cut_off_in_the_middle_of_its_session_and_its_calls() {
    let central = RealCentral::start("").await;
    let machine = joined(&central).await;
    let sandbox = SandboxId::random();
    machine.node.put(fakes::desired(&sandbox, Origin::Local));
    let id = machine.link.state().borrow().node_id.clone().unwrap();
    let mut api = central.central.sessions.client(&id).unwrap();
    assert_eq!(api.list_sandboxes(ListSandboxesRequest {}).await.unwrap().into_inner().sandboxes.len(), 1);
    let mut watch = api
        .watch_sandboxes(roost_proto::node::WatchSandboxesRequest { sandbox_id: String::new() })
        .await
        .unwrap()
        .into_inner();
    assert!(watch.message().await.unwrap().is_some());

    central.central.store.tenant(&"default".parse().unwrap()).delete_node(id.clone(), false).await.unwrap();
    central.central.sessions.revoke(&id);
    let end = soon("the end of the watch", async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    })
    .await;
    assert!(end.is_err() || matches!(end, Ok(None)));
    let is_removed = |error: &String| error.contains("was removed from central");
    let state = machine.state("the refusal", |state| state.last_error.as_ref().is_some_and(is_removed)).await;
    assert!(!state.is_connected());
    assert!(central.central.sessions.client(&id).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn centrals_own_certificate_is_replaced_while_nodes_stay_connected() {
    let central = RealCentral::start("").await;
    let machine = joined(&central).await;
    let first = central.server_certificate().await;
    // A change of the CAs makes a new one at once, as half of its life does.
    Authorities::rotate(&central.ca_dir()).unwrap();
    soon("another certificate", async {
        while central.server_certificate().await == first {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(machine.link.state().borrow().connects, 1);
}
