//! After the database went back in time: what the node holds is asked for and
//! compared, before the node is told anything that could delete it.
//!
//! The node is asked through its tunnel for its own records, so that this works
//! with every version of the protocol.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::convert::{InvalidMessage, WireEnum, parse, require, resources};
use roost_proto::id::NodeId;
use roost_proto::model::{Observed, Phase, RunState};
use roost_proto::node::{ListSandboxesRequest, Sandbox};

use super::sessions::NodeCallError;
use crate::app::Central;
use crate::clock;
use crate::store::{Held, Settled, StoreError};

/// Time for the answer of a node: a list of some thousand records.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before another attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Reasons of sandboxes that the node refused: it has no record of them.
const REFUSED: [&str; 3] = ["node-full", "node-pressure", "being-removed"];

/// Why a node is not settled yet.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    /// The node cannot be asked.
    #[error("the node does not say what it holds")]
    Node(#[from] NodeCallError),
    /// What it says cannot be read.
    #[error("a record of the node cannot be read: upgrade central, or the node's roostd")]
    Record(#[from] InvalidMessage),
    /// The database failed.
    #[error("the comparison cannot be stored")]
    Store(#[from] StoreError),
}

/// Returns once the node is settled; tries again for as long as it is not.
/// `node_generation` is what the node has made durable of desired state.
pub(super) async fn until_settled(central: Arc<Central>, node: NodeId, node_generation: u64) {
    loop {
        match settle(&central, &node, node_generation).await {
            Ok(settled) => return report(&settled),
            Err(error) => tracing::warn!(
                error = crate::log::chain(&error),
                "node is not yet compared with the restored database: it is told nothing meanwhile"
            ),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn report(settled: &Settled) {
    let Settled { orphans, changed, foreign } = settled;
    for sandbox in foreign {
        tracing::warn!(%sandbox, "node holds a sandbox that the database has on another node: it is to delete it");
    }
    if *orphans > 0 {
        tracing::warn!(orphans, "node holds sandboxes that the database does not know: kept, see `roost node orphans`");
    }
    tracing::info!(orphans, changed, "node is compared with the restored database");
}

async fn settle(central: &Central, node: &NodeId, node_generation: u64) -> Result<Settled, SettleError> {
    let mut client = central.sessions.client(node)?;
    let listed = tokio::time::timeout(LIST_TIMEOUT, client.list_sandboxes(ListSandboxesRequest {})).await;
    let after_ms = u64::try_from(LIST_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let listed = listed.map_err(|_| NodeCallError::Timeout { node: node.clone(), after_ms })?;
    let refused = |status| NodeCallError::Status { node: node.clone(), status: Box::new(status) };
    let listed = listed.map_err(refused)?.into_inner().sandboxes;
    let held = listed.into_iter().filter(|sandbox| sandbox.from_central).map(read).collect::<Result<Vec<_>, _>>()?;
    let held = held.into_iter().filter(is_held).collect();
    let settled = central.store.system().settle(node.clone(), held, node_generation, clock::now_unix_ms()).await?;
    // Its room has changed.
    central.rooms.forget();
    Ok(settled)
}

/// Whether the node has a record of it, and is not about to lose that.
fn is_held(held: &Held) -> bool {
    let Observed { phase, reason, .. } = &held.observed;
    let is_refused = reason.as_deref().is_some_and(|reason| REFUSED.contains(&reason));
    held.run_state != RunState::Deleted && *phase != Phase::Gone && !(*phase == Phase::Failed && is_refused)
}

/// Reads what a node says of a sandbox.
///
/// # Errors
/// The field that cannot be read.
pub(crate) fn read(sandbox: Sandbox) -> Result<Held, InvalidMessage> {
    let desired = require("desired", sandbox.desired)?;
    Ok(Held {
        id: parse("desired.sandbox_id", &desired.sandbox_id)?,
        name: if desired.name.is_empty() { None } else { Some(parse("desired.name", &desired.name)?) },
        generation: desired.generation,
        run_state: RunState::from_wire(desired.run_state)?,
        restart_count: desired.restart_count,
        spec: require("desired.spec", desired.spec)?.try_into()?,
        resources: desired.resources.map(resources).transpose()?,
        paused: desired.paused,
        lifetime: desired.lifetime.map(TryInto::try_into).transpose()?,
        ttl_count: desired.ttl_count,
        observed: require("observed", sandbox.observed)?.try_into()?,
        created_at_unix_ms: sandbox.created_at_unix_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::id::SandboxId;

    fn held(run_state: RunState, phase: Phase, reason: Option<&str>) -> Held {
        Held {
            id: SandboxId::random(),
            name: None,
            generation: 1,
            run_state,
            restart_count: 0,
            spec: serde_json::from_str(r#"{"template":"bare","image":"roost/desktop"}"#).unwrap(),
            resources: None,
            paused: false,
            lifetime: None,
            ttl_count: 0,
            observed: Observed { phase, reason: reason.map(Into::into), ..Observed::pending() },
            created_at_unix_ms: 1,
        }
    }

    #[test]
    fn a_sandbox_counts_as_held_while_the_node_has_something_of_it_to_keep() {
        assert!(is_held(&held(RunState::Running, Phase::Ready, None)));
        assert!(is_held(&held(RunState::Stopped, Phase::Stopped, None)));
        assert!(is_held(&held(RunState::Running, Phase::Failed, Some("workload-exited"))));
        assert!(!is_held(&held(RunState::Running, Phase::Failed, Some("node-full"))), "it was never made");
        assert!(!is_held(&held(RunState::Running, Phase::Gone, None)));
        assert!(!is_held(&held(RunState::Deleted, Phase::Ready, None)), "its deletion was asked for");
    }
}
