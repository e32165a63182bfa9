//! Which heartbeat may be applied after which. Pure.
//!
//! A delta counts only on top of everything before it, a list in parts only as
//! a whole. Whatever is lost, repeated or out of order makes central ask for a
//! full one, and never apply what does not fit.

use roost_proto::node::Heartbeat;

/// What of a heartbeat says where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u64,
    full: bool,
    part: u32,
    has_more: bool,
}

impl Place {
    pub(super) fn of(heartbeat: &Heartbeat) -> Self {
        let Heartbeat { sequence, full, part, has_more, .. } = *heartbeat;
        Self { sequence, full, part, has_more }
    }
}

/// What was applied of a stream.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Highest sequence that was seen, applied or not.
    newest: u64,
    /// The heartbeat that was applied last; none while a full one is awaited.
    applied: Option<Place>,
}

impl Order {
    /// Whether a heartbeat may be applied now.
    pub(super) fn follows(&self, next: Place) -> bool {
        if next.sequence <= self.newest {
            return false;
        }
        if next.full && next.part == 0 {
            return true;
        }
        let Some(last) = self.applied.filter(|last| next.sequence == last.sequence + 1) else { return false };
        if next.full { last.has_more && next.part == last.part + 1 } else { !last.has_more && next.part == 0 }
    }

    /// Takes note of what became of a heartbeat.
    pub(super) fn settled(&mut self, place: Place, is_applied: bool) {
        self.newest = self.newest.max(place.sequence);
        self.applied = is_applied.then_some(place);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn place(sequence: u64, full: bool, part: u32, has_more: bool) -> Place {
        Place { sequence, full, part, has_more }
    }

    fn take(order: &mut Order, place: Place) -> bool {
        let follows = order.follows(place);
        order.settled(place, follows);
        follows
    }

    #[test]
    fn a_delta_counts_only_after_the_heartbeat_before_it() {
        let mut order = Order::default();
        assert!(!take(&mut order, place(1, false, 0, false)), "the first one must be full");
        assert!(take(&mut order, place(2, true, 0, false)));
        assert!(take(&mut order, place(3, false, 0, false)));
        assert!(!take(&mut order, place(5, false, 0, false)), "one is missing");
        assert!(!take(&mut order, place(6, false, 0, false)), "until a full one comes");
        assert!(take(&mut order, place(7, true, 0, false)));
        assert!(!take(&mut order, place(7, true, 0, false)), "nothing counts twice");
    }

    #[test]
    fn a_list_in_parts_counts_only_as_a_whole() {
        let mut order = Order::default();
        assert!(take(&mut order, place(1, true, 0, true)));
        assert!(take(&mut order, place(2, true, 1, true)));
        assert!(!take(&mut order, place(3, false, 0, false)), "a delta cannot come between parts");
        assert!(!take(&mut order, place(4, true, 2, false)), "its first parts are given up");
        assert!(take(&mut order, place(5, true, 0, true)));
        assert!(take(&mut order, place(6, true, 1, false)));
        assert!(take(&mut order, place(7, false, 0, false)));
    }

    /// What a node sends on one stream: lists of up to three parts, and deltas.
    fn stream(kinds: &[u8]) -> Vec<(Place, u8)> {
        let mut sent = Vec::new();
        for (index, kind) in std::iter::once(&1).chain(kinds).enumerate() {
            let parts = u32::from(*kind);
            let id = u8::try_from(index).unwrap();
            if parts == 0 {
                sent.push((place(sent.len() as u64 + 1, false, 0, false), id));
            }
            for part in 0..parts {
                sent.push((place(sent.len() as u64 + 1, true, part, part + 1 < parts), id));
            }
        }
        sent
    }

    proptest! {
        /// Whatever is lost, repeated or moved, what was applied since the
        /// last list began is an unbroken run of the stream; so central never
        /// holds a state that the node did not have.
        #[test]
        fn what_is_applied_is_always_an_unbroken_run(
            kinds in proptest::collection::vec(0_u8..4, 0..20),
            network in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..60),
        ) {
            let sent = stream(&kinds);
            let mut order = Order::default();
            let mut run: BTreeSet<u64> = BTreeSet::new();
            for (index, in_order) in network {
                let next = run.last().copied().unwrap_or(0) as usize;
                let (place, _) = if in_order && next < sent.len() { sent[next] } else { *index.get(&sent) };
                if take(&mut order, place) {
                    if place.full && place.part == 0 {
                        run.clear();
                    }
                    run.insert(place.sequence);
                    let (first, last) = (*run.first().unwrap(), *run.last().unwrap());
                    prop_assert_eq!(last - first + 1, run.len() as u64);
                    prop_assert!(sent[first as usize - 1].0.full && sent[first as usize - 1].0.part == 0);
                } else {
                    run.clear();
                }
            }
            // A stream that is whole again brings central back in step.
            let newest = sent.len() as u64;
            prop_assert!(take(&mut order, place(newest + 100, true, 0, false)));
            prop_assert!(take(&mut order, place(newest + 101, false, 0, false)));
        }
    }
}
