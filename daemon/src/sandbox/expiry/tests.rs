use proptest::prelude::*;

use super::*;
use crate::reconcile::ledger::{Record, decode};

const HOUR: u64 = 3_600_000;

fn lifetime(ttl_ms: u64, max_ms: u64, idle_timeout_ms: u64) -> Lifetime {
    Lifetime { ttl_ms, max_ms, idle_timeout_ms, ..Lifetime::default() }
}

fn facts(lifetime: &Lifetime, clock: LifeClock) -> Facts<'_> {
    Facts { lifetime, clock: Some(clock), rested: Rested::default(), idle: None }
}

fn desired(run_state: RunState, generation: u64) -> Desired {
    let record: Record = decode(include_bytes!("../../reconcile/ledger/golden/record-v1.json")).unwrap();
    Desired { run_state, generation, ..Desired::clone(&record.desired) }
}

fn reason_at(facts: &Facts<'_>, now_ms: u64) -> Option<ExpiryReason> {
    over(facts, now_ms).map(|due| due.reason)
}

#[test]
fn without_a_lifetime_or_a_beginning_nothing_ends() {
    let (endless, short) = (lifetime(0, 0, 0), lifetime(1, 1, 0));
    assert_eq!(next_end(&facts(&endless, LifeClock::begin(0))), None);
    assert_eq!(look_again_ms(&facts(&endless, LifeClock::begin(0))), None);
    let of_a_pool = Facts { clock: None, ..facts(&short, LifeClock::begin(0)) };
    assert_eq!(over(&of_a_pool, u64::MAX), None);
}

#[test]
fn a_time_to_live_ends_at_its_moment_and_not_before() {
    let hour = lifetime(HOUR, 0, 0);
    let facts = facts(&hour, LifeClock::begin(5));
    assert_eq!(look_again_ms(&facts), Some(HOUR + 5));
    assert_eq!(reason_at(&facts, HOUR + 4), None);
    assert_eq!(reason_at(&facts, HOUR + 5), Some(ExpiryReason::Ttl));
}

#[test]
fn the_longest_life_ends_what_was_prolonged() {
    let both = lifetime(HOUR, 3 * HOUR, 0);
    let clock = LifeClock::with_new_ttl(Some(LifeClock::begin(0)), 150 * 60_000);
    let due = next_end(&facts(&both, clock)).unwrap();
    assert_eq!((due.reason, due.at_ms, due.action), (ExpiryReason::Lifetime, 3 * HOUR, ExpiryAction::Delete));
}

#[test]
fn a_rest_lengthens_the_time_to_live_and_not_the_longest_life() {
    let both = lifetime(HOUR, 10 * HOUR, 0);
    let clock = LifeClock::begin(0);
    let resting = Rested::default().begin(Some(clock), HOUR / 2);
    let stopped = Facts { rested: resting, ..facts(&both, clock) };
    assert_eq!(reason_at(&stopped, 9 * HOUR), None, "its time stands still");
    assert_eq!(reason_at(&stopped, 10 * HOUR), Some(ExpiryReason::Lifetime));
    let started = Facts { rested: resting.end(Some(clock), 2 * HOUR), ..stopped };
    assert_eq!(next_end(&started).unwrap().at_ms, HOUR + HOUR * 3 / 2);
}

#[test]
fn a_rest_before_a_new_time_to_live_does_not_count() {
    let hour = lifetime(HOUR, 0, 0);
    let first = LifeClock::begin(0);
    let rested = Rested::default().begin(Some(first), 10).end(Some(first), HOUR);
    let second = LifeClock::with_new_ttl(Some(first), 2 * HOUR);
    let again = Facts { rested, ..facts(&hour, second) };
    assert_eq!(next_end(&again).unwrap().at_ms, 3 * HOUR);
    // Set in the middle of a rest: only the rest from then on counts.
    let resting = Rested::default().begin(Some(first), 10).end(Some(second), 2 * HOUR + 7);
    assert_eq!(resting.total_ms, 7);
}

#[test]
fn the_earlier_end_counts_and_of_two_at_once_the_harder_one() {
    let all = lifetime(HOUR, HOUR, HOUR);
    let idle = Some(Idle { looked_ms: HOUR, ..Idle::begin(0, 0) });
    assert_eq!(reason_at(&Facts { idle, ..facts(&all, LifeClock::begin(0)) }, HOUR), Some(ExpiryReason::Lifetime));
    let idle_first = lifetime(2 * HOUR, 0, HOUR);
    assert_eq!(reason_at(&Facts { idle, ..facts(&idle_first, LifeClock::begin(0)) }, HOUR), Some(ExpiryReason::Idle));
}

fn looked(idle: Idle, seen: Seen, now_ms: u64) -> Idle {
    idle.look(seen, 50, now_ms)
}

fn unused(cpu_us: u64, input_idle_ms: u64) -> Seen {
    Seen { cpu_us: Some(cpu_us), input_idle_ms: Some(input_idle_ms), ..Seen::default() }
}

#[test]
fn each_kind_of_use_counts() {
    let begun = Idle::begin(100_000, 1_000);
    let at = |seen| looked(begun, seen, 200_000).active_ms;
    assert_eq!(at(unused(1_000, 150_000)), 100_000, "none");
    assert_eq!(at(unused(1_000, 30_000)), 170_000, "input");
    assert_eq!(at(Seen { open: 1, ..unused(1_000, 150_000) }), 200_000, "a program from outside");
    assert_eq!(at(Seen { used_at_ms: 180_000, ..unused(1_000, 150_000) }), 180_000, "a screenshot");
    // 100 s at 49 and at 50 thousandths of a core.
    assert_eq!(at(unused(1_000 + 4_999_999, 150_000)), 100_000, "a cursor that blinks");
    assert_eq!(at(unused(1_000 + 5_000_000, 150_000)), 200_000, "it computes");
}

#[test]
fn what_cannot_be_told_counts_as_used() {
    let begun = Idle::begin(0, 0);
    assert_eq!(looked(begun, Seen { cpu_us: None, ..unused(0, HOUR) }, 60_000).active_ms, 60_000);
    assert_eq!(looked(begun, Seen { input_idle_ms: None, ..unused(0, HOUR) }, 60_000).active_ms, 60_000);
    // Counters that begin anew, and a clock of the X server that runs ahead.
    assert_eq!(looked(Idle::begin(0, 9_000_000), unused(3, HOUR), 60_000).active_ms, 0);
}

#[test]
fn idleness_is_looked_at_before_it_ends_anything() {
    let minute = lifetime(0, 0, 60_000);
    let begun = Idle::begin(0, 0);
    let facts = Facts { idle: Some(begun), ..facts(&minute, LifeClock::begin(0)) };
    assert_eq!(over(&facts, HOUR), None, "nobody has looked since");
    assert_eq!(look_again_ms(&facts), Some(15_000));
    let seen = Facts { idle: Some(looked(begun, unused(0, HOUR), 60_000)), ..facts };
    assert_eq!(reason_at(&seen, 60_000), Some(ExpiryReason::Idle));
}

#[test]
fn nobody_is_looked_at_more_often_than_every_ten_seconds() {
    for timeout_ms in [10_000, 10_001, 15_000, 40_000, HOUR] {
        let idle = Idle { active_ms: 0, looked_ms: 9_000, cpu_us: 0 };
        assert!(idle.next_look_ms(timeout_ms) >= 19_000, "{timeout_ms}");
        assert!(idle.next_look_ms(timeout_ms) <= 69_000, "{timeout_ms}");
    }
}

#[test]
fn what_was_decided_yields_to_a_newer_wish_unless_it_is_deletion() {
    let expired = |action| Expired { reason: ExpiryReason::Idle, action, generation: 3, at_unix_ms: 0 };
    let (same, newer) = (desired(RunState::Running, 3), desired(RunState::Running, 4));
    assert_eq!(expired(ExpiryAction::Stop).instead_of(&same), Some((RunState::Stopped, false)));
    assert_eq!(expired(ExpiryAction::Pause).instead_of(&same), Some((RunState::Running, true)));
    assert_eq!(expired(ExpiryAction::Stop).instead_of(&newer), None);
    assert_eq!(expired(ExpiryAction::Pause).instead_of(&newer), None);
    assert_eq!(expired(ExpiryAction::Delete).instead_of(&newer), Some((RunState::Deleted, false)));
    let stopped = desired(RunState::Stopped, 3);
    assert_eq!(expired(ExpiryAction::Pause).instead_of(&stopped), None, "it is stopped already");
    // New limits ask for nothing.
    let limited = Desired { asked_generation: Some(3), ..newer };
    assert_eq!(expired(ExpiryAction::Stop).instead_of(&limited), Some((RunState::Stopped, false)));
}

proptest! {
    /// However stops and starts follow each other, the time to live ends when
    /// so much time passed in which it was not Stopped, and look_again never
    /// lies behind an end.
    #[test]
    fn running_time_adds_up(turns in prop::collection::vec((1..HOUR, any::<bool>()), 1..40), ttl in 1..20 * HOUR) {
        let limit = lifetime(ttl, 0, 0);
        let clock = LifeClock::begin(0);
        let (mut now, mut ran, mut rested) = (0, 0, Rested::default());
        for (ms, runs) in turns {
            rested = if runs { rested.end(Some(clock), now) } else { rested.begin(Some(clock), now) };
            now += ms;
            ran += if runs { ms } else { 0 };
            let facts = Facts { rested, ..facts(&limit, clock) };
            prop_assert_eq!(over(&facts, now).is_some(), runs && ran >= ttl);
            prop_assert_eq!(look_again_ms(&facts).is_some(), runs);
            if let Some(at) = look_again_ms(&facts) {
                prop_assert_eq!(at, now + ttl - ran.min(now + ttl));
            }
        }
    }

    /// However often it is looked at, what nobody uses ends once its timeout
    /// passed, at the first look after it.
    #[test]
    fn what_nobody_uses_ends(timeout in 10_000..HOUR, late in prop::collection::vec(0..30_000_u64, 400)) {
        let limit = lifetime(0, 0, timeout);
        let clock = LifeClock::begin(0);
        let (mut now, mut idle) = (0, Idle::begin(0, 0));
        for late in late {
            let at = look_again_ms(&Facts { idle: Some(idle), ..facts(&limit, clock) }).unwrap();
            prop_assert!(at >= now + MIN_PERIOD_MS && at <= now + MAX_PERIOD_MS);
            now = at + late;
            idle = idle.look(unused(0, now), 50, now);
            if over(&Facts { idle: Some(idle), ..facts(&limit, clock) }, now).is_some() {
                break;
            }
        }
        prop_assert!(now >= timeout && now <= timeout + MAX_PERIOD_MS + 30_000, "{} {}", now, timeout);
    }
}
