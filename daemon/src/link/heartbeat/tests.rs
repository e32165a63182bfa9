use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use roost_proto::model::{RunState, Usage};

use super::*;
use crate::sandbox::{Desired, Origin};

mod convergence;

const PERIOD: Duration = Duration::from_secs(5);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A node whose sandboxes change.
#[derive(Default)]
struct Node {
    change: u64,
    views: Vec<View>,
}

impl Node {
    fn observe(&mut self, index: usize, edit: impl FnOnce(&mut Observed)) {
        self.change += 1;
        while self.views.len() <= index {
            let desired = Desired {
                id: SandboxId::random(),
                name: None,
                tenant: "default".parse().unwrap(),
                origin: Origin::Local,
                generation: 1,
                run_state: RunState::Running,
                restart_count: 0,
                resources: None,
                asked_generation: None,
                spec: serde_json::from_str(r#"{"template":"bare","image":"roost/desktop"}"#).unwrap(),
                created_at_unix_ms: 0,
                pool: None,
                binding: None,
                unconfirmed: false,
                paused: false,
                lifetime: None,
                ttl_count: 0,
                clock: None,
                brings_files: false,
            };
            self.views.push(View { desired: Arc::new(desired), observed: Observed::pending(), change: self.change });
        }
        let view = &mut self.views[index];
        view.change = self.change;
        view.observed.revision += 1;
        edit(&mut view.observed);
    }

    fn changed_since(&self, change: u64) -> Vec<View> {
        self.views.iter().filter(|view| view.change > change).cloned().collect()
    }

    fn build(&self, heartbeats: &mut Heartbeats, kind: Kind, now: Duration) -> Option<Heartbeat> {
        heartbeats.build(kind, now, 0, &NodeStatus::default(), |change| self.changed_since(change))
    }
}

fn ack(sequence: u64) -> HeartbeatAck {
    HeartbeatAck { sequence, ..HeartbeatAck::default() }
}

fn resync(sequence: u64) -> HeartbeatAck {
    HeartbeatAck { sequence, resync: true, ..HeartbeatAck::default() }
}

#[test]
fn the_first_heartbeat_lists_everything_even_when_there_is_nothing() {
    let mut heartbeats = Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES));
    assert_eq!(heartbeats.next(at(0)), Next::Send(Kind::Full));
    let first = Node::default().build(&mut heartbeats, Kind::Full, at(0)).unwrap();
    assert_eq!((first.sequence, first.full, first.node.is_some()), (1, true, true));
    assert_eq!(heartbeats.next(at(1)), Next::WaitUntil(PERIOD));
}

#[test]
fn a_change_goes_out_at_once_and_alone_but_not_twice_within_the_interval() {
    let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES)), Node::default());
    node.observe(0, |_| ());
    node.observe(1, |_| ());
    node.build(&mut heartbeats, Kind::Full, at(0));
    node.observe(1, |observed| observed.phase = Phase::Ready);
    heartbeats.mark_dirty();
    assert_eq!(heartbeats.next(at(1)), Next::WaitUntil(at(2)));
    assert_eq!(heartbeats.next(at(2)), Next::Send(Kind::Delta));
    let delta = node.build(&mut heartbeats, Kind::Delta, at(2)).unwrap();
    assert_eq!((delta.full, delta.node), (false, None));
    assert_eq!(delta.sandboxes.len(), 1);
    assert_eq!(delta.sandboxes[0].sandbox_id, node.views[1].desired.id.as_str());
}

#[test]
fn usage_waits_for_the_period_and_is_then_sent_once() {
    let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES)), Node::default());
    node.observe(0, |_| ());
    node.build(&mut heartbeats, Kind::Full, at(0));
    node.observe(0, |observed| observed.usage = Some(Usage { pids: 3, ..Usage::default() }));
    heartbeats.mark_dirty();
    assert_eq!(node.build(&mut heartbeats, Kind::Delta, at(10)), None, "nothing that matters");
    assert_eq!(heartbeats.next(at(11)), Next::WaitUntil(PERIOD), "the dirt is gone");
    let periodic = node.build(&mut heartbeats, Kind::Periodic, PERIOD).unwrap();
    assert_eq!(periodic.sandboxes.len(), 1);
    let later = node.build(&mut heartbeats, Kind::Periodic, 2 * PERIOD).unwrap();
    assert!(later.sandboxes.is_empty(), "a heartbeat without news is sent all the same");
}

#[test]
fn load_waits_for_the_period_and_conditions_do_not() {
    let mut heartbeats = Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES));
    let mut status = NodeStatus::default();
    heartbeats.build(Kind::Full, at(0), 0, &status, |_| Vec::new());
    status.load.load1_milli = 7;
    assert_eq!(heartbeats.build(Kind::Delta, at(5), 0, &status, |_| Vec::new()), None);
    status.capacity.sandboxes_max = 9;
    let delta = heartbeats.build(Kind::Delta, at(10), 0, &status, |_| Vec::new()).unwrap();
    assert_eq!(delta.node.unwrap().usage.unwrap().load1_milli, 7);
}

#[test]
fn a_full_window_holds_changes_back_until_central_answers() {
    let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES)), Node::default());
    for ms in 0..4 {
        node.observe(0, |observed| observed.starts += 1);
        let kind = if ms == 0 { Kind::Full } else { Kind::Delta };
        node.build(&mut heartbeats, kind, at(10 * ms)).unwrap();
    }
    node.observe(0, |observed| observed.starts += 1);
    heartbeats.mark_dirty();
    assert_eq!(heartbeats.next(at(50)), Next::WaitUntil(ACK_TIMEOUT));
    assert_eq!(heartbeats.ack(&ack(2), at(60)), Ok(Some(at(50))), "sent at 10 ms");
    assert_eq!(heartbeats.next(at(60)), Next::Send(Kind::Delta));
}

#[test]
fn a_central_that_does_not_answer_is_dead_in_the_end() {
    let mut heartbeats = Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES));
    Node::default().build(&mut heartbeats, Kind::Full, at(0));
    assert_eq!(heartbeats.next(ACK_TIMEOUT), Next::Dead);
    heartbeats.ack(&ack(1), ACK_TIMEOUT).unwrap();
    assert_eq!(heartbeats.next(ACK_TIMEOUT), Next::Send(Kind::Periodic));
}

#[test]
fn a_resync_is_answered_once_although_several_deltas_failed() {
    let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES)), Node::default());
    node.build(&mut heartbeats, Kind::Full, at(0));
    for ms in [1010, 1020] {
        node.observe(0, |observed| observed.starts += 1);
        node.build(&mut heartbeats, Kind::Delta, at(ms)).unwrap();
    }
    heartbeats.ack(&resync(2), at(1030)).unwrap();
    assert_eq!(heartbeats.next(at(1030)), Next::Send(Kind::Full));
    assert!(node.build(&mut heartbeats, Kind::Full, at(1030)).unwrap().full);
    heartbeats.ack(&resync(3), at(1040)).unwrap();
    assert_eq!(heartbeats.next(at(1040)), Next::WaitUntil(at(1030) + PERIOD));
}

#[test]
fn a_central_that_cannot_apply_a_full_one_gets_the_next_a_second_later() {
    let (mut heartbeats, node) = (Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES)), Node::default());
    node.build(&mut heartbeats, Kind::Full, at(0));
    heartbeats.ack(&resync(1), at(10)).unwrap();
    heartbeats.mark_dirty();
    assert_eq!(heartbeats.next(at(10)), Next::WaitUntil(at(1000)), "and no delta in between");
    assert_eq!(heartbeats.next(at(1000)), Next::Send(Kind::Full));
}

#[test]
fn an_answer_to_what_was_never_sent_is_an_error() {
    let mut heartbeats = Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES));
    assert_eq!(heartbeats.ack(&ack(1), at(0)), Err(UnknownAck { acked: 1, sent: 0 }));
}

#[test]
fn a_long_list_goes_out_in_parts_and_nothing_comes_between_them() {
    let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, Some(200)), Node::default());
    (0..20).for_each(|index| node.observe(index, |_| ()));
    let first = node.build(&mut heartbeats, Kind::Full, at(0)).unwrap();
    assert_eq!((first.part, first.has_more, first.node.is_some()), (0, true, true));
    node.observe(0, |observed| observed.phase = Phase::Ready);
    heartbeats.mark_dirty();
    let (mut now, mut listed, mut last) = (2, first.sandboxes.len(), first);
    while last.has_more {
        assert_eq!(heartbeats.next(at(now)), Next::Send(Kind::Part));
        let part = node.build(&mut heartbeats, Kind::Part, at(now)).unwrap();
        assert_eq!((part.full, part.part, part.sequence), (true, last.part + 1, last.sequence + 1));
        assert_eq!(part.node, None);
        heartbeats.ack(&ack(part.sequence), at(now)).unwrap();
        listed += part.sandboxes.len();
        now += 2;
        last = part;
    }
    assert_eq!(listed, 20);
    assert_eq!(heartbeats.next(at(now)), Next::Send(Kind::Delta));
    assert_eq!(node.build(&mut heartbeats, Kind::Delta, at(now)).unwrap().sandboxes.len(), 1);
}

#[test]
fn a_central_of_version_1_gets_its_list_whole() {
    let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, None), Node::default());
    (0..2_000).for_each(|index| node.observe(index, |observed| observed.message = Some("x".repeat(5_000))));
    let full = node.build(&mut heartbeats, Kind::Full, at(0)).unwrap();
    assert_eq!((full.sandboxes.len(), full.has_more), (2_000, false));
    // A central of version 1 takes 16 MiB.
    assert!(prost::Message::encoded_len(&full) < 8 << 20);
}

#[test]
fn a_resync_in_the_middle_of_a_list_begins_it_anew() {
    let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, Some(200)), Node::default());
    (0..20).for_each(|index| node.observe(index, |_| ()));
    node.build(&mut heartbeats, Kind::Full, at(0));
    node.build(&mut heartbeats, Kind::Part, at(2));
    heartbeats.ack(&resync(2), at(3)).unwrap();
    assert_eq!(heartbeats.next(at(3)), Next::WaitUntil(at(1000)));
    let again = node.build(&mut heartbeats, Kind::Full, at(1000)).unwrap();
    assert_eq!((again.part, again.sequence, again.has_more), (0, 3, true));
}

#[test]
fn central_may_stretch_the_period() {
    let mut heartbeats = Heartbeats::new(PERIOD, Some(200));
    Node::default().build(&mut heartbeats, Kind::Full, at(0));
    heartbeats.ack(&ack(1), at(1)).unwrap();
    heartbeats.set_period(2 * PERIOD);
    assert_eq!(heartbeats.next(PERIOD), Next::WaitUntil(2 * PERIOD));
}

proptest! {
    /// However changes and heartbeats fall, a central that applies them ends
    /// up with what the node has, once a periodic one has come through.
    #[test]
    fn central_ends_up_with_what_the_node_has(steps in proptest::collection::vec((0_usize..6, 0_u8..5), 0..60)) {
        let (mut heartbeats, mut node) = (Heartbeats::new(PERIOD, Some(parts::PART_MAX_BYTES)), Node::default());
        let mut central = BTreeMap::new();
        let mut apply = |heartbeat: Heartbeat| {
            if heartbeat.full {
                central.clear();
            }
            central.extend(heartbeat.sandboxes.into_iter().map(|observed| (observed.sandbox_id.clone(), observed)));
            central.clone()
        };
        let mut now = 0;
        node.build(&mut heartbeats, Kind::Full, at(now)).map(&mut apply);
        for (index, step) in steps {
            now += 3;
            match step {
                0 => node.observe(index, |observed| observed.starts += 1),
                1 => node.observe(index, |observed| observed.usage = Some(Usage { cpu_us: now, ..Usage::default() })),
                2 => { node.build(&mut heartbeats, Kind::Delta, at(now)).map(&mut apply); }
                3 => { node.build(&mut heartbeats, Kind::Periodic, at(now)).map(&mut apply); }
                _ => { node.build(&mut heartbeats, Kind::Full, at(now)).map(&mut apply); }
            }
        }
        let told = node.build(&mut heartbeats, Kind::Periodic, at(now + 3)).map(&mut apply).unwrap();
        for view in &node.views {
            let id = &view.desired.id;
            prop_assert_eq!(told.get(id.as_str()), Some(&SandboxObserved::new(id, view.observed.clone())));
        }
    }
}
