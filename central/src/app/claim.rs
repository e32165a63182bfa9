//! Claims: a desktop of a pool goes to a caller.
//!
//! ```text
//!   begin (row: claim, node) ─▶ the node binds ─▶ finish (row: sandbox)
//!        │ none ready there: aim at the next node ──┘
//!        └ none ready anywhere: a sandbox is made, and claimed once Ready
//! ```
//!
//! A crash between the two transactions is made good by the same key again, or
//! by the sweep ([`sweep`]): the node knows the claim by its id.

mod cold;
mod node;
pub(super) mod sweep;

use std::sync::Arc;

use roost_proto::id::{ClaimId, NodeId, SandboxId};
use roost_proto::model::{Claimed, CreateClaim, FleetPoolStatus, NodePhase, Validate};

use tokio::time::Instant;

use super::sandbox::{check_key, check_name, digest};
use super::{Central, Conflict, RequestError, Scope};
use crate::clock;
use crate::link::NodeCallError;
use crate::metrics::ClaimOutcome;
use crate::store::{Aim, AimAt, BeginClaimError, ClaimRecord, FinishClaimError, NewClaim, SandboxKey};
use node::{Given, Refusal};

/// Most nodes that are asked for one claim: what is known of them is seconds
/// old, and a claim must not ask a whole fleet in a row.
const NODES_MAX: usize = 8;

/// A claim as it was asked for.
#[derive(Debug)]
pub struct Claim {
    /// The body.
    pub body: CreateClaim,
    /// The idempotency key, if one was given.
    pub idempotency_key: Option<String>,
}

/// The answer to a claim.
#[derive(Debug)]
pub struct ClaimAnswer {
    /// What was claimed.
    pub claimed: Claimed,
    /// True if this is the answer of an earlier request with the same key.
    pub replayed: bool,
}

/// A claim under way.
struct Attempt<'a> {
    scope: &'a Scope,
    body: &'a CreateClaim,
    pool: &'a FleetPoolStatus,
    record: ClaimRecord,
    /// Whether no request before this one can have reached a node.
    is_first: bool,
}

impl Scope {
    /// Gives a desktop of a pool to the caller; returns once it is bound.
    ///
    /// # Errors
    /// See [`RequestError`]: bad fields, an unknown pool, a taken name or reused
    /// key, a hook that did not answer, and no room for a cold start.
    pub async fn claim(&self, claim: Claim) -> Result<ClaimAnswer, RequestError> {
        let begun = Instant::now();
        let answer = self.claim_once(claim).await;
        let outcome = match &answer {
            Ok(answer) if answer.replayed => ClaimOutcome::Replayed,
            Ok(answer) if answer.claimed.cold => ClaimOutcome::Cold,
            Ok(_) => ClaimOutcome::Warm,
            Err(_) => ClaimOutcome::Refused,
        };
        self.central.metrics.claim(outcome, begun.elapsed());
        answer
    }

    async fn claim_once(&self, claim: Claim) -> Result<ClaimAnswer, RequestError> {
        let Claim { body, idempotency_key } = claim;
        body.validate().map_err(RequestError::Invalid)?;
        body.name.as_ref().map_or(Ok(()), check_name)?;
        idempotency_key.as_deref().map_or(Ok(()), check_key)?;
        let pool = self.pool(&body.pool).await?;
        let nodes = self.candidates(&pool).await?;
        let new = NewClaim {
            id: ClaimId::random(),
            key: idempotency_key,
            body_sha256: digest(&body.without_content())?,
            pool: body.pool.clone(),
            name: body.name.clone(),
            node_id: nodes.first().cloned(),
            now_unix_ms: clock::now_unix_ms(),
        };
        let id = new.id.clone();
        let record = self.store().begin_claim(new).await.map_err(|error| match error {
            BeginClaimError::NameTaken(name) => Conflict::NameTaken(name.into()).into(),
            BeginClaimError::KeyReused => Conflict::KeyReused.into(),
            BeginClaimError::Store(error) => RequestError::from(error),
        })?;
        let is_first = record.id == id;
        let attempt = Attempt { scope: self, body: &body, pool: &pool, record, is_first };
        match attempt.earlier().await? {
            Some(claimed) => Ok(ClaimAnswer { claimed, replayed: true }),
            None => Ok(ClaimAnswer { claimed: attempt.run(nodes).await?, replayed: false }),
        }
    }

    /// Nodes with a session here that keep the pool, those with the most ready
    /// desktops first.
    async fn candidates(&self, pool: &FleetPoolStatus) -> Result<Vec<NodeId>, RequestError> {
        let (now, live) = (clock::now_unix_ms(), &self.central.live);
        let online = pool.nodes.iter().filter(|on| live.phase(&on.node_id, now) == NodePhase::Online);
        let (here, away): (Vec<_>, Vec<_>) = online.partition(|on| self.central.sessions.is_open(&on.node_id));
        if here.is_empty() && !away.is_empty() {
            for on in away {
                if let Some(replica) = self.central.holder_elsewhere(&on.node_id).await? {
                    return Err(NodeCallError::Elsewhere { node: on.node_id.clone(), replica }.into());
                }
            }
        }
        let known = |on: &roost_proto::model::PoolOnNode| self.central.pools.ready(&on.node_id, &on.name);
        let mut ranked: Vec<_> =
            here.into_iter().map(|on| (known(on).unwrap_or(on.standing.ready), on.node_id.clone())).collect();
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        Ok(ranked.into_iter().take(NODES_MAX).map(|(_, node)| node).collect())
    }
}

impl Attempt<'_> {
    fn central(&self) -> &Arc<Central> {
        &self.scope.central
    }

    /// The answer that the key has already. None where the claim is still to be
    /// bound, as the node may have lost its secrets in a reboot.
    async fn earlier(&self) -> Result<Option<Claimed>, RequestError> {
        if !self.record.is_kept {
            return Ok(None);
        }
        let id = self.record.sandbox_id.clone();
        let sandbox = match id {
            Some(id) => self.scope.store().sandbox(SandboxKey::Id(id)).await?,
            None => None,
        };
        let is_bound = sandbox.as_ref().is_none_or(|s| s.observed.binding.as_ref().is_none_or(|b| b.bound));
        match (&self.record.answer, sandbox) {
            (Some(answer), _) if is_bound => Ok(Some(Claimed::clone(answer))),
            (_, Some(_)) => Ok(None),
            (_, None) => Err(Conflict::Deleting(self.record.id.to_string()).into()),
        }
    }

    /// Asks one node after the other; where none has a desktop ready, one is
    /// made.
    async fn run(mut self, nodes: Vec<NodeId>) -> Result<Claimed, RequestError> {
        if self.record.is_kept {
            return self.bind_again().await;
        }
        if let Some(sandbox) = self.record.sandbox_id.clone() {
            return self.cold(sandbox).await;
        }
        let mut tried = Vec::new();
        let mut reason = "no node that keeps the pool is connected".to_owned();
        loop {
            if let Some(node) = self.record.node_id.clone() {
                match self.ask_pool(&node).await {
                    Ok(given) => return self.finish(&node, given).await,
                    Err(Refusal::Next(why)) => reason = why,
                    Err(Refusal::NotBound(message)) => return Err(self.stands_unbound(&node, message).await),
                    Err(Refusal::Wrong(error)) => {
                        self.scope.store().drop_claim(self.record.id.clone()).await?;
                        return Err(error);
                    }
                    Err(Refusal::Failed(error)) => return Err(error),
                }
                tried.push(node);
            }
            match nodes.iter().find(|node| !tried.contains(node)).cloned() {
                Some(next) => {
                    self.aim(AimAt::Node(next.clone())).await?;
                    self.record.node_id = Some(next);
                }
                // A new one could be placed where the volumes are not.
                None if !self.body.volumes.is_empty() => {
                    self.scope.store().drop_claim(self.record.id.clone()).await?;
                    let told = format!("no desktop is ready on the node that has the volumes: {reason}");
                    return Err(Conflict::NotReady(told).into());
                }
                None => {
                    let sandbox = SandboxId::random();
                    self.aim(AimAt::Made { sandbox: sandbox.clone(), reason }).await?;
                    return self.cold(sandbox).await;
                }
            }
        }
    }

    /// Moves on, unless another request with the same key has.
    async fn aim(&self, to: AimAt) -> Result<(), RequestError> {
        let aim = Aim { id: self.record.id.clone(), from: self.record.node_id.clone(), to };
        if self.scope.store().aim_claim(aim).await? { Ok(()) } else { Err(Conflict::ClaimBusy.into()) }
    }

    /// A claim that has its sandbox and is not bound there.
    async fn bind_again(&self) -> Result<Claimed, RequestError> {
        let (Some(node), Some(sandbox)) = (self.record.node_id.clone(), self.record.sandbox_id.clone()) else {
            return Err(Conflict::ClaimBusy.into());
        };
        match self.ask_sandbox(&node, &sandbox).await {
            Ok(given) => self.finish(&node, given).await,
            Err(Refusal::NotBound(message)) => Err(Conflict::NotBound { sandbox: sandbox.to_string(), message }.into()),
            Err(Refusal::Next(message)) => Err(Conflict::NotReady(message).into()),
            Err(Refusal::Wrong(error) | Refusal::Failed(error)) => Err(error),
        }
    }

    /// Makes what the node gave a sandbox like any other.
    async fn finish(&self, node: &NodeId, given: Given) -> Result<Claimed, RequestError> {
        let id = given.held.id.clone();
        let finished = self.scope.store().finish_claim(given.finish(self.record.id.clone(), node.clone())).await;
        let mut claimed = finished.map_err(|error| refused(&id, error))?;
        // What it said before it had a row was not kept.
        self.central().live.forget(node, &id);
        self.central().live.overlay(&mut claimed.sandbox);
        tracing::info!(claim = %claimed.claim_id, sandbox = %id, %node, cold = claimed.cold, "desktop claimed");
        Ok(claimed)
    }

    /// The claim stands on the node and its hook did not answer: the sandbox is
    /// shown, and the caller told.
    async fn stands_unbound(&self, node: &NodeId, message: String) -> RequestError {
        let found = match node::find(self.central(), node, &self.record.id).await {
            Ok(found) => found,
            Err(error) => return error,
        };
        let Some(held) = found else { return Conflict::ClaimBusy.into() };
        let sandbox = held.id.to_string();
        match self.finish(node, Given { held, hook_exit_code: None, steps: None }).await {
            Ok(_) => Conflict::NotBound { sandbox, message }.into(),
            Err(error) => error,
        }
    }
}

fn refused(sandbox: &SandboxId, error: FinishClaimError) -> RequestError {
    match error {
        FinishClaimError::Superseded => Conflict::ClaimBusy.into(),
        FinishClaimError::Deleting => Conflict::Deleting(sandbox.to_string()).into(),
        FinishClaimError::NameTaken(name) => Conflict::NameTaken(name.into()).into(),
        FinishClaimError::Store(error) => error.into(),
    }
}
