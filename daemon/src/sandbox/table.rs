//! The table of all sandboxes, as it is read from everywhere.
//!
//! Every change gets the next number of one sequence. Readers ask for what
//! changed since a number: a slow reader skips states in between and never
//! misses the last one, and nothing queues up for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::id::SandboxId;
use roost_proto::model::{Observed, Phase, Usage};
use tokio::sync::watch;

use super::{Desired, View};

#[derive(Debug, Default)]
struct Inner {
    views: HashMap<SandboxId, View>,
    /// Sandboxes by the number of their last change.
    order: BTreeMap<u64, SandboxId>,
    last_change: u64,
}

/// What stands still uses what it used.
fn holds_memory(phase: Phase) -> bool {
    matches!(phase, Phase::Ready | Phase::Paused)
}

/// Shared table; cheap to clone. Its lock is held for map operations only.
#[derive(Debug, Clone)]
pub struct Table {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self { inner: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Table {
    /// The lock protects plain maps: a panic elsewhere leaves them whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: &SandboxId, edit: impl FnOnce(&mut Inner) -> Option<View>) {
        let change = {
            let mut inner = self.lock();
            let Some(mut view) = edit(&mut inner) else { return };
            inner.order.remove(&view.change);
            inner.last_change += 1;
            view.change = inner.last_change;
            inner.order.insert(view.change, id.clone());
            let change = view.change;
            inner.views.insert(id.clone(), view);
            change
        };
        self.changes.send_if_modified(|last| {
            let newer = change > *last;
            *last = change.max(*last);
            newer
        });
    }

    /// Adds a sandbox or replaces what is wanted of it.
    pub fn put_desired(&self, desired: Arc<Desired>) {
        let id = desired.id.clone();
        self.change(&id, |inner| {
            let observed = inner.views.get(&id).map_or_else(Observed::pending, |view| view.observed.clone());
            let change = inner.views.get(&id).map_or(0, |view| view.change);
            Some(View { desired, observed, change })
        });
    }

    /// Replaces what is seen of a sandbox, its usage excepted; its revision
    /// rises by one.
    pub fn publish(&self, id: &SandboxId, observed: Observed) {
        self.change(id, |inner| {
            let view = inner.views.get(id)?.clone();
            let usage = observed.usage.or(view.observed.usage).filter(|_| holds_memory(observed.phase));
            let revision = view.observed.revision + 1;
            Some(View { observed: Observed { usage, revision, ..observed }, ..view })
        });
    }

    /// Notes what a running sandbox uses.
    pub fn set_usage(&self, id: &SandboxId, usage: Usage) {
        self.change(id, |inner| {
            let mut view = inner.views.get(id)?.clone();
            let is_news = view.observed.phase == Phase::Ready && view.observed.usage != Some(usage);
            view.observed.usage = Some(usage);
            view.observed.revision += 1;
            is_news.then_some(view)
        });
    }

    /// Forgets a sandbox.
    pub fn remove(&self, id: &SandboxId) {
        let mut inner = self.lock();
        if let Some(view) = inner.views.remove(id) {
            inner.order.remove(&view.change);
        }
    }

    /// Forgets a sandbox, unless it was changed since `change`.
    pub fn remove_unchanged(&self, id: &SandboxId, change: u64) {
        let mut inner = self.lock();
        if inner.views.get(id).is_some_and(|view| view.change == change) {
            inner.views.remove(id);
            inner.order.remove(&change);
        }
    }

    /// One sandbox.
    #[must_use]
    pub fn get(&self, id: &SandboxId) -> Option<View> {
        self.lock().views.get(id).cloned()
    }

    /// Sandboxes whose last change lies after `change`, oldest change first.
    #[must_use]
    pub fn changed_since(&self, change: u64) -> Vec<View> {
        let inner = self.lock();
        let range = inner.order.range((std::ops::Bound::Excluded(change), std::ops::Bound::Unbounded));
        range.filter_map(|(_, id)| inner.views.get(id).cloned()).collect()
    }

    /// How many sandboxes are in such a state.
    pub fn count(&self, is_such: impl Fn(&Observed) -> bool) -> usize {
        self.lock().views.values().filter(|view| is_such(&view.observed)).count()
    }

    /// Number of the newest change; wakes when it rises.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::ledger::{Record, decode};

    fn desired() -> Arc<Desired> {
        let golden = include_str!("../reconcile/ledger/golden/record-v1.json");
        let record: Record = decode(golden.as_bytes()).unwrap();
        Arc::new(Desired { id: SandboxId::random(), ..Desired::clone(&record.desired) })
    }

    #[test]
    fn a_reader_gets_each_changed_sandbox_once_in_its_last_state() {
        let table = Table::default();
        let (a, b) = (desired(), desired());
        table.put_desired(a.clone());
        table.put_desired(b.clone());
        let seen = table.changed_since(0).last().unwrap().change;
        for starts in 1..=3 {
            table.publish(&a.id, Observed { starts, ..Observed::pending() });
        }
        let changed = table.changed_since(seen);
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].observed.starts, changed[0].observed.revision), (3, 3));
        assert_eq!(*table.subscribe().borrow(), changed[0].change);
    }

    #[test]
    fn usage_is_a_change_while_it_is_ready_and_survives_the_next_publication() {
        let table = Table::default();
        let a = desired();
        table.put_desired(a.clone());
        let usage = Usage { pids: 3, ..Usage::default() };
        table.set_usage(&a.id, usage);
        assert_eq!(table.get(&a.id).unwrap().observed.usage, None, "it does not run");
        table.publish(&a.id, Observed { phase: Phase::Ready, ..Observed::pending() });
        let seen = table.get(&a.id).unwrap().change;
        table.set_usage(&a.id, usage);
        assert_eq!(table.changed_since(seen).len(), 1);
        table.publish(&a.id, Observed { phase: Phase::Ready, starts: 2, ..Observed::pending() });
        assert_eq!(table.get(&a.id).unwrap().observed.usage, Some(usage));
    }

    #[test]
    fn a_removed_sandbox_is_not_brought_back_by_a_late_publication() {
        let table = Table::default();
        let a = desired();
        table.put_desired(a.clone());
        table.remove(&a.id);
        table.publish(&a.id, Observed::pending());
        assert!(table.get(&a.id).is_none());
        assert!(table.changed_since(0).is_empty());
    }
}
