//! Claims: a desktop that is ready goes to somebody.

use std::sync::Arc;

use roost_proto::convert::InvalidMessage;
use roost_proto::id::{PoolName, SandboxId, SandboxName, TenantId};
use roost_proto::model::{Binding, LifetimeChange, Phase, ResourcesChange, RunState, Validate};

use tokio::time::Instant;

use super::{Manager, RequestError};
use crate::host::fault;
use crate::reconcile::ledger::{Change, Record};
use crate::sandbox::claim::{Bound, Parcel};
use crate::sandbox::expiry::LifeClock;
use crate::sandbox::request_queue::{Decision, Request, decide};
use crate::sandbox::{Desired, Origin, View};

/// What is claimed.
#[derive(Debug, Clone)]
pub enum From {
    /// Any desktop of a pool that is ready.
    Pool(PoolName),
    /// This one.
    Sandbox(SandboxId),
}

/// A claim.
#[derive(Debug)]
pub struct Claim {
    /// What is claimed.
    pub from: From,
    /// What it is given.
    pub binding: Binding,
    /// Name for people.
    pub name: Option<SandboxName>,
    /// Who gets it; none for the node's own.
    pub tenant: Option<TenantId>,
    /// Limits in place of those that it has.
    pub resources: Option<ResourcesChange>,
    /// Times in place of those that it has.
    pub lifetime: LifetimeChange,
    /// Content of secrets and files.
    pub parcel: Parcel,
}

impl Manager {
    /// Gives a desktop to whoever claims it, and returns once that is durable
    /// and bound. The same claim again returns the same sandbox.
    ///
    /// # Errors
    /// See [`RequestError`]. [`RequestError::NotBound`]: the claim stands.
    pub async fn claim(&self, claim: Claim) -> Result<(View, Bound), RequestError> {
        let manager = self.clone();
        self.whole(async move { manager.claim_now(claim).await }).await
    }

    async fn claim_now(&self, claim: Claim) -> Result<(View, Bound), RequestError> {
        let begun = Instant::now();
        let parcel = Arc::new(claim.parcel);
        let binding = Arc::new(claim.binding);
        let id = {
            let _lane = self.lane.lock().await;
            match self.claimed_by(&binding)? {
                Some(id) => id,
                None => {
                    let record = self.find(&claim.from)?;
                    let now_ms = self.services.time.now_ms();
                    let taker = Taker {
                        binding: &binding,
                        name: claim.name,
                        tenant: claim.tenant,
                        resources: claim.resources.as_ref(),
                        lifetime: claim.lifetime,
                    };
                    let mut record = taken(&record, taker, now_ms)?;
                    Arc::make_mut(&mut record.desired).brings_files = !parcel.files.is_empty();
                    let id = record.desired.id.clone();
                    let volumes = &self.services.volumes;
                    let held = volumes.hold(&id, &record.desired.tenant, &binding.volumes)?;
                    fault::pass("claim.chosen");
                    let change = Change::Put(Box::new(record.clone()));
                    if let Err(error) = self.services.ledger.commit(vec![change]).await {
                        volumes.unhold(&id, &held);
                        return Err(error.into());
                    }
                    fault::pass("claim.durable");
                    // The content first: the wish alone would be bound without it.
                    self.send(&id, Some(parcel.clone()));
                    self.tell(record);
                    fault::pass("claim.told");
                    self.count_holdings();
                    id
                }
            }
        };
        let taken = begun.elapsed();
        let mut outcome = parcel.outcome.subscribe();
        self.send(&id, Some(parcel.clone()));
        let outcome = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        // Content is kept no longer than it takes.
        self.send(&id, None);
        let not_found = || RequestError::NotFound(id.clone());
        match outcome.ok_or_else(not_found)? {
            Ok(mut bound) => {
                bound.steps.insert(0, ("ledger", taken));
                Ok((self.get(&id).ok_or_else(not_found)?, bound))
            }
            Err((reason, message)) => Err(RequestError::NotBound { id, reason, message }),
        }
    }

    /// Lets a desktop of a pool go, unless somebody has claimed it meanwhile.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn drop_pooled(&self, id: &SandboxId) -> Result<(), RequestError> {
        let decide = |desired: &Desired, view: &View| match desired.origin {
            Origin::Pool => Ok(decide(Request::Delete, desired, view.observed.phase, false)),
            Origin::Central | Origin::Local => Ok(Decision::Ignore),
        };
        match self.settle(id, decide).await {
            Ok(_) | Err(RequestError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send(&self, id: &SandboxId, parcel: Option<Arc<Parcel>>) {
        if let Some(handle) = self.lock().handles.get(id) {
            handle.parcels.send_replace(parcel);
        }
    }

    /// The sandbox that this claim has already.
    fn claimed_by(&self, binding: &Binding) -> Result<Option<SandboxId>, RequestError> {
        let inner = self.lock();
        let with_claim =
            |desired: &&Arc<Desired>| desired.binding.as_ref().is_some_and(|other| other.claim_id == binding.claim_id);
        let Some(desired) = inner.handles.values().map(|handle| &handle.record.desired).find(with_claim) else {
            return Ok(None);
        };
        match desired.binding.as_deref() == Some(binding) {
            true if desired.run_state == RunState::Deleted => Err(RequestError::Deleting(desired.id.clone())),
            true => Ok(Some(desired.id.clone())),
            false => Err(RequestError::Conflict(desired.id.clone())),
        }
    }

    /// What is there to claim: of a pool, the one that is ready for longest.
    fn find(&self, from: &From) -> Result<Record, RequestError> {
        let inner = self.lock();
        let is_ready = |record: &Record| {
            let view = self.table.get(&record.desired.id);
            view.filter(|view| view.observed.phase == Phase::Ready).and_then(|view| view.observed.ready_at_unix_ms)
        };
        let is_paused = |record: &Record| {
            let view = self.table.get(&record.desired.id);
            record.desired.paused || view.is_some_and(|view| view.observed.phase == Phase::Paused)
        };
        match from {
            From::Pool(pool) => {
                let is_of_it = |desired: &Desired| {
                    desired.origin == Origin::Pool
                        && desired.pool.as_ref() == Some(pool)
                        && desired.run_state == RunState::Running
                };
                let records = inner.handles.values().map(|handle| &handle.record);
                let ready = records.filter(|record| is_of_it(&record.desired));
                let ready = ready.filter_map(|record| Some((is_ready(record)?, record)));
                let oldest = ready.min_by_key(|(since, record)| (*since, record.first_id));
                oldest.map(|(_, record)| record.clone()).ok_or_else(|| RequestError::PoolEmpty(pool.clone()))
            }
            From::Sandbox(id) => {
                let record = inner.handles.get(id).map(|handle| handle.record.clone());
                let record = record.ok_or_else(|| RequestError::NotFound(id.clone()))?;
                match &record.desired.binding {
                    Some(_) => Err(RequestError::Conflict(id.clone())),
                    None if record.desired.run_state == RunState::Deleted => Err(RequestError::Deleting(id.clone())),
                    // The hook would not answer.
                    None if is_paused(&record) => Err(RequestError::Paused(id.clone())),
                    None => Ok(record),
                }
            }
        }
    }
}

/// Who takes a sandbox, and what it is given.
struct Taker<'a> {
    binding: &'a Arc<Binding>,
    name: Option<SandboxName>,
    tenant: Option<TenantId>,
    resources: Option<&'a ResourcesChange>,
    lifetime: LifetimeChange,
}

/// The record once it is claimed. Its times count from now on.
fn taken(record: &Record, taker: Taker<'_>, now_ms: u64) -> Result<Record, RequestError> {
    let Taker { binding, name, tenant, resources, lifetime } = taker;
    let before = &record.desired;
    let display = before.spec.display;
    if binding.screen.is_some_and(|s| s.width_px > display.width_px || s.height_px > display.height_px) {
        let (width, height) = (display.width_px, display.height_px);
        let problem = format!("at most the template's screen of {width}x{height} pixels: make that larger");
        return Err(RequestError::Invalid(InvalidMessage::field("binding.screen", problem)));
    }
    let invalid = |errors| RequestError::Invalid(InvalidMessage(errors));
    let resources = match resources {
        None => before.resources.clone(),
        Some(change) => Some(change.apply(before.resources()).map_err(invalid)?),
    };
    let new_lifetime = match lifetime.is_nothing() {
        true => before.lifetime,
        false => Some(lifetime.apply(before.lifetime()).map_err(invalid)?),
    };
    let volumes = [before.spec.volumes.as_slice(), &binding.volumes].concat();
    volumes.as_slice().validate().map_err(|errors| RequestError::Invalid(InvalidMessage(errors)))?;
    let desired = Desired {
        name: name.or_else(|| before.name.clone()),
        origin: match (&tenant, before.origin) {
            (Some(_), _) => Origin::Central,
            (None, Origin::Pool) => Origin::Local,
            (None, origin) => origin,
        },
        unconfirmed: tenant.is_some(),
        tenant: tenant.unwrap_or_else(|| before.tenant.clone()),
        generation: before.generation + 1,
        // Nobody asked for a start.
        asked_generation: Some(before.asked()),
        binding: Some(binding.clone()),
        resources,
        lifetime: new_lifetime,
        ttl_count: before.ttl_count + u64::from(lifetime.ttl_ms.is_some()),
        clock: Some(LifeClock::begin(now_ms)),
        ..Desired::clone(before)
    };
    Ok(Record { desired: Arc::new(desired), ..record.clone() })
}
