//! Which range of ids a new sandbox gets. Pure.

use std::collections::BTreeSet;

use crate::host::namespaces::IDS_PER_SANDBOX;

/// Ranges of ids of one node: no two sandboxes share an id.
#[derive(Debug, Clone)]
pub struct IdRanges {
    first: u32,
    count: u32,
    /// First ids of the ranges in use. Those of an earlier configuration may
    /// lie elsewhere, and across two of ours.
    used: BTreeSet<u32>,
}

impl IdRanges {
    /// `count` ranges of 65 536 ids from `first` on.
    #[must_use]
    pub fn new(first: u32, count: u32) -> Self {
        // Ids end below 2^32 - 1, which means "none".
        let room = (u32::MAX - first) / IDS_PER_SANDBOX;
        Self { first, count: count.min(room), used: BTreeSet::new() }
    }

    /// Marks the range that begins at `first_id` as used, as a ledger says.
    /// False if it shares an id with one in use, or with the host's own users.
    pub fn take(&mut self, first_id: u32) -> bool {
        let can_be = (IDS_PER_SANDBOX..=u32::MAX - IDS_PER_SANDBOX).contains(&first_id);
        can_be && self.is_free(first_id) && self.used.insert(first_id)
    }

    fn is_free(&self, first_id: u32) -> bool {
        let reach = IDS_PER_SANDBOX - 1;
        self.used.range(first_id.saturating_sub(reach)..=first_id.saturating_add(reach)).next().is_none()
    }

    /// First id of the lowest free range; none when all are used.
    pub fn allocate(&mut self) -> Option<u32> {
        let ranges = (0..self.count).map(|index| self.first + index * IDS_PER_SANDBOX);
        let first_id = ranges.into_iter().find(|first_id| self.is_free(*first_id))?;
        self.used.insert(first_id);
        Some(first_id)
    }

    /// Gives a range back.
    pub fn free(&mut self, first_id: u32) {
        self.used.remove(&first_id);
    }

    /// Ranges in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_run_out_and_come_back() {
        let mut ranges = IdRanges::new(1 << 20, 2);
        let (a, b) = (ranges.allocate().unwrap(), ranges.allocate().unwrap());
        assert_eq!(b - a, IDS_PER_SANDBOX);
        assert_eq!(ranges.allocate(), None);
        ranges.free(a);
        assert_eq!(ranges.allocate(), Some(a));
    }

    #[test]
    fn a_ledgered_range_is_taken_once() {
        let mut ranges = IdRanges::new(1 << 20, 4);
        assert!(ranges.take((1 << 20) + IDS_PER_SANDBOX));
        assert!(!ranges.take((1 << 20) + IDS_PER_SANDBOX));
        assert!(!ranges.take(7));
        assert_eq!(ranges.allocate(), Some(1 << 20));
        assert_eq!(ranges.allocate(), Some((1 << 20) + 2 * IDS_PER_SANDBOX));
    }

    #[test]
    fn a_range_of_an_earlier_configuration_is_kept_apart_from_ours() {
        let mut ranges = IdRanges::new(1 << 20, 4);
        assert!(ranges.take(1 << 21), "elsewhere");
        assert!(ranges.take((1 << 20) + IDS_PER_SANDBOX / 2), "across the first two");
        assert!(!ranges.take((1 << 20) + 1), "it shares ids with that one");
        assert_eq!(ranges.allocate(), Some((1 << 20) + 2 * IDS_PER_SANDBOX));
        ranges.free((1 << 20) + IDS_PER_SANDBOX / 2);
        assert_eq!(ranges.allocate(), Some(1 << 20));
    }

    #[test]
    fn no_range_reaches_the_last_id() {
        let mut ranges = IdRanges::new(u32::MAX - IDS_PER_SANDBOX - 1, 9);
        assert!(ranges.allocate().is_some());
        assert_eq!(ranges.allocate(), None);
    }

    proptest! {
        #[test]
        fn no_two_live_sandboxes_share_an_id(steps in prop::collection::vec(any::<Option<u8>>(), 0..200)) {
            let mut ranges = IdRanges::new(1 << 20, 50);
            let mut live: Vec<u32> = Vec::new();
            for step in steps {
                match step {
                    None => if let Some(first) = ranges.allocate() {
                        prop_assert!(!live.contains(&first));
                        live.push(first);
                    },
                    Some(n) if !live.is_empty() => ranges.free(live.swap_remove(usize::from(n) % live.len())),
                    Some(_) => {}
                }
            }
        }
    }
}
