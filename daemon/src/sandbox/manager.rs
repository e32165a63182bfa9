//! Every sandbox of the node, by id: requests in, drivers out.
//!
//! Requests are taken one after the other; each is durable before its driver
//! hears of it and before its caller gets an answer.

mod central;
pub mod claim;
mod create;
mod holdings;
mod resources;
mod timing;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roost_proto::convert::InvalidMessage;
use roost_proto::id::{PoolName, SandboxId};
use roost_proto::model::{Observed, OomVictim, RunState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::allocate::IdRanges;
use super::claim::Parcel;
use super::driver::{Accepted, Driver, Found, LastKills};
use super::eviction::Eviction;
use super::publisher::Publisher;
use super::request_queue::{Request, decide};
use super::table::Table;
use super::{Desired, Services, View};
use crate::reconcile::ledger::{LedgerError, Progress, Record};
use crate::tasks::{TaskName, Tasks};
use crate::volume::HoldError;
pub use central::ApplyError;
pub use holdings::Holdings;

/// X display number inside every sandbox: each has an X socket directory of
/// its own.
const DISPLAY_NUMBER: u32 = crate::display::server::DISPLAY_NUMBER;
/// How long a removed sandbox is still shown as Gone.
const GONE_SHOWN_FOR: Duration = Duration::from_secs(60);

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No such sandbox on this node.
    #[error("no sandbox {0} on this node")]
    NotFound(SandboxId),
    /// The id exists with another spec.
    #[error("sandbox {0} exists with another spec: choose another id")]
    Conflict(SandboxId),
    /// The sandbox is being deleted.
    #[error("sandbox {0} is being deleted")]
    Deleting(SandboxId),
    /// The sandbox stands still.
    #[error("sandbox {0} is paused: `roost sandbox resume` first")]
    Paused(SandboxId),
    /// The sandbox does not run, so that it cannot stand still.
    #[error("sandbox {0} does not run: `roost sandbox start` first")]
    NotRunning(SandboxId),
    /// Central owns it.
    #[error("sandbox {0} belongs to central: change it there")]
    OwnedByCentral(SandboxId),
    /// The node holds as many sandboxes as its configuration allows.
    #[error("the node is full: {max} sandboxes; delete one or raise sandboxes.max")]
    Full {
        /// The configured maximum.
        max: usize,
    },
    /// The node runs short of something.
    #[error("the node takes no sandbox while it has {condition}: {message}")]
    Pressure {
        /// E.g. `DiskPressure`.
        condition: String,
        /// One sentence, with the next step.
        message: String,
    },
    /// Fields break rules.
    #[error(transparent)]
    Invalid(InvalidMessage),
    /// A volume that it cannot have.
    #[error(transparent)]
    Volume(#[from] HoldError),
    /// No desktop of the pool is ready.
    #[error("pool {0} has no desktop ready: try again, or create one, which starts from nothing")]
    PoolEmpty(PoolName),
    /// The claim is durable and could not be bound.
    #[error("sandbox {id} is claimed and not bound: {message}")]
    NotBound {
        /// The sandbox.
        id: SandboxId,
        /// Stable word.
        reason: &'static str,
        /// One sentence, with the next step.
        message: String,
    },
    /// The request could not be made durable.
    #[error("the ledger could not keep the request")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<LedgerError> for RequestError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(Box::new(error))
    }
}

/// Ends of the channels to one driver.
#[derive(Debug)]
struct Handle {
    record: Record,
    /// False: another sandbox has its ids, and it must not run.
    owns_ids: bool,
    desired: watch::Sender<Arc<Desired>>,
    hints: watch::Sender<u64>,
    victims: watch::Sender<Option<OomVictim>>,
    evictions: watch::Sender<Option<Eviction>>,
    parcels: watch::Sender<Option<Arc<Parcel>>>,
    activity: Arc<Activity>,
}

#[derive(Debug)]
struct Inner {
    handles: HashMap<SandboxId, Handle>,
    ids: IdRanges,
    central_generation: u64,
    /// What is left of these is being removed: they cannot be made yet.
    reaping: HashSet<SandboxId>,
}

/// What a driver begins with.
#[derive(Debug, Default)]
struct Beginning {
    /// What exists of the sandbox.
    found: Found,
    /// Set for one that was just made.
    accepted: Option<Accepted>,
    /// Why it must not run here, if so.
    barred: Option<String>,
}

impl Beginning {
    fn of(accepted: Accepted) -> Self {
        Self { accepted: Some(accepted), ..Self::default() }
    }
}

/// How many sandboxes there may be, and which ids they get.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most sandboxes at once.
    pub sandboxes_max: usize,
    /// First id of the first range.
    pub first_id: u32,
}

/// Handle on every sandbox of the node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    services: Arc<Services>,
    tasks: Tasks,
    table: Table,
    limits: Limits,
    inner: Arc<Mutex<Inner>>,
    holdings: watch::Sender<Holdings>,
    /// Held from the decision on a request until it is durable.
    lane: Arc<tokio::sync::Mutex<()>>,
    shutdown: CancellationToken,
}

impl Manager {
    /// A manager without sandboxes.
    #[must_use]
    pub fn new(services: Arc<Services>, tasks: Tasks, limits: Limits, shutdown: CancellationToken) -> Self {
        let count = u32::try_from(limits.sandboxes_max).unwrap_or(u32::MAX);
        let inner = Inner {
            handles: HashMap::new(),
            ids: IdRanges::new(limits.first_id, count),
            central_generation: 0,
            reaping: HashSet::new(),
        };
        Self {
            services,
            tasks,
            table: Table::default(),
            limits,
            inner: Arc::new(Mutex::new(inner)),
            holdings: watch::Sender::default(),
            lane: Arc::default(),
            shutdown,
        }
    }

    /// The lock protects plain maps and is never held across an await.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the ledger holds, with what exists of it. Of two that
    /// share ids the one that runs goes on; the other must not.
    pub fn restore(&self, mut records: Vec<(Record, Progress, Found)>, central_generation: u64) {
        self.lock().central_generation = central_generation;
        records.sort_by_key(|(_, _, found)| *found == Found::default());
        for (record, progress, found) in records {
            let barred = self.take_ids(&record).err();
            self.keep_volumes(&record.desired, found);
            self.table.put_desired(record.desired.clone());
            self.drive(record, progress, Beginning { found, accepted: None, barred });
        }
    }

    /// A sandbox goes on with the volumes that it had. One that it cannot have
    /// any more is refused to it when it starts.
    fn keep_volumes(&self, desired: &Desired, found: Found) {
        let volumes = &self.services.volumes;
        for mount in desired.volumes() {
            if let Err(error) = volumes.hold(&desired.id, &desired.tenant, std::slice::from_ref(&mount)) {
                tracing::error!(sandbox = %desired.id, %error, "a sandbox lost its volume");
            }
        }
        if found != Found::default() {
            volumes.mark_open(&desired.id);
        }
    }

    /// Keeps ids from being used again while what is left of them is removed.
    pub fn begin_reap(&self, ids: impl IntoIterator<Item = SandboxId>) {
        self.lock().reaping.extend(ids);
    }

    /// Nothing is left of an id.
    pub fn end_reap(&self, id: &SandboxId) {
        self.lock().reaping.remove(id);
    }

    /// Starts the driver of a sandbox whose record is durable.
    fn drive(&self, record: Record, progress: Progress, beginning: Beginning) {
        let Beginning { found, accepted, barred } = beginning;
        let id = record.desired.id.clone();
        let (desired_tx, desired) = watch::channel(record.desired.clone());
        let (hints_tx, hints) = watch::channel(0);
        let (victims_tx, victims) = watch::channel(None);
        let (evictions_tx, evictions) = watch::channel(None);
        let (parcels_tx, parcels) = watch::channel(None);
        let activity = Activity::new(self.services.time);
        let handle = Handle {
            record: record.clone(),
            owns_ids: barred.is_none(),
            desired: desired_tx,
            hints: hints_tx,
            victims: victims_tx,
            evictions: evictions_tx,
            parcels: parcels_tx,
            activity: activity.clone(),
        };
        self.lock().handles.insert(id.clone(), handle);
        self.count_holdings();
        let observed = self.table.get(&id).map_or_else(Observed::pending, |view| view.observed);
        let driver = Box::new(Driver {
            services: self.services.clone(),
            record,
            progress,
            desired,
            hints,
            victims,
            last_kills: LastKills::default(),
            evictions,
            parcels,
            given_up: None,
            hints_before: 0,
            publisher: Publisher::new(id.clone(), self.table.clone(), observed),
            due: None,
            activity,
            idle: None,
            shown_end: None,
            barred,
            accepted,
            shutdown: self.shutdown.clone(),
        });
        let manager = self.clone();
        self.tasks.spawn(TaskName::of("driver", &id), async move {
            driver.run(found).await;
            manager.driver_ended(&id).await;
        });
    }

    /// Frees what a sandbox held, and forgets it a little later, so that
    /// watchers see it Gone.
    async fn driver_ended(&self, id: &SandboxId) {
        if self.shutdown.is_cancelled() {
            return;
        }
        {
            let mut inner = self.lock();
            if let Some(handle) = inner.handles.remove(id).filter(|handle| handle.owns_ids) {
                inner.ids.free(handle.record.first_id);
            }
        }
        self.services.volumes.release(id);
        self.count_holdings();
        self.forget_later(id).await;
    }

    /// Forgets a sandbox that is gone. The same id may live again by then, and
    /// even be gone again: that one is shown for its own time.
    async fn forget_later(&self, id: &SandboxId) {
        let Some(shown) = self.get(id) else { return };
        // Cancel-safe: nothing but the time is waited for.
        tokio::select! {
            () = tokio::time::sleep(GONE_SHOWN_FOR) => {}
            () = self.shutdown.cancelled() => return,
        }
        self.table.remove_unchanged(id, shown.change);
    }

    /// Carries a request out to its end, also when its caller goes away: one
    /// that became durable must reach its driver.
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, RequestError>> + Send + 'static,
    ) -> Result<T, RequestError> {
        self.tasks.spawn("request", request).await.map_err(|error| RequestError::Ledger(Box::new(error)))?
    }

    /// Changes what is wanted of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn set_run_state(&self, id: &SandboxId, run_state: RunState) -> Result<View, RequestError> {
        let request = match run_state {
            RunState::Running => Request::Start,
            RunState::Stopped => Request::Stop,
            RunState::Deleted => Request::Delete,
        };
        self.request(id, request).await
    }

    /// Asks for one more restart of a local sandbox.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn restart(&self, id: &SandboxId) -> Result<View, RequestError> {
        self.request(id, Request::Restart).await
    }

    async fn request(&self, id: &SandboxId, request: Request) -> Result<View, RequestError> {
        let (manager, id) = (self.clone(), id.clone());
        self.whole(async move { manager.request_now(&id, request).await }).await
    }

    async fn request_now(&self, id: &SandboxId, request: Request) -> Result<View, RequestError> {
        let decide = |desired: &Desired, view: &View| {
            let backs_off = view.observed.next_restart_at_unix_ms.is_some();
            Ok(decide(request, desired, view.observed.phase, backs_off))
        };
        self.settle(id, decide).await
    }

    /// Passes a durable wish on to its driver.
    fn tell(&self, record: Record) {
        let desired = record.desired.clone();
        self.table.put_desired(desired.clone());
        if let Some(handle) = self.lock().handles.get_mut(&desired.id) {
            handle.record = record;
            handle.desired.send_replace(desired);
        }
        self.count_holdings();
    }

    /// Generation of central's desired state that is durable here; 0 = none.
    #[must_use]
    pub fn central_generation(&self) -> u64 {
        self.lock().central_generation
    }

    /// Tells drivers that a container of theirs may have ended.
    pub fn hint<'a>(&self, ids: impl IntoIterator<Item = &'a SandboxId>) {
        let inner = self.lock();
        for id in ids {
            if let Some(handle) = inner.handles.get(id) {
                handle.hints.send_modify(|hint| *hint += 1);
            }
        }
    }

    /// Ends what runs of a sandbox, against its wish. One that is not here or
    /// does not run is left as it is.
    pub fn evict(&self, id: &SandboxId, eviction: Eviction) {
        if let Some(handle) = self.lock().handles.get(id) {
            handle.evictions.send_replace(Some(eviction));
        }
    }

    /// Tells a driver whom the kernel killed in its sandbox for want of memory.
    pub fn memory_ran_out(&self, id: &SandboxId, victim: OomVictim) {
        if let Some(handle) = self.lock().handles.get(id) {
            handle.victims.send_replace(Some(victim));
        }
    }

    /// Tells every driver to look whether the kernel killed something.
    pub fn look_for_kills(&self) {
        for handle in self.lock().handles.values() {
            handle.victims.send_modify(|_same| {});
        }
    }

    /// What is allocated to a sandbox.
    #[must_use]
    pub fn record(&self, id: &SandboxId) -> Option<Record> {
        self.lock().handles.get(id).map(|h| h.record.clone())
    }

    /// One sandbox.
    #[must_use]
    pub fn get(&self, id: &SandboxId) -> Option<View> {
        self.table.get(id)
    }

    /// Sandboxes whose last change lies after `change` (0 = all), oldest
    /// change first. A removed sandbox stays for a while with phase Gone.
    #[must_use]
    pub fn changed_since(&self, change: u64) -> Vec<View> {
        self.table.changed_since(change)
    }

    /// Number of the newest change; wakes when it rises.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.table.subscribe()
    }

    /// The table, for the usage sampler.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Id ranges in use.
    #[must_use]
    pub fn id_ranges_used(&self) -> usize {
        self.lock().ids.used()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod timing_tests;
