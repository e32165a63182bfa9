//! Desktops that are kept ready for claims.
//!
//! A pool belongs to the node: it goes on filling while central is away. Its
//! desktops are sandboxes like all others until somebody claims one. What to
//! do is decided by [`policy`], pure; the keeper does it.

mod keeper;
pub mod policy;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roost_proto::convert::InvalidMessage;
use roost_proto::id::PoolName;
use roost_proto::model::{Pool, PoolSpec};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::host::fault;
use crate::reconcile::ledger::Change;
use crate::sandbox::claim::Bound;
use crate::sandbox::manager::claim::{Claim, From};
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::{Manager, RequestError, Services, View};
use crate::tasks::Tasks;
use policy::Demand;

/// Most pools of one node.
const POOLS_MAX: usize = 256;
/// First and longest wait after a start of a pool failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A pool, and what happened to it.
#[derive(Debug)]
struct Entry {
    spec: Arc<PoolSpec>,
    demand: Demand,
    hits: u64,
    misses: u64,
    problem: Option<Problem>,
}

/// Why a pool does not fill, and until when no start is tried.
#[derive(Debug, Clone)]
struct Problem {
    message: String,
    wait: Duration,
    until: Instant,
}

impl Entry {
    fn new(spec: PoolSpec) -> Self {
        Self { spec: Arc::new(spec), demand: Demand::default(), hits: 0, misses: 0, problem: None }
    }

    fn failed(&mut self, message: String, now: Instant) {
        let wait = self.problem.as_ref().map_or(BACKOFF.0, |before| (before.wait * 2).min(BACKOFF.1));
        self.problem = Some(Problem { message, wait, until: now + wait });
    }
}

/// The pools of the node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pools {
    manager: Manager,
    services: Arc<Services>,
    entries: Arc<Mutex<HashMap<PoolName, Entry>>>,
    /// One change of a pool at a time: the map takes them in the ledger's order.
    lane: Arc<tokio::sync::Mutex<()>>,
    /// Rises when the keeper has to look.
    changes: watch::Sender<u64>,
    /// Starts wait for claims.
    claims: watch::Sender<Claims>,
}

/// Claims at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Claims {
    under_way: usize,
    last_ended_at: Option<Instant>,
}

impl Pools {
    /// Pools as the ledger has them, and the task that keeps them filled.
    #[must_use]
    pub fn start(
        manager: Manager,
        services: Arc<Services>,
        kept: Vec<PoolSpec>,
        tasks: &Tasks,
        shutdown: CancellationToken,
    ) -> Self {
        let entries = kept.into_iter().map(|spec| (spec.name.clone(), Entry::new(spec))).collect();
        let (changes, claims) = (watch::Sender::new(0), watch::Sender::new(Claims::default()));
        let (entries, lane) = (Arc::new(Mutex::new(entries)), Arc::default());
        let pools = Self { manager, services, entries, lane, changes, claims };
        tasks.spawn("pools", keeper::keep(pools.clone(), shutdown));
        pools
    }

    /// A plain map: whole even after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, HashMap<PoolName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a pool or replaces what it is to be; returns once that is durable.
    ///
    /// # Errors
    /// [`RequestError::Ledger`]; [`RequestError::Invalid`] with too many pools.
    pub async fn put(&self, spec: PoolSpec) -> Result<Pool, RequestError> {
        let pools = self.clone();
        self.manager.whole(async move { pools.put_now(spec).await }).await
    }

    async fn put_now(&self, spec: PoolSpec) -> Result<Pool, RequestError> {
        let _alone = self.lane.lock().await;
        let name = spec.name.clone();
        if !self.lock().contains_key(&name) && self.lock().len() >= POOLS_MAX {
            let problem = format!("the node has {POOLS_MAX} pools, more are not kept: remove one");
            return Err(RequestError::Invalid(InvalidMessage::field("spec.name", problem)));
        }
        self.services.ledger.commit(vec![Change::PutPool(Box::new(spec.clone()))]).await?;
        fault::pass("pool.put");
        {
            let mut entries = self.lock();
            let entry = entries.entry(name.clone()).or_insert_with(|| Entry::new(spec.clone()));
            entry.spec = Arc::new(spec.clone());
            // Another spec may well start.
            entry.problem = None;
        }
        self.changes.send_modify(|change| *change += 1);
        Ok(self.list().into_iter().find(|pool| pool.spec.name == name).unwrap_or_else(|| empty(spec)))
    }

    /// Removes a pool; what of it nobody claimed goes too. One that is not
    /// there is no error.
    ///
    /// # Errors
    /// [`RequestError::Ledger`].
    pub async fn remove(&self, name: &PoolName) -> Result<(), RequestError> {
        let (pools, name) = (self.clone(), name.clone());
        self.manager.whole(async move { pools.remove_now(&name).await }).await
    }

    async fn remove_now(&self, name: &PoolName) -> Result<(), RequestError> {
        let _alone = self.lane.lock().await;
        self.services.ledger.commit(vec![Change::RemovePool(name.clone())]).await?;
        fault::pass("pool.removed");
        self.lock().remove(name);
        self.changes.send_modify(|change| *change += 1);
        Ok(())
    }

    /// Every pool, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Pool> {
        let members = keeper::members(&self.manager);
        let now_unix_ms = unix_ms();
        let entries = self.lock();
        let mut pools: Vec<Pool> = entries
            .values()
            .map(|entry| {
                let of_it = members.get(&entry.spec.name).map(Vec::as_slice).unwrap_or_default();
                let counts = keeper::count(of_it, &entry.spec.spec);
                let oldest = of_it.iter().filter_map(|member| member.ready_at_unix_ms).min();
                Pool {
                    ready: counts.ready + counts.outdated,
                    starting: counts.starting,
                    outdated: counts.outdated,
                    hits: entry.hits,
                    misses: entry.misses,
                    oldest_ready_ms: oldest.map_or(0, |since| now_unix_ms.saturating_sub(since)),
                    problem: entry.problem.as_ref().map(|problem| problem.message.clone()),
                    spec: (*entry.spec).clone(),
                }
            })
            .collect();
        pools.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        pools
    }

    /// Gives a desktop to whoever claims it.
    ///
    /// # Errors
    /// See [`Manager::claim`].
    pub async fn claim(&self, claim: Claim) -> Result<(View, Bound), RequestError> {
        let pool = match &claim.from {
            From::Pool(pool) => Some(pool.clone()),
            From::Sandbox(_) => None,
        };
        let _under_way = UnderWay::begin(&self.claims);
        let begun = Instant::now();
        let result = self.manager.claim(claim).await;
        self.services.metrics.claim_ended(outcome(&result), begun.elapsed());
        if let Some(pool) = pool
            && let Some(entry) = self.lock().get_mut(&pool)
        {
            note(entry, &result);
        }
        self.changes.send_modify(|change| *change += 1);
        result
    }
}

/// How a claim ended, as metrics name it.
fn outcome(result: &Result<(View, Bound), RequestError>) -> &'static str {
    match result {
        Ok(_) => "bound",
        Err(RequestError::NotBound { .. }) => "not-bound",
        Err(RequestError::PoolEmpty(_)) => "pool-empty",
        Err(_) => "refused",
    }
}

/// Counts a claim of a pool.
fn note(entry: &mut Entry, result: &Result<(View, Bound), RequestError>) {
    entry.demand.claimed(Instant::now().into_std());
    match result {
        Err(RequestError::PoolEmpty(_)) => entry.misses += 1,
        Ok(_) | Err(RequestError::NotBound { .. }) => entry.hits += 1,
        Err(_) => {}
    }
}

/// A pool that nothing is known of yet.
fn empty(spec: PoolSpec) -> Pool {
    Pool { spec, ready: 0, starting: 0, outdated: 0, hits: 0, misses: 0, oldest_ready_ms: 0, problem: None }
}

/// Counts a claim while it is under way.
#[derive(Debug)]
struct UnderWay<'a>(&'a watch::Sender<Claims>);

impl<'a> UnderWay<'a> {
    fn begin(claims: &'a watch::Sender<Claims>) -> Self {
        claims.send_modify(|claims| claims.under_way += 1);
        Self(claims)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|claims| {
            claims.under_way = claims.under_way.saturating_sub(1);
            claims.last_ended_at = Some(Instant::now());
        });
    }
}
