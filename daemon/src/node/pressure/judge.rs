//! Which pressures hold, and who is stopped for want of disk. Pure.

use std::collections::HashMap;

use roost_proto::id::SandboxId;
use roost_proto::model::NodeCondition;

/// Least growth for which a sandbox is stopped, in bytes: logs and caches of
/// an idle desktop stay far below it.
pub const MIN_GROWTH_BYTES: u64 = 16 << 20;

/// One pressure: it begins below a threshold and ends well above it.
#[derive(Debug, Clone, Copy)]
pub struct Band {
    /// Begins with less than this free.
    pub begins_below: u64,
    /// Ends with this free.
    pub ends_at: u64,
}

impl Band {
    /// A band that ends `percent` above its begin.
    #[must_use]
    pub fn new(begins_below: u64, percent: u32) -> Self {
        let margin = u128::from(begins_below) * u128::from(percent) / 100;
        let ends_at = u128::from(begins_below) + margin;
        Self { begins_below, ends_at: u64::try_from(ends_at).unwrap_or(u64::MAX) }
    }

    /// Whether the pressure holds with so much free, given whether it held.
    #[must_use]
    pub fn holds(self, held: bool, free: u64) -> bool {
        free < if held { self.ends_at } else { self.begins_below }
    }
}

/// What one look found of one resource: where it is, and how much is free; the
/// scarcest place counts. None: nothing can be told.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Type of the condition, e.g. `DiskPressure`.
    pub kind: &'static str,
    /// When it holds.
    pub band: Band,
    /// What is free, e.g. `bytes on /var/lib/roost`, and how much.
    pub free: Option<(String, u64)>,
    /// What a person does about it.
    pub advice: &'static str,
}

/// The condition after a look. Its message is that of the moment it began, so
/// that it does not change with every byte; without a sight it stays.
#[must_use]
pub fn judge(before: Option<&NodeCondition>, sight: &Sight) -> NodeCondition {
    let held = before.is_some_and(|condition| condition.is_true);
    let clear =
        || NodeCondition { kind: sight.kind.into(), is_true: false, reason: "Ok".into(), message: String::new() };
    let Some((what, free)) = &sight.free else { return before.cloned().unwrap_or_else(clear) };
    match (held, sight.band.holds(held, *free), before) {
        (_, false, _) => clear(),
        (true, true, Some(before)) => before.clone(),
        (_, true, _) => NodeCondition {
            kind: sight.kind.into(),
            is_true: true,
            reason: "BelowThreshold".into(),
            message: format!(
                "{free} {what} are free, less than {}; it ends at {}: {}",
                sight.band.begins_below, sight.band.ends_at, sight.advice
            ),
        },
    }
}

/// The sandbox that grew most since the earlier measure, with its growth in
/// bytes; none if nobody grew enough to be blamed. One that was not measured
/// before is measured next time.
#[must_use]
pub fn biggest_writer(before: &HashMap<SandboxId, u64>, now: &HashMap<SandboxId, u64>) -> Option<(SandboxId, u64)> {
    let growth = now.iter().filter_map(|(id, now)| Some((id, now.saturating_sub(*before.get(id)?))));
    // What cannot be measured cannot be cleared of it either.
    let hidden = now.iter().filter(|(_, now)| **now == u64::MAX).map(|(id, _)| (id, u64::MAX));
    let most = growth.chain(hidden).max_by_key(|(id, growth)| (*growth, (*id).clone()));
    most.filter(|(_, growth)| *growth >= MIN_GROWTH_BYTES).map(|(id, growth)| (id.clone(), growth))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(free: Option<u64>) -> Sight {
        let free = free.map(|free| ("bytes on /r".to_owned(), free));
        Sight { kind: "DiskPressure", band: Band::new(100, 25), free, advice: "remove something" }
    }

    #[test]
    fn a_pressure_begins_at_its_threshold_and_ends_well_above_it() {
        let clear = judge(None, &sight(Some(100)));
        assert!(!clear.is_true);
        let begun = judge(Some(&clear), &sight(Some(99)));
        assert!(begun.is_true && begun.message.contains("99 bytes on /r"), "{}", begun.message);
        let still = judge(Some(&begun), &sight(Some(124)));
        assert_eq!(still, begun, "the message is that of its begin");
        assert!(!judge(Some(&still), &sight(Some(125))).is_true);
    }

    #[test]
    fn without_a_sight_nothing_changes() {
        let begun = judge(None, &sight(Some(0)));
        assert_eq!(judge(Some(&begun), &sight(None)), begun);
        assert!(!judge(None, &sight(None)).is_true);
    }

    #[test]
    fn the_fastest_grower_is_blamed_and_not_the_largest() {
        let (large, filler, new) = (SandboxId::random(), SandboxId::random(), SandboxId::random());
        let mib = |n: u64| n << 20;
        let before = HashMap::from([(large.clone(), mib(900)), (filler.clone(), mib(1))]);
        let now = HashMap::from([(large.clone(), mib(901)), (filler.clone(), mib(101)), (new, mib(500))]);
        assert_eq!(biggest_writer(&before, &now), Some((filler, mib(100))));
        let quiet = HashMap::from([(large, mib(901))]);
        assert_eq!(biggest_writer(&before, &quiet), None, "nobody is stopped for what was there before");
    }

    #[test]
    fn a_tree_that_hides_its_size_is_blamed_first() {
        let (hidden, writer) = (SandboxId::random(), SandboxId::random());
        let before = HashMap::from([(hidden.clone(), u64::MAX), (writer.clone(), 0)]);
        let now = HashMap::from([(hidden.clone(), u64::MAX), (writer, 1 << 30)]);
        assert_eq!(biggest_writer(&before, &now).map(|(id, _)| id), Some(hidden));
    }
}
