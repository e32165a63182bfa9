//! Kills for want of memory: the kernel's counters say how many, its log says
//! whom.

use roost_proto::model::Part;
use tokio::time::{Duration, Instant};

use super::Driver;
use crate::sandbox::Desired;
use crate::sandbox::failure::chain;

/// How long before an end of a part a kill in it counts as its cause: the
/// kernel's log is read some hundred milliseconds before containerd tells.
const CAUSE_WINDOW: Duration = Duration::from_secs(5);

/// When the kernel's counters of the present containers were seen to rise.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastKills {
    display: Option<Instant>,
    workload: Option<Instant>,
}

impl LastKills {
    /// Whether something of this part was killed just now.
    pub(super) fn hit(self, part: Part) -> bool {
        let recent = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < CAUSE_WINDOW);
        match part {
            Part::Display => recent(self.display),
            Part::Application => recent(self.workload),
            Part::WindowManager => recent(self.display) || recent(self.workload),
        }
    }
}

/// Kills that were not counted before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NewKills {
    /// In the display's container.
    pub(super) display: u64,
    /// In the workload's container.
    pub(super) workload: u64,
    /// Whether the log has not named the last of them.
    pub(super) victim_is_old: bool,
}

impl NewKills {
    /// In both.
    pub(super) fn total(self) -> u64 {
        self.display + self.workload
    }
}

/// How far a counter rose. A container that was made again counts from 0.
fn rise(counter: u64, before: u64) -> u64 {
    counter.checked_sub(before).unwrap_or(counter)
}

impl Driver {
    /// Reads the counters and adds what is new to what is kept.
    pub(super) fn count_kills(&mut self, desired: &Desired) -> NewKills {
        let victim_is_old = !self.take_victim();
        let counters = match self.services.runtime.oom_kills(&desired.id) {
            Ok(counters) => counters,
            Err(error) => {
                tracing::warn!(sandbox = %desired.id, error = %chain(&error), "kills for want of memory are not known");
                return NewKills::default();
            }
        };
        let oom = &mut self.progress.oom;
        let kills = NewKills {
            display: rise(counters.display, oom.display_counter),
            workload: rise(counters.workload, oom.workload_counter),
            victim_is_old,
        };
        (oom.display_counter, oom.workload_counter) = (counters.display, counters.workload);
        oom.seen.kills += kills.total();
        self.services.metrics.oom_kills(kills.total());
        let now = Instant::now();
        if kills.display > 0 {
            self.last_kills.display = Some(now);
        }
        if kills.workload > 0 {
            self.last_kills.workload = Some(now);
        }
        kills
    }

    /// Keeps the victim that the log named last; whether it is a new one.
    pub(super) fn take_victim(&mut self) -> bool {
        let Some(victim) = self.victims.borrow_and_update().clone() else { return false };
        let last = &mut self.progress.oom.seen.last;
        // The log is read again by the next daemon.
        let is_known =
            last.as_ref().is_some_and(|l| (l.pid, &l.process, l.part) == (victim.pid, &victim.process, victim.part));
        if !is_known {
            *last = Some(victim);
        }
        !is_known
    }

    /// A process was killed, or the counters are to be looked at.
    pub(super) async fn memory_ran_out(&mut self, desired: &Desired) {
        let before = self.progress.oom.seen.clone();
        self.count_kills(desired);
        let seen = &self.progress.oom.seen;
        if *seen == before {
            return;
        }
        let (process, pid) = seen.last.as_ref().map_or(("", 0), |victim| (victim.process.as_str(), victim.pid));
        tracing::warn!(sandbox = %desired.id, kills = seen.kills, process, pid, "a process was killed for want of memory");
        self.save().await;
        self.publisher.recovery(&self.progress);
        self.publisher.show();
    }
}

#[cfg(test)]
mod tests {
    use super::rise;

    #[test]
    fn a_counter_that_fell_belongs_to_a_new_container() {
        assert_eq!(rise(5, 2), 3);
        assert_eq!(rise(2, 2), 0);
        assert_eq!(rise(1, 2), 1);
    }
}
