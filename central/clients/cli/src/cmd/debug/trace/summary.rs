//! Many starts at once: medians and tails of each stage.

use roost_proto::model::{Stage, StartRecord};
use serde::Serialize;

use super::chart::{Bar, Look, draw};
use crate::output::{Tone, human};

/// Figures of one stage, or of whole starts, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Figures {
    /// How many starts have it.
    pub(super) count: usize,
    /// Half of them took at most this.
    pub(super) p50_us: u64,
    /// 99 of 100 took at most this.
    pub(super) p99_us: u64,
    /// The longest.
    pub(super) max_us: u64,
}

/// One stage of the starts.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StageFigures {
    stage: Stage,
    /// When it begins in the middle start, in microseconds after acceptance.
    begin_p50_us: u64,
    #[serde(flatten)]
    figures: Figures,
}

/// What many starts have in common.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary<'a> {
    /// Starts that ended in Ready.
    pub(super) ready: usize,
    /// Starts that failed.
    pub(super) failed: usize,
    /// From the acceptance to Ready; absent when none was.
    total: Option<Figures>,
    stages: Vec<StageFigures>,
    starts: &'a [StartRecord],
}

/// The value below which a share of the sorted values lies: nearest rank.
fn rank(sorted: &[u64], per_cent: usize) -> u64 {
    let index = (sorted.len() * per_cent).div_ceil(100).max(1) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

fn figures(mut values: Vec<u64>) -> Option<Figures> {
    values.sort_unstable();
    let max_us = *values.last()?;
    Some(Figures { count: values.len(), p50_us: rank(&values, 50), p99_us: rank(&values, 99), max_us })
}

impl<'a> Summary<'a> {
    /// Sums up; failed starts are counted and not measured.
    pub(super) fn of(starts: &'a [StartRecord]) -> Self {
        let ready: Vec<&StartRecord> = starts.iter().filter(|start| start.failure.is_none()).collect();
        let stage = |stage: Stage| {
            let timings = || ready.iter().flat_map(|start| &start.stages).filter(|timing| timing.stage == stage);
            let begins = figures(timings().map(|timing| timing.begin_us).collect())?;
            let figures = figures(timings().map(|timing| timing.duration_us).collect())?;
            Some(StageFigures { stage, begin_p50_us: begins.p50_us, figures })
        };
        let mut stages: Vec<StageFigures> = Stage::ALL.into_iter().filter_map(stage).collect();
        stages.sort_by_key(|stage| stage.begin_p50_us);
        Self {
            ready: ready.len(),
            failed: starts.len() - ready.len(),
            total: figures(ready.iter().map(|start| start.total_us()).collect()),
            stages,
            starts,
        }
    }

    /// A head line, the failures by reason, and a bar per stage: solid to its
    /// median, lighter on to its p99.
    pub(super) fn text(&self, of: &str, look: Look) -> String {
        let mut head = match self.total {
            None => format!("{of}: no start became Ready"),
            Some(total) => format!(
                "{of}: {} Ready, p50 {}, p99 {}, longest {}",
                human::count(self.ready, "start", "starts"),
                human::duration_us(total.p50_us),
                human::duration_us(total.p99_us),
                human::duration_us(total.max_us)
            ),
        };
        if self.failed > 0 {
            head.push_str(&format!("; {} failed ({})", self.failed, self.reasons().join(", ")));
        }
        let longest = self.stages.iter().map(|stage| stage.figures.p50_us).max().unwrap_or(0);
        let bar = |stage: &StageFigures| Bar {
            label: stage.stage.to_string(),
            figures: format!(
                "{:>8} {:>8}",
                human::duration_us(stage.figures.p50_us),
                human::duration_us(stage.figures.p99_us)
            ),
            begin_us: stage.begin_p50_us,
            end_us: stage.begin_p50_us.saturating_add(stage.figures.p50_us),
            far_end_us: stage.begin_p50_us.saturating_add(stage.figures.p99_us),
            tone: if stage.figures.p50_us == longest { Tone::Busy } else { Tone::Good },
        };
        let bars: Vec<Bar> = self.stages.iter().map(bar).collect();
        format!("{head}\n\n{}", draw(&bars, "     p50      p99", look)).trim_end().to_owned()
    }

    fn reasons(&self) -> Vec<String> {
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for reason in self.starts.iter().filter_map(|start| start.failure.as_deref()) {
            *counts.entry(reason).or_default() += 1;
        }
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::id::SandboxId;
    use roost_proto::model::StageTiming;

    fn start(rootfs_us: u64, failure: Option<&str>) -> StartRecord {
        StartRecord {
            sandbox_id: SandboxId::random(),
            name: None,
            template: "bare".parse().unwrap(),
            ended_at_unix_ms: 1,
            failure: failure.map(str::to_owned),
            stages: vec![
                StageTiming { stage: Stage::Ledger, begin_us: 0, duration_us: 1000 },
                StageTiming { stage: Stage::Rootfs, begin_us: 1000, duration_us: rootfs_us },
            ],
        }
    }

    #[test]
    fn ranks_are_values_that_occurred() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!((rank(&values, 50), rank(&values, 99), rank(&[7], 99)), (100, 198, 7));
    }

    #[test]
    fn failed_starts_are_counted_by_reason_and_not_measured() {
        let mut starts: Vec<StartRecord> = (1..=100).map(|ms| start(ms * 1000, None)).collect();
        starts.push(start(9_000_000, Some("image-missing")));
        let summary = Summary::of(&starts);
        assert_eq!((summary.ready, summary.failed), (100, 1));
        let text = summary.text("gpu-a", Look { width: Some(100), has_colour: false, has_unicode: true });
        let head = "gpu-a: 100 starts Ready, p50 51 ms, p99 100 ms, longest 101 ms; 1 failed (1 image-missing)";
        assert_eq!(text.lines().next(), Some(head));
        let rootfs = text.lines().find(|line| line.starts_with("rootfs")).unwrap();
        assert!(rootfs.contains("50 ms") && rootfs.contains("99 ms") && rootfs.contains('░'), "{rootfs}");
    }

    #[test]
    fn no_start_is_no_chart() {
        let text = Summary::of(&[]).text("gpu-a", Look { width: None, has_colour: false, has_unicode: true });
        assert_eq!(text, "gpu-a: no start became Ready");
    }
}
