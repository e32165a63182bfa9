//! New sandboxes of the node's own.

use std::sync::Arc;

use roost_proto::id::{PoolName, SandboxId, SandboxName, TenantId};
use roost_proto::model::{RunState, SandboxSpec};
use tokio::time::Instant;

use super::{Beginning, DISPLAY_NUMBER, Manager, RequestError};
use crate::host::fault;
use crate::reconcile::ledger::{Change, Progress, Record};
use crate::sandbox::driver::Accepted;
use crate::sandbox::expiry::LifeClock;
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::request_queue::is_repetition;
use crate::sandbox::{Desired, Origin, View};

/// What a new sandbox of this node's own is wanted to be.
fn local(id: SandboxId, name: Option<SandboxName>, spec: SandboxSpec, now_ms: u64) -> Desired {
    Desired {
        id,
        name,
        tenant: TenantId::local(),
        origin: Origin::Local,
        generation: 1,
        run_state: RunState::Running,
        restart_count: 0,
        spec,
        resources: None,
        asked_generation: None,
        created_at_unix_ms: unix_ms(),
        pool: None,
        binding: None,
        unconfirmed: false,
        paused: false,
        lifetime: None,
        ttl_count: 0,
        clock: Some(LifeClock::begin(now_ms)),
        brings_files: false,
    }
}

impl Manager {
    /// Makes a local sandbox; the same id and spec again returns it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn create(
        &self,
        id: SandboxId,
        name: Option<SandboxName>,
        spec: SandboxSpec,
    ) -> Result<View, RequestError> {
        let manager = self.clone();
        self.whole(async move { manager.create_now(id, name, spec).await }).await
    }

    /// Makes a sandbox that a pool keeps ready.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn create_pooled(&self, pool: PoolName, spec: SandboxSpec) -> Result<SandboxId, RequestError> {
        let id = SandboxId::random();
        let desired = Desired {
            origin: Origin::Pool,
            pool: Some(pool),
            // Its times count once somebody has it.
            clock: None,
            ..local(id.clone(), None, spec, 0)
        };
        let manager = self.clone();
        let create = async move {
            let at = Instant::now();
            let _lane = manager.lane.lock().await;
            manager.add(desired, at).await
        };
        self.whole(create).await.map(|_view| id)
    }

    async fn create_now(
        &self,
        id: SandboxId,
        name: Option<SandboxName>,
        spec: SandboxSpec,
    ) -> Result<View, RequestError> {
        let at = Instant::now();
        let _lane = self.lane.lock().await;
        if let Some(existing) = self.lock().handles.get(&id).map(|h| h.record.desired.clone()) {
            return match is_repetition(&existing, &spec) {
                true => self.get(&id).ok_or(RequestError::NotFound(id)),
                false => Err(RequestError::Conflict(id)),
            };
        }
        self.add(local(id, name, spec, self.services.time.now_ms()), at).await
    }

    /// Makes a new sandbox durable and starts its driver; the lane is held.
    async fn add(&self, desired: Desired, at: Instant) -> Result<View, RequestError> {
        let id = desired.id.clone();
        let record = self.allocate(desired)?;
        fault::pass("create.accepted");
        if let Err(error) = self.services.ledger.commit(vec![Change::Put(Box::new(record.clone()))]).await {
            self.give_back(&record);
            return Err(error.into());
        }
        fault::pass("create.durable");
        // An earlier sandbox of this id may still be shown as Gone.
        self.table.remove(&id);
        self.table.put_desired(record.desired.clone());
        let accepted = Accepted { at, durable_at: Instant::now() };
        self.drive(record, Progress::default(), Beginning::of(accepted));
        fault::pass("create.driven");
        self.get(&id).ok_or(RequestError::NotFound(id))
    }

    /// Frees what was allocated to a sandbox that is not made after all.
    pub(super) fn give_back(&self, record: &Record) {
        self.lock().ids.free(record.first_id);
        self.services.volumes.release(&record.desired.id);
    }

    pub(super) fn allocate(&self, desired: Desired) -> Result<Record, RequestError> {
        let mut inner = self.lock();
        if inner.reaping.contains(&desired.id) {
            return Err(RequestError::Deleting(desired.id));
        }
        if let Some(short) = self.services.pressures.borrow().iter().find(|condition| condition.is_true) {
            let (condition, message) = (short.kind.clone(), short.message.clone());
            return Err(RequestError::Pressure { condition, message });
        }
        let full = RequestError::Full { max: self.limits.sandboxes_max };
        if inner.handles.len() >= self.limits.sandboxes_max {
            return Err(full);
        }
        self.services.volumes.hold(&desired.id, &desired.tenant, &desired.volumes())?;
        let Some(first_id) = inner.ids.allocate() else {
            self.services.volumes.release(&desired.id);
            return Err(full);
        };
        Ok(Record { desired: Arc::new(desired), first_id, display_number: DISPLAY_NUMBER })
    }
}
