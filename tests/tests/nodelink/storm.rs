//! Many nodes that lose their central at once.

use roostd::link::LinkState;

use crate::central::RealCentral;
use crate::machine::Machine;
use crate::soon;

/// Nodes of the storm.
const NODES: usize = 200;
/// Tries that a node may take to come back. With central away for some
/// seconds and few let in at once, five to ten are usual; a node that tries in
/// a loop takes thousands.
const ATTEMPTS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_nodes_come_back_to_a_restarted_central_and_none_runs_in_circles() {
    // Far fewer than nodes at once, so that most are told to come again.
    let doors = "entries_max = 4\nhandshakes_max = 8\nstale_after_s = 300\noffline_after_s = 600";
    let central = RealCentral::start(doors).await;
    let mut machines = Vec::with_capacity(NODES);
    for _ in 0..NODES {
        machines.push(Machine::join(&central.address(), &central.join_string().await));
    }
    for machine in &machines {
        machine.state("a node that joins", LinkState::is_connected).await;
    }
    assert_eq!(central.central.sessions.count(), NODES);

    let central = central.restart(doors).await;
    for machine in &machines {
        machine.state("a node that comes back", |state| state.connects >= 2 && state.is_connected()).await;
    }
    soon("every session", async {
        while central.central.sessions.count() < NODES {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    for machine in &machines {
        let state = machine.link.state().borrow().clone();
        assert!(state.attempts <= ATTEMPTS_MAX, "{} tries: {:?}", state.attempts, state.last_error);
    }
}
