//! What is wanted of a sandbox, and the pair that the outside sees.

use std::sync::Arc;

use roost_proto::id::{PoolName, SandboxId, SandboxName, TenantId};
use roost_proto::model::{Binding, Lifetime, Observed, Resources, RunState, SandboxSpec, VolumeMount};
use serde::{Deserialize, Serialize};

use super::expiry::LifeClock;

/// Who may change a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Listed in central's desired state; local callers only look.
    Central,
    /// Made over the unix socket; central does not know it.
    Local,
    /// Kept ready by a pool of this node; nobody has it yet.
    Pool,
}

/// What is wanted of one sandbox: the content of its ledger record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Whose wish this is.
    pub id: SandboxId,
    /// Name for people.
    pub name: Option<SandboxName>,
    /// Who owns it.
    pub tenant: TenantId,
    /// Who may change it.
    pub origin: Origin,
    /// Rises with every change of this wish.
    pub generation: u64,
    /// What is wanted.
    pub run_state: RunState,
    /// Asked restarts so far.
    pub restart_count: u64,
    /// What it is to be.
    pub spec: SandboxSpec,
    /// Requests and limits in place of those of the spec, when they were
    /// changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Generation of the newest change that was more than new requests, limits
    /// and times: only such a change starts what has failed, or ends a wait.
    /// Absent: the newest generation is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_generation: Option<u64>,
    /// Unix time of its creation on this node, in milliseconds.
    pub created_at_unix_ms: u64,
    /// The pool that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What a claim gave it; absent unless it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Arc<Binding>>,
    /// Claimed through central, and not in a desired state of central's yet:
    /// one without it was made before, and does not delete it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unconfirmed: bool,
    /// Its claim came with files, which nothing keeps: until it was bound
    /// once, it cannot be bound without them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub brings_files: bool,
    /// Its processes are to stand still; counts while it is wanted running.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Lifetime in place of that of the spec, when it was changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Lifetime>,
    /// Times to live that were set so far: each counts from then on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ttl_count: u64,
    /// From when on its times count; absent while a pool has it, and in records
    /// of daemons that knew no lifetimes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<LifeClock>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Desired {
    /// The requests and limits that count.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        self.resources.as_ref().unwrap_or(&self.spec.resources)
    }

    /// The volumes that it has: those of its spec, then those of its claim.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeMount> {
        let claimed = self.binding.as_ref().map(|binding| binding.volumes.as_slice()).unwrap_or_default();
        [self.spec.volumes.as_slice(), claimed].concat()
    }

    /// The lifetime that counts.
    #[must_use]
    pub fn lifetime(&self) -> &Lifetime {
        self.lifetime.as_ref().unwrap_or(&self.spec.lifetime)
    }

    /// Generation of the newest change that was more than new requests, limits
    /// and times.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked_generation.unwrap_or(self.generation)
    }

    /// This wish as the one that follows `before`: remembers what was asked
    /// last, if nothing but requests, limits and times differs, or it is only
    /// to stand still.
    #[must_use]
    pub fn following(self, before: &Self) -> Self {
        let is_other = before.resources() != self.resources()
            || before.lifetime() != self.lifetime()
            || before.ttl_count != self.ttl_count
            || self.paused && !before.paused;
        let is_unasked = is_other
            && before.run_state == self.run_state
            && before.restart_count == self.restart_count
            && (self.paused || !before.paused);
        Self { asked_generation: is_unasked.then(|| before.asked()), ..self }
    }
}

/// Desired and observed state of one sandbox at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// What is wanted.
    pub desired: Arc<Desired>,
    /// What was seen.
    pub observed: Observed,
    /// Position of its last change in the node's sequence of changes.
    pub change: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::ledger::{Record, decode};

    fn desired() -> Desired {
        let golden = include_str!("../reconcile/ledger/golden/record-v1.json");
        let record: Record = decode(golden.as_bytes()).unwrap();
        Desired::clone(&record.desired)
    }

    /// The wish after `before` with `pids` as its process limit.
    fn limited(before: &Desired, pids_limit: u32) -> Desired {
        let resources = Some(Resources { pids_limit, ..before.resources().clone() });
        Desired { resources, generation: before.generation + 1, ..before.clone() }.following(before)
    }

    #[test]
    fn however_many_limits_are_changed_nothing_was_asked() {
        let before = desired();
        let twice = limited(&limited(&before, 77), 78);
        assert_eq!((twice.generation, twice.asked()), (before.generation + 2, before.generation));
    }

    #[test]
    fn neither_a_new_time_to_live_nor_a_pause_is_asked_but_a_resume_is() {
        let before = desired();
        let next = |wish: Desired| Desired { generation: wish.generation + 1, ..wish };
        let timed = next(Desired { ttl_count: 1, ..before.clone() }).following(&before);
        assert_eq!(timed.asked(), before.generation);
        let paused = next(Desired { paused: true, ..timed.clone() }).following(&timed);
        assert_eq!(paused.asked(), before.generation);
        let limited = limited(&paused, 77);
        assert_eq!(limited.asked(), before.generation);
        let resumed = next(Desired { paused: false, ..limited.clone() }).following(&limited);
        assert_eq!(resumed.asked(), resumed.generation);
    }

    #[test]
    fn a_start_or_a_restart_after_a_change_of_limits_is_asked() {
        let set = limited(&desired(), 77);
        let started = Desired { generation: set.generation + 1, ..set.clone() }.following(&set);
        assert_eq!(started.asked(), started.generation);
        let restarted = Desired { restart_count: set.restart_count + 1, ..limited(&set, 78) }.following(&set);
        assert_eq!(restarted.asked(), restarted.generation);
    }
}
