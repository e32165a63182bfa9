//! Node and central over streams that break, with a database that fails.

use std::collections::BTreeSet;

use super::*;

/// Central as docs/architecture.md and `roost-central` have it: deltas on top
/// of what was applied before, lists as a whole, else a resync.
#[derive(Default)]
struct Model {
    held: BTreeMap<String, SandboxObserved>,
    applied: Option<Heartbeat>,
    listed: BTreeSet<String>,
}

impl Model {
    fn take(&mut self, heartbeat: Heartbeat, is_failing: bool) -> HeartbeatAck {
        let begins = heartbeat.full && heartbeat.part == 0;
        let follows = self.applied.as_ref().is_some_and(|last| {
            heartbeat.sequence == last.sequence + 1
                && match heartbeat.full {
                    true => last.has_more && heartbeat.part == last.part + 1,
                    false => !last.has_more,
                }
        });
        let sequence = heartbeat.sequence;
        if is_failing || !(begins || follows) {
            self.applied = None;
            return resync(sequence);
        }
        if begins {
            self.listed.clear();
        }
        for observed in &heartbeat.sandboxes {
            self.listed.insert(observed.sandbox_id.clone());
            if observed.phase() == roost_proto::types::Phase::Gone {
                self.held.remove(&observed.sandbox_id);
            } else {
                self.held.insert(observed.sandbox_id.clone(), observed.clone());
            }
        }
        if heartbeat.full && !heartbeat.has_more {
            self.held.retain(|id, _| self.listed.contains(id));
        }
        self.applied = Some(heartbeat);
        ack(sequence)
    }
}

/// Both ends and what is under way between them.
struct World {
    node: Node,
    heartbeats: Heartbeats,
    /// When the present stream began.
    begin: Duration,
    now: Duration,
    central: Model,
    out: VecDeque<Heartbeat>,
    acks: VecDeque<HeartbeatAck>,
    /// What the domain has forgotten: no list has it any more.
    removed: BTreeSet<SandboxId>,
}

impl World {
    fn new() -> Self {
        Self {
            node: Node::default(),
            heartbeats: Heartbeats::new(PERIOD, Some(300)),
            begin: Duration::ZERO,
            now: Duration::ZERO,
            central: Model::default(),
            out: VecDeque::new(),
            acks: VecDeque::new(),
            removed: BTreeSet::new(),
        }
    }

    /// The stream breaks with everything under way; when another one begins,
    /// the domain has forgotten what was gone.
    fn reconnect(&mut self) {
        self.out.clear();
        self.acks.clear();
        self.begin = self.now;
        let gone = self.node.views.iter().filter(|view| view.observed.phase == Phase::Gone);
        self.removed.extend(gone.map(|view| view.desired.id.clone()));
        self.heartbeats = Heartbeats::new(PERIOD, Some(300));
        self.central.applied = None;
    }

    fn node_sends(&mut self) -> bool {
        let stream_now = self.now - self.begin;
        match self.heartbeats.next(stream_now) {
            Next::Send(kind) => {
                let (node, removed) = (&self.node, &self.removed);
                let changed_since = |change| {
                    let mut views = node.changed_since(change);
                    views.retain(|view| !removed.contains(&view.desired.id));
                    views
                };
                let status = NodeStatus::default();
                self.out.extend(self.heartbeats.build(kind, stream_now, 0, &status, changed_since));
                true
            }
            Next::Dead => {
                self.reconnect();
                true
            }
            Next::WaitUntil(_) => false,
        }
    }

    fn central_takes(&mut self, is_failing: bool) -> bool {
        let Some(heartbeat) = self.out.pop_front() else { return false };
        self.acks.push_back(self.central.take(heartbeat, is_failing));
        true
    }

    fn node_hears(&mut self) -> bool {
        let Some(ack) = self.acks.pop_front() else { return false };
        self.heartbeats.ack(&ack, self.now - self.begin).unwrap();
        true
    }

    fn step(&mut self, step: u8, index: usize) {
        match step {
            // What is gone stays so.
            0..=2 if self.node.views.get(index).is_some_and(|view| view.observed.phase == Phase::Gone) => {}
            0 | 1 => {
                self.node.observe(index, |observed| observed.starts += 1);
                self.heartbeats.mark_dirty();
            }
            2 => {
                self.node.observe(index, |observed| observed.phase = Phase::Gone);
                self.heartbeats.mark_dirty();
            }
            3 | 4 => drop(self.node_sends()),
            5 => drop(self.central_takes(false)),
            6 => drop(self.central_takes(true)),
            7 => drop(self.node_hears()),
            8 => self.reconnect(),
            // A proxy swallows the next message of either side.
            9 => drop(self.out.pop_front()),
            10 => drop(self.acks.pop_front()),
            _ => self.now += Duration::from_millis(700),
        }
    }

    /// Time passes and everything arrives, until two periods have brought
    /// nothing new.
    fn settle(&mut self) {
        for _ in 0..400 {
            self.now += Duration::from_millis(100);
            while self.node_sends() || self.central_takes(false) || self.node_hears() {
                self.now += Duration::from_millis(2);
            }
        }
    }
}

proptest! {
    /// Whatever is lost on the way, breaks or fails, in the end central holds
    /// what the node has, and nothing else.
    #[test]
    fn node_and_central_converge_over_any_network(
        steps in proptest::collection::vec((0_u8..12, 0_usize..9), 0..120),
    ) {
        let mut world = World::new();
        for (step, index) in steps {
            world.step(step, index);
        }
        world.settle();
        let expected: BTreeMap<_, _> = world.node.views.iter()
            .filter(|view| view.observed.phase != Phase::Gone)
            .map(|view| {
                let id = &view.desired.id;
                (id.to_string(), SandboxObserved::new(id, view.observed.clone()))
            })
            .collect();
        prop_assert_eq!(&world.central.held, &expected);
    }
}
