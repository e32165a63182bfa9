//! Whether the node can take sandboxes: named conditions that must all hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// All conditions of the daemon; cheap to clone. Without any it is ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Reason why a condition does not hold, by its name; `None` if it holds.
    conditions: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Name of the condition, e.g. `containerd`.
    pub name: &'static str,
    /// Why, as one sentence.
    pub reason: String,
}

/// One condition, in the hands of the part that knows.
#[derive(Debug, Clone)]
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Adds a condition that does not hold yet, because of `reason`.
    pub fn condition(&self, name: &'static str, reason: impl Into<String>) -> Condition {
        let condition = Condition { readiness: self.clone(), name };
        condition.fail(reason);
        condition
    }

    /// Conditions that do not hold now, by name.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let missing =
            |(name, reason): (&&'static str, &Option<String>)| Some(Missing { name, reason: reason.clone()? });
        self.lock().iter().filter_map(missing).collect()
    }

    /// A panic while the lock is held leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// It holds from now on.
    pub fn hold(&self) {
        if self.readiness.lock().insert(self.name, None) != Some(None) {
            tracing::info!(condition = self.name, "condition holds");
        }
    }

    /// It does not hold, or no longer.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = Some(reason.into());
        let before = self.readiness.lock().insert(self.name, reason.clone());
        if before.as_ref() != Some(&reason) {
            tracing::info!(condition = self.name, reason, "condition does not hold");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_nothing_is_missing_and_can_be_lost_again() {
        let readiness = Readiness::default();
        let ledger = readiness.condition("ledger", "opening");
        let containerd = readiness.condition("containerd", "connecting");
        ledger.hold();
        assert_eq!(readiness.missing(), [Missing { name: "containerd", reason: "connecting".into() }]);
        containerd.hold();
        assert_eq!(readiness.missing(), []);
        ledger.fail("the disk is full");
        assert_eq!(readiness.missing(), [Missing { name: "ledger", reason: "the disk is full".into() }]);
    }
}
