//! What central cannot know of the node's sandboxes: which room local ones
//! take, and which share ids.

use roost_proto::id::SandboxId;
use roost_proto::model::NodeCapacity;
use tokio::sync::watch;

use super::{Inner, Manager};
use crate::host::namespaces::IDS_PER_SANDBOX;
use crate::reconcile::ledger::Record;
use crate::sandbox::Origin;

/// What sandboxes hold of the node beside what central placed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// CPU that local sandboxes and those of pools request, in thousandths of a core; stopped
    /// ones count, as they do at central.
    pub cpu_millis: u64,
    /// Memory that they request, in bytes.
    pub memory_bytes: u64,
    /// How many they are.
    pub sandboxes: u32,
    /// Sandboxes that must not run, because others have their ids.
    pub id_conflicts: Vec<SandboxId>,
}

impl Holdings {
    fn of(inner: &Inner) -> Self {
        let mut holdings = Self::default();
        for (id, handle) in &inner.handles {
            let desired = &handle.record.desired;
            if desired.origin != Origin::Central {
                let resources = desired.resources();
                holdings.cpu_millis += u64::from(resources.cpu_request_millis);
                holdings.memory_bytes = holdings.memory_bytes.saturating_add(resources.memory_request_bytes);
                holdings.sandboxes += 1;
            }
            if !handle.owns_ids {
                holdings.id_conflicts.push(id.clone());
            }
        }
        holdings.id_conflicts.sort();
        holdings
    }

    /// What is left of a node's capacity for what central places.
    #[must_use]
    pub fn leave_of(&self, capacity: NodeCapacity) -> NodeCapacity {
        let cpu_millis = u32::try_from(self.cpu_millis).unwrap_or(u32::MAX);
        NodeCapacity {
            cpu_allocatable_millis: capacity.cpu_allocatable_millis.saturating_sub(cpu_millis),
            memory_allocatable_bytes: capacity.memory_allocatable_bytes.saturating_sub(self.memory_bytes),
            sandboxes_max: capacity.sandboxes_max.saturating_sub(self.sandboxes),
        }
    }
}

impl Manager {
    /// What sandboxes hold of the node beside what central placed; wakes when
    /// that changes.
    #[must_use]
    pub fn holdings(&self) -> watch::Receiver<Holdings> {
        self.holdings.subscribe()
    }

    pub(super) fn count_holdings(&self) {
        let now = Holdings::of(&self.lock());
        self.holdings.send_if_modified(|held| {
            let is_news = *held != now;
            *held = now;
            is_news
        });
    }

    /// Takes the ids of a record; else why its sandbox must not run.
    pub(super) fn take_ids(&self, record: &Record) -> Result<(), String> {
        let mut inner = self.lock();
        let first_id = record.first_id;
        if inner.ids.take(first_id) {
            return Ok(());
        }
        let shares = |other: &Record| other.first_id.abs_diff(first_id) < IDS_PER_SANDBOX;
        let other = inner.handles.values().find(|handle| handle.owns_ids && shares(&handle.record));
        let whose =
            other.map_or_else(|| "the host's own users".to_owned(), |h| format!("sandbox {}", h.record.desired.id));
        Err(format!(
            "its ids from {first_id} on are those of {whose}: it is not run, and its files are kept; copy what you need \
             from them, delete it and create it again"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_local_sandboxes_request_is_not_left_for_others() {
        let capacity =
            NodeCapacity { cpu_allocatable_millis: 4000, memory_allocatable_bytes: 8 << 30, sandboxes_max: 10 };
        let holdings = Holdings { cpu_millis: 1500, memory_bytes: 3 << 30, sandboxes: 2, id_conflicts: Vec::new() };
        let left = NodeCapacity { cpu_allocatable_millis: 2500, memory_allocatable_bytes: 5 << 30, sandboxes_max: 8 };
        assert_eq!(holdings.leave_of(capacity), left);
        let more = Holdings { cpu_millis: u64::MAX, ..holdings };
        assert_eq!(more.leave_of(capacity).cpu_allocatable_millis, 0);
    }
}
