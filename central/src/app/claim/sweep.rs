//! Claims that nobody finished: central or its caller ended in the middle.
//!
//! The node is asked whether it has bound the claim. One with a key is adopted,
//! as its caller may still ask for it; one without is deleted, as nobody can.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::NodeId;

use super::super::{Central, Noun, RequestError, Scope};
use super::node::{self, Given};
use crate::clock;
use crate::link::NodeCallError;
use crate::store::{ClaimRecord, FinishClaimError, Intent, SandboxKey};

/// Age at which a claim is looked at: no request lasts as long.
const STALE_AFTER: Duration = Duration::from_secs(120);
/// Claims of one look; the rest waits for the next.
const LIMIT: u32 = 100;

/// Brings every stale claim to an end that can be brought to one here.
///
/// # Errors
/// [`RequestError::Store`].
pub async fn sweep(central: &Arc<Central>) -> Result<(), RequestError> {
    let before = clock::now_unix_ms().saturating_sub(u64::try_from(STALE_AFTER.as_millis()).unwrap_or(u64::MAX));
    for claim in central.store.system().stale_claims(before, LIMIT).await? {
        match settle(central, &claim).await {
            Ok(()) => {}
            // Another replica has the session, or the node comes back later.
            Err(RequestError::Node(NodeCallError::Offline(_) | NodeCallError::Elsewhere { .. })) => {}
            Err(error) => {
                tracing::warn!(claim = %claim.id, error = crate::log::chain(&error), "stale claim is not settled");
            }
        }
    }
    Ok(())
}

async fn settle(central: &Arc<Central>, claim: &ClaimRecord) -> Result<(), RequestError> {
    let scope = Scope::of(central, claim.tenant.clone());
    let made = match &claim.sandbox_id {
        Some(id) => scope.store().sandbox(SandboxKey::Id(id.clone())).await?,
        None => None,
    };
    let node = made.as_ref().map(|sandbox| sandbox.node_id.clone()).or_else(|| claim.node_id.clone());
    let found = match node {
        Some(node) if is_known(&scope, &node).await? => {
            node::find(central, &node, &claim.id).await?.map(|held| (node, held))
        }
        _ => None,
    };
    match (found, made) {
        (Some((node, held)), _) => adopt(&scope, claim, node, held).await,
        (None, Some(sandbox)) => {
            scope.wish(sandbox.id.as_str(), Intent::Delete.into()).await?;
            tracing::info!(claim = %claim.id, sandbox = %sandbox.id, "sandbox of an unfinished claim is deleted");
            Ok(scope.store().drop_claim(claim.id.clone()).await?)
        }
        (None, None) => Ok(scope.store().drop_claim(claim.id.clone()).await?),
    }
}

async fn is_known(scope: &Scope, node: &NodeId) -> Result<bool, RequestError> {
    match scope.node(node).await {
        Ok(_) => Ok(true),
        Err(RequestError::NotFound { noun: Noun::Node, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn adopt(scope: &Scope, claim: &ClaimRecord, node: NodeId, held: crate::store::Held) -> Result<(), RequestError> {
    let id = held.id.clone();
    let given = Given { held, hook_exit_code: None, steps: None };
    match scope.store().finish_claim(given.finish(claim.id.clone(), node.clone())).await {
        Ok(_) => {}
        // Its node deletes what it holds.
        Err(FinishClaimError::Deleting | FinishClaimError::NameTaken(_) | FinishClaimError::Superseded) => {
            return Ok(scope.store().drop_claim(claim.id.clone()).await?);
        }
        Err(FinishClaimError::Store(error)) => return Err(error.into()),
    }
    scope.central.live.forget(&node, &id);
    if claim.key.is_none() {
        scope.wish(id.as_str(), Intent::Delete.into()).await?;
    }
    tracing::info!(claim = %claim.id, sandbox = %id, adopted = claim.key.is_some(), "unfinished claim settled");
    Ok(())
}
