//! When the time of a sandbox is over, and what becomes of it then. Pure.
//!
//! All times are node time ([`super::node_time`]): the time that the node was
//! up, which no clock that somebody sets can move.
//!
//! | time | counts from | stands still |
//! |---|---|---|
//! | longest life | creation or claim | never |
//! | time to live | creation, claim or the moment that it was set | while Stopped |
//! | idle | the last use that was seen | unless Ready |

use roost_proto::model::{ExpiryAction, ExpiryReason, Lifetime, RunState};
use serde::{Deserialize, Serialize};

use super::Desired;

/// Shortest time between two looks at whether somebody uses a sandbox.
const MIN_PERIOD_MS: u64 = 10_000;
/// Longest: the CPU of so long is averaged.
const MAX_PERIOD_MS: u64 = 60_000;
/// A timeout is looked at so many times at least, so that a use in its last
/// part counts.
const LOOKS: u64 = 4;

/// From when on the times of a sandbox count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifeClock {
    /// Node time of its creation or, if it was claimed, its claim.
    pub began_ms: u64,
    /// Node time from which on its time to live counts.
    pub ttl_from_ms: u64,
}

impl LifeClock {
    /// Both count from now on.
    #[must_use]
    pub fn begin(now_ms: u64) -> Self {
        Self { began_ms: now_ms, ttl_from_ms: now_ms }
    }

    /// The time to live is another one, which counts from now on.
    #[must_use]
    pub fn with_new_ttl(clock: Option<Self>, now_ms: u64) -> Self {
        Self { ttl_from_ms: now_ms, ..clock.unwrap_or_else(|| Self::begin(now_ms)) }
    }
}

/// Time in which a sandbox was Stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rested {
    /// Whole rests since then, in milliseconds.
    pub total_ms: u64,
    /// Node time from which on the time to live counts that these belong to.
    pub ttl_from_ms: u64,
    /// Node time at which the present rest began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

impl Rested {
    /// These rests as far as they fall into the time to live from `ttl_from_ms`
    /// on.
    #[must_use]
    fn within(self, ttl_from_ms: u64) -> Self {
        let total_ms = if self.ttl_from_ms == ttl_from_ms { self.total_ms } else { 0 };
        Self { total_ms, ttl_from_ms, since_ms: self.since_ms.map(|since| since.max(ttl_from_ms)) }
    }

    /// A rest begins, unless one goes on.
    #[must_use]
    pub fn begin(self, clock: Option<LifeClock>, now_ms: u64) -> Self {
        let Some(clock) = clock else { return self };
        let rested = self.within(clock.ttl_from_ms);
        Self { since_ms: rested.since_ms.or(Some(now_ms)), ..rested }
    }

    /// A rest ends, if one goes on.
    #[must_use]
    pub fn end(self, clock: Option<LifeClock>, now_ms: u64) -> Self {
        let Some(clock) = clock else { return self };
        let rested = self.within(clock.ttl_from_ms);
        let last_ms = rested.since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        Self { total_ms: rested.total_ms + last_ms, since_ms: None, ..rested }
    }

    /// Whether nothing is known: left out of what is stored.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What was seen of the use of a sandbox at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// CPU time that it used since its cgroup was made, in microseconds; none
    /// if that cannot be told.
    pub cpu_us: Option<u64>,
    /// Time since the last input; none if that cannot be told.
    pub input_idle_ms: Option<u64>,
    /// Programs and viewers from outside that are there now.
    pub open: u32,
    /// Node time of the last use from outside.
    pub used_at_ms: u64,
}

/// How long a sandbox goes unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// Node time of the last use that was seen.
    pub active_ms: u64,
    /// Node time of the last look.
    pub looked_ms: u64,
    cpu_us: u64,
}

impl Idle {
    /// Unused from now on.
    #[must_use]
    pub fn begin(now_ms: u64, cpu_us: u64) -> Self {
        Self { active_ms: now_ms, looked_ms: now_ms, cpu_us }
    }

    /// Node time of the next look.
    #[must_use]
    pub fn next_look_ms(&self, timeout_ms: u64) -> u64 {
        let period_ms = (timeout_ms / LOOKS).clamp(MIN_PERIOD_MS, MAX_PERIOD_MS);
        let over_ms = self.active_ms.saturating_add(timeout_ms);
        (self.looked_ms + period_ms).min(over_ms).max(self.looked_ms + MIN_PERIOD_MS)
    }

    /// What a look at `now_ms` makes of it. What cannot be told counts as used:
    /// nothing ends for want of knowledge.
    #[must_use]
    pub fn look(self, seen: Seen, cpu_millis: u32, now_ms: u64) -> Self {
        let passed_ms = now_ms.saturating_sub(self.looked_ms).max(1);
        // A container that was made again counts from 0.
        let used_us = seen.cpu_us.map(|cpu_us| cpu_us.checked_sub(self.cpu_us).unwrap_or(cpu_us));
        // Microseconds in a millisecond are thousandths of a core.
        let computes = used_us.is_none_or(|used_us| used_us / passed_ms >= u64::from(cpu_millis));
        let input_ms = seen.input_idle_ms.map_or(now_ms, |idle_ms| now_ms.saturating_sub(idle_ms));
        let active_ms = if computes || seen.open > 0 { now_ms } else { input_ms.max(seen.used_at_ms).min(now_ms) };
        Self { active_ms: active_ms.max(self.active_ms), looked_ms: now_ms, cpu_us: seen.cpu_us.unwrap_or(self.cpu_us) }
    }
}

/// Something that is over, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Which time.
    pub reason: ExpiryReason,
    /// What becomes of the sandbox.
    pub action: ExpiryAction,
    /// Node time.
    pub at_ms: u64,
}

/// All that a judgement needs.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// How long it is to live.
    pub lifetime: &'a Lifetime,
    /// From when on; none: its time does not count yet.
    pub clock: Option<LifeClock>,
    /// When it was Stopped.
    pub rested: Rested,
    /// How long it goes unused; none unless it is Ready.
    pub idle: Option<Idle>,
}

/// The time that is over next: the earliest, and of two at the same moment the
/// one that leaves less.
#[must_use]
pub fn next_end(facts: &Facts<'_>) -> Option<Due> {
    let Facts { lifetime, clock, rested, idle } = *facts;
    let clock = clock?;
    let rested = rested.within(clock.ttl_from_ms);
    let life = (lifetime.max_ms > 0).then(|| Due {
        reason: ExpiryReason::Lifetime,
        action: ExpiryAction::Delete,
        at_ms: clock.began_ms.saturating_add(lifetime.max_ms),
    });
    let ttl = (lifetime.ttl_ms > 0 && rested.since_ms.is_none()).then(|| Due {
        reason: ExpiryReason::Ttl,
        action: ExpiryAction::Delete,
        at_ms: clock.ttl_from_ms.saturating_add(lifetime.ttl_ms).saturating_add(rested.total_ms),
    });
    let idle = idle.filter(|_| lifetime.idle_timeout_ms > 0).map(|idle| Due {
        reason: ExpiryReason::Idle,
        action: lifetime.idle_action,
        at_ms: idle.active_ms.saturating_add(lifetime.idle_timeout_ms),
    });
    [life, ttl, idle].into_iter().flatten().min_by_key(|due| (due.at_ms, due.reason))
}

/// The time that is over now. Idleness only as far as it was looked at.
#[must_use]
pub fn over(facts: &Facts<'_>, now_ms: u64) -> Option<Due> {
    let next = next_end(facts)?;
    let seen_ms = match (next.reason, facts.idle) {
        (ExpiryReason::Idle, Some(idle)) => idle.looked_ms,
        _ => now_ms,
    };
    (next.at_ms <= seen_ms).then_some(next)
}

/// Node time at which to look again; none: nothing will be over by itself.
#[must_use]
pub fn look_again_ms(facts: &Facts<'_>) -> Option<u64> {
    let look_ms = facts.idle.filter(|_| facts.lifetime.idle_timeout_ms > 0);
    let look_ms = look_ms.map(|idle| idle.next_look_ms(facts.lifetime.idle_timeout_ms));
    let end_ms = next_end(facts).filter(|due| due.reason != ExpiryReason::Idle).map(|due| due.at_ms);
    [look_ms, end_ms].into_iter().flatten().min()
}

/// A time that was over: what the node decided, durable before it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expired {
    /// Which time.
    pub reason: ExpiryReason,
    /// What becomes of the sandbox.
    pub action: ExpiryAction,
    /// Generation that it answers: a newer wish starts or resumes what was not
    /// deleted.
    pub generation: u64,
    /// Unix time at which the node saw it, in milliseconds.
    pub at_unix_ms: u64,
}

impl Expired {
    /// One sentence for people, with the next step.
    #[must_use]
    pub fn message(&self, lifetime: &Lifetime) -> String {
        let seconds = |ms: u64| format!("{} s", ms / 1000);
        match (self.reason, self.action) {
            (ExpiryReason::Lifetime, _) => {
                format!("its longest life of {} is over: create it again", seconds(lifetime.max_ms))
            }
            (ExpiryReason::Ttl, _) => {
                format!("its time to live of {} is over: create it again", seconds(lifetime.ttl_ms))
            }
            (ExpiryReason::Idle, action) => {
                let step = match action {
                    ExpiryAction::Stop => "`roost sandbox start`",
                    ExpiryAction::Pause => "`roost sandbox resume`",
                    ExpiryAction::Delete => "create it again",
                };
                format!("nobody used it for {}: {step}", seconds(lifetime.idle_timeout_ms))
            }
        }
    }

    /// Whether a wish is not newer than this: then this counts.
    #[must_use]
    pub fn stands_against(&self, desired: &Desired) -> bool {
        self.action == ExpiryAction::Delete || desired.asked() <= self.generation
    }

    /// What is to become of the sandbox now: whether it runs, and whether it
    /// stands still. None: as it is wanted.
    #[must_use]
    pub fn instead_of(&self, desired: &Desired) -> Option<(RunState, bool)> {
        match self.action {
            _ if !self.stands_against(desired) => None,
            ExpiryAction::Delete => Some((RunState::Deleted, false)),
            _ if desired.run_state != RunState::Running => None,
            ExpiryAction::Stop => Some((RunState::Stopped, false)),
            ExpiryAction::Pause => Some((RunState::Running, true)),
        }
    }
}

#[cfg(test)]
mod tests;
