//! Committed changes on their way to watchers and node sessions.
//!
//! The store hands every commit over in order; each change of a sandbox gets a
//! number. A watcher that comes back with the number it saw last gets what it
//! missed, as long as that is still in the ring, else the news of a gap.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use roost_proto::id::{NodeId, SandboxId, TenantId};
use roost_proto::model::Sandbox;
use tokio::sync::{broadcast, watch};

use crate::store::{Change, ChangeSink};

/// Changes that a returning watcher can still get: minutes of a busy fleet,
/// about 8 MiB.
const RING_LEN: usize = 4096;
/// Changes that a slow watcher may lag behind before it is told of a gap.
const WATCHER_DEPTH: usize = 1024;

/// News of nodes that may wait: people remove nodes and rotate certificates, and
/// one who lags looks at all sessions anew.
const NODE_NEWS_DEPTH: usize = 256;

/// Takes a lock; what a panicked holder left is still consistent here, as
/// every critical section is a single insertion or removal.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happened to one sandbox.
#[derive(Debug)]
pub enum SandboxEvent {
    /// It is new or different.
    Changed(Box<Sandbox>),
    /// Nothing of it is left.
    Gone(SandboxId),
}

impl SandboxEvent {
    /// Which sandbox.
    #[must_use]
    pub fn id(&self) -> &SandboxId {
        match self {
            Self::Changed(sandbox) => &sandbox.id,
            Self::Gone(id) => id,
        }
    }
}

/// One numbered change.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where it stands in the sequence.
    pub cursor: Cursor,
    /// Who may see it.
    pub tenant: TenantId,
    /// What happened.
    pub event: Arc<SandboxEvent>,
}

/// A position in a sequence of changes of one process of central.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Random per sequence: positions of another one mean nothing here.
    epoch: u32,
    /// Rises by one with each change.
    sequence: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.epoch, self.sequence)
    }
}

/// The text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an event id of this API: leave Last-Event-ID out")]
pub struct ParseCursorError(String);

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let parse = || {
            let (epoch, sequence) = text.split_once('-')?;
            Some(Self { epoch: u32::from_str_radix(epoch, 16).ok()?, sequence: sequence.parse().ok()? })
        };
        parse().ok_or_else(|| ParseCursorError(text.into()))
    }
}

/// A watcher's end.
#[derive(Debug)]
pub struct Subscription {
    /// What the watcher missed since its cursor; none = a gap or no cursor:
    /// it needs the full list.
    pub missed: Option<Vec<Event>>,
    /// The position that a list read after this call has at least reached.
    pub cursor: Cursor,
    /// What happens from now on.
    pub events: broadcast::Receiver<Event>,
}

/// What was done to a node, for the replica that has its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeNews {
    /// It was removed.
    Removed(NodeId),
    /// It is to renew its certificate.
    Renew(NodeId),
    /// News may have been missed.
    Gap,
}

/// The hub of committed changes.
#[derive(Debug)]
pub struct Changes {
    ring: Mutex<Ring>,
    desired: Mutex<HashMap<NodeId, watch::Sender<u64>>>,
    nodes: broadcast::Sender<NodeNews>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { ring: Mutex::default(), desired: Mutex::default(), nodes: broadcast::Sender::new(NODE_NEWS_DEPTH) }
    }
}

/// The sequence of changes without a gap.
#[derive(Debug)]
struct Ring {
    epoch: u32,
    kept: VecDeque<Event>,
    events: broadcast::Sender<Event>,
}

impl Default for Ring {
    fn default() -> Self {
        Self { epoch: rand::rng().random(), kept: VecDeque::new(), events: broadcast::Sender::new(WATCHER_DEPTH) }
    }
}

impl Ring {
    fn last(&self) -> Cursor {
        self.kept.back().map_or(Cursor { epoch: self.epoch, sequence: 0 }, |event| event.cursor)
    }
}

impl Changes {
    /// Follows the changes, from `after` where that is still possible.
    #[must_use]
    pub fn subscribe(&self, after: Option<Cursor>) -> Subscription {
        let ring = lock(&self.ring);
        let last = ring.last();
        let oldest = ring.kept.front().map_or(last.sequence + 1, |event| event.cursor.sequence);
        let known = |c: &Cursor| c.epoch == ring.epoch && (oldest..=last.sequence + 1).contains(&(c.sequence + 1));
        let missed = after.filter(known).map(|cursor| {
            ring.kept.iter().filter(|event| event.cursor.sequence > cursor.sequence).cloned().collect::<Vec<_>>()
        });
        Subscription { missed, cursor: last, events: ring.events.subscribe() }
    }

    /// Follows the desired generation of one node.
    #[must_use]
    pub fn watch_desired(&self, node: &NodeId) -> watch::Receiver<u64> {
        let mut desired = lock(&self.desired);
        // Entries of ended sessions go now and then: looking at all of them with
        // each session of ten thousand would be a hundred million looks.
        if desired.len() == desired.capacity() {
            desired.retain(|id, generation| id == node || generation.receiver_count() > 0);
        }
        desired.entry(node.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Follows what is done to nodes from now on.
    #[must_use]
    pub fn node_news(&self) -> broadcast::Receiver<NodeNews> {
        self.nodes.subscribe()
    }

    fn publish(&self, tenant: TenantId, event: SandboxEvent) {
        let mut ring = lock(&self.ring);
        let cursor = Cursor { epoch: ring.epoch, sequence: ring.last().sequence + 1 };
        let event = Event { cursor, tenant, event: Arc::new(event) };
        if ring.kept.len() == RING_LEN {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event.clone());
        // Under the lock, so that a subscriber gets each event exactly once.
        // Fails only while nobody watches.
        drop(ring.events.send(event));
    }
}

impl ChangeSink for Changes {
    fn committed(&self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Sandbox(sandbox) => self.publish(sandbox.tenant.clone(), SandboxEvent::Changed(sandbox)),
                Change::Gone { tenant, id } => self.publish(tenant, SandboxEvent::Gone(id)),
                // Fails only while nobody follows.
                Change::Removed(node) => drop(self.nodes.send(NodeNews::Removed(node))),
                Change::Renew(node) => drop(self.nodes.send(NodeNews::Renew(node))),
                Change::Desired { node_id, generation } => {
                    if let Some(watch) = lock(&self.desired).get(&node_id) {
                        watch.send_replace(generation);
                    }
                }
            }
        }
    }

    /// Begins another sequence: the present watchers come to the end of theirs,
    /// and no earlier cursor is known any more.
    fn gap(&self) {
        *lock(&self.ring) = Ring::default();
        drop(self.nodes.send(NodeNews::Gap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(changes: &Changes) -> SandboxId {
        let id = SandboxId::random();
        changes.committed(vec![Change::Gone { tenant: "default".parse().unwrap(), id: id.clone() }]);
        id
    }

    #[test]
    fn a_returning_watcher_gets_what_it_missed() {
        let changes = Changes::default();
        gone(&changes);
        let seen = changes.subscribe(None).cursor;
        let missed = gone(&changes);
        let events = changes.subscribe(Some(seen)).missed.unwrap();
        assert_eq!(events.iter().map(|e| e.event.id().clone()).collect::<Vec<_>>(), [missed]);
    }

    #[test]
    fn a_watcher_that_missed_nothing_gets_nothing() {
        let changes = Changes::default();
        let seen = changes.subscribe(None).cursor;
        assert_eq!(changes.subscribe(Some(seen)).missed.map(|m| m.len()), Some(0));
        gone(&changes);
        let seen = changes.subscribe(None).cursor;
        assert_eq!(changes.subscribe(Some(seen)).missed.map(|m| m.len()), Some(0));
    }

    #[test]
    fn a_gap_is_said_and_not_hidden() {
        let changes = Changes::default();
        gone(&changes);
        let seen = changes.subscribe(None).cursor;
        (0..=RING_LEN).for_each(|_| drop(gone(&changes)));
        assert!(changes.subscribe(Some(seen)).missed.is_none());
        let other_process = Cursor { epoch: seen.epoch.wrapping_add(1), ..seen };
        assert!(changes.subscribe(Some(other_process)).missed.is_none());
    }

    #[test]
    fn a_gap_ends_the_present_watchers_and_forgets_their_cursors() {
        let changes = Changes::default();
        gone(&changes);
        let mut before = changes.subscribe(None);
        changes.gap();
        gone(&changes);
        assert_eq!(before.events.try_recv().unwrap_err(), broadcast::error::TryRecvError::Closed);
        assert!(changes.subscribe(Some(before.cursor)).missed.is_none());
    }

    #[test]
    fn a_cursor_survives_its_text() {
        let cursor = Cursor { epoch: 0xab, sequence: 7 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!("7".parse::<Cursor>().is_err());
    }

    #[test]
    fn a_session_sees_the_generation_of_its_node_only() {
        let changes = Changes::default();
        let (mine, other) = (NodeId::random(), NodeId::random());
        let watch = changes.watch_desired(&mine);
        changes.committed(vec![
            Change::Desired { node_id: mine, generation: 3 },
            Change::Desired { node_id: other, generation: 9 },
        ]);
        assert_eq!(*watch.borrow(), 3);
    }
}
