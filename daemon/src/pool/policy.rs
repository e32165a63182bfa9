//! How many desktops a pool starts and lets go. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use roost_proto::model::{PoolSpec, PoolUpdate};

/// Claims older than this say nothing about the present demand.
const MEMORY: Duration = Duration::from_secs(60);
/// Most claims that are remembered: 200 a second for that long.
const CLAIMS_MAX: usize = 12_000;

/// Recent claims of a pool.
#[derive(Debug, Default)]
pub struct Demand {
    claims: VecDeque<Instant>,
}

impl Demand {
    /// A claim came, whether it found one or not.
    pub fn claimed(&mut self, now: Instant) {
        self.forget(now);
        if self.claims.len() == CLAIMS_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.claims.front().is_some_and(|at| now.saturating_duration_since(*at) > MEMORY) {
            self.claims.pop_front();
        }
    }

    /// Claims that are to be expected within `window`, by the rate over that
    /// window and over the whole memory, whichever is higher: it follows a
    /// rise at once and a fall slowly.
    pub fn expected(&mut self, window: Duration, now: Instant) -> u32 {
        self.forget(now);
        if window.is_zero() {
            return 0;
        }
        let recent = self.claims.iter().rev().take_while(|at| now.saturating_duration_since(**at) <= window).count();
        let mean = self.claims.len() as f64 * window.as_secs_f64() / MEMORY.as_secs_f64();
        let mean = if window < MEMORY { mean.ceil() as usize } else { 0 };
        u32::try_from(recent.max(mean)).unwrap_or(u32::MAX)
    }
}

/// What a pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready, of the present spec.
    pub ready: u32,
    /// On their way to Ready.
    pub starting: u32,
    /// Ready, of an older spec.
    pub outdated: u32,
}

/// What a pool does next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decision {
    /// Desktops to start.
    pub start: u32,
    /// Outdated desktops to let go.
    pub drop_outdated: u32,
    /// Desktops of the present spec to let go.
    pub drop_ready: u32,
}

/// What to do for a pool that expects so many claims.
#[must_use]
pub fn decide(spec: &PoolSpec, has: Counts, expected: u32) -> Decision {
    let target = spec.min_ready.saturating_add(expected).min(spec.max);
    let drop_outdated = match spec.update {
        PoolUpdate::Recreate => has.outdated,
        // One goes for each that is ready beyond the target.
        PoolUpdate::OnReplenish => (has.ready + has.outdated).saturating_sub(target).min(has.outdated),
    };
    let kept = has.ready + has.starting;
    // An outdated one counts until its successor is there, which for a moment
    // makes one more than the target; never more than the maximum.
    let room = spec.max.saturating_sub(kept + (has.outdated - drop_outdated));
    let room = if has.outdated > 0 && room == 0 && has.starting == 0 { 1 } else { room };
    let at_once = spec.starts_at_once.saturating_sub(has.starting);
    Decision {
        start: target.saturating_sub(kept).min(room).min(at_once),
        drop_outdated,
        drop_ready: has.ready.saturating_sub(target.max(spec.min_ready)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(min_ready: u32, max: u32, update: PoolUpdate) -> PoolSpec {
        let spec = serde_json::from_str(r#"{"template":"t","image":"i"}"#).unwrap();
        let name = "p".parse().unwrap();
        PoolSpec { name, spec, min_ready, max, starts_at_once: 2, demand_window_ms: 0, update }
    }

    #[test]
    fn demand_follows_a_rise_at_once_and_a_fall_slowly() {
        let (mut demand, window) = (Demand::default(), Duration::from_secs(2));
        let begin = Instant::now();
        assert_eq!(demand.expected(window, begin), 0);
        for _ in 0..30 {
            demand.claimed(begin);
        }
        assert_eq!(demand.expected(window, begin), 30);
        assert_eq!(demand.expected(Duration::ZERO, begin), 0, "turned off");
        assert_eq!(demand.expected(window, begin + Duration::from_secs(10)), 1, "half a claim a second");
        assert_eq!(demand.expected(window, begin + Duration::from_secs(70)), 0);
    }

    #[test]
    fn a_pool_fills_by_so_many_at_once() {
        let spec = pool(5, 10, PoolUpdate::OnReplenish);
        assert_eq!(decide(&spec, Counts::default(), 0).start, 2);
        assert_eq!(decide(&spec, Counts { ready: 4, ..Counts::default() }, 0).start, 1);
        assert_eq!(decide(&spec, Counts { ready: 5, starting: 1, outdated: 0 }, 20).start, 1, "demand");
        assert_eq!(decide(&spec, Counts { ready: 9, ..Counts::default() }, 0).drop_ready, 4, "demand is over");
    }

    #[test]
    fn recreate_drops_at_once_and_on_replenish_one_for_one() {
        let has = Counts { ready: 0, starting: 0, outdated: 3 };
        assert_eq!(decide(&pool(3, 3, PoolUpdate::Recreate), has, 0).drop_outdated, 3);
        assert_eq!(decide(&pool(3, 3, PoolUpdate::OnReplenish), has, 0), Decision { start: 1, ..Decision::default() });
        let next = Counts { ready: 1, starting: 0, outdated: 3 };
        assert_eq!(decide(&pool(3, 3, PoolUpdate::OnReplenish), next, 0).drop_outdated, 1);
    }

    /// What happens to a pool between two looks at it.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Claimed,
        Started,
        Failed,
        Ended,
        Template,
        Numbers(u32, u32),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Claimed),
            6 => Just(Event::Started),
            1 => Just(Event::Failed),
            1 => Just(Event::Ended),
            1 => Just(Event::Template),
            1 => (0..12_u32, 1..6_u32).prop_map(|(min, more)| Event::Numbers(min, min + more)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_pool_keeps_its_bounds_and_fills_again(
            events in prop::collection::vec(event(), 0..80), recreate: bool,
        ) {
            let update = if recreate { PoolUpdate::Recreate } else { PoolUpdate::OnReplenish };
            let mut spec = pool(4, 8, update);
            let mut has = Counts::default();
            let look = |spec: &PoolSpec, has: &mut Counts| {
                let all = has.ready + has.starting + has.outdated;
                let todo = decide(spec, *has, 0);
                assert!(todo.drop_ready <= has.ready && todo.drop_outdated <= has.outdated, "{todo:?} of {has:?}");
                has.ready -= todo.drop_ready;
                has.outdated -= todo.drop_outdated;
                has.starting += todo.start;
                let now = has.ready + has.starting + has.outdated;
                assert!(todo.start == 0 || now <= spec.max + 1, "{now} of {}", spec.max);
                assert!(now <= all + spec.starts_at_once, "{todo:?} of {has:?}");
            };
            for event in events {
                match event {
                    Event::Claimed | Event::Ended if has.ready > 0 => has.ready -= 1,
                    Event::Claimed if has.outdated > 0 => has.outdated -= 1,
                    Event::Started if has.starting > 0 => {
                        has.starting -= 1;
                        has.ready += 1;
                    }
                    Event::Failed => has.starting = has.starting.saturating_sub(1),
                    // Starts of the older kind are let go by the keeper.
                    Event::Template => has = Counts { ready: 0, starting: 0, outdated: has.outdated + has.ready },
                    Event::Numbers(min_ready, max) => (spec.min_ready, spec.max) = (min_ready, max),
                    _ => {}
                }
                look(&spec, &mut has);
            }
            for _ in 0..200 {
                look(&spec, &mut has);
                has.ready += u32::from(has.starting > 0);
                has.starting = has.starting.saturating_sub(1);
            }
            prop_assert_eq!(has, Counts { ready: spec.min_ready, starting: 0, outdated: 0 });
        }

        #[test]
        fn any_pool_comes_to_rest_with_its_target_and_never_below_it_on_the_way(
            min_ready in 0..20_u32, more in 1..20_u32, outdated in 0..40_u32, expected in 0..40_u32, recreate: bool,
        ) {
            let update = if recreate { PoolUpdate::Recreate } else { PoolUpdate::OnReplenish };
            let spec = pool(min_ready, min_ready + more, update);
            let target = (min_ready + expected).min(spec.max);
            let mut has = Counts { outdated, ..Counts::default() };
            let enough_before = outdated >= target && !recreate;
            for _ in 0..500 {
                let todo = decide(&spec, has, expected);
                has.outdated -= todo.drop_outdated;
                has.ready -= todo.drop_ready;
                has.starting += todo.start;
                prop_assert!(has.starting <= spec.starts_at_once);
                prop_assert!(has.ready + has.starting + has.outdated <= spec.max.max(outdated) + 1);
                if enough_before {
                    prop_assert!(has.ready + has.outdated >= target);
                }
                // One start ends.
                has.ready += u32::from(has.starting > 0);
                has.starting = has.starting.saturating_sub(1);
            }
            prop_assert_eq!(has, Counts { ready: target, starting: 0, outdated: 0 });
        }
    }
}
