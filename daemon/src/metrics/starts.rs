//! Starts of sandboxes: how long each stage takes, and how they end.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use roost_proto::model::StageTiming;

/// Bounds of the buckets, in seconds: fine where the promises lie (stages of
/// 5 to 50 ms, starts of 150 and 400 ms), coarse up to the longest start that
/// a template may allow.
const BUCKETS_SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Stable word for why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}

/// The series about starts.
pub(super) struct Starts {
    stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    until_ready: Histogram,
    starts: Family<ResultLabels, Counter>,
    failures: Family<ReasonLabels, Counter>,
}

impl Starts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let stages = Family::new_with_constructor(histogram as fn() -> Histogram);
        let help = "Time that one stage of a successful sandbox start took";
        registry.register_with_unit("sandbox_start_stage_duration", help, Unit::Seconds, stages.clone());
        let until_ready = histogram();
        let help = "Time from the acceptance of a sandbox start until Ready";
        registry.register_with_unit("sandbox_start_duration", help, Unit::Seconds, until_ready.clone());
        let starts = Family::default();
        registry.register("sandbox_starts", "Sandbox starts by how they ended", starts.clone());
        let failures = Family::default();
        registry.register("sandbox_start_failures", "Failed sandbox starts by their reason", failures.clone());
        Self { stages, until_ready, starts, failures }
    }

    pub(super) fn succeeded(&self, stages: &[StageTiming]) {
        for timing in stages {
            let labels = StageLabels { stage: timing.stage.as_str() };
            self.stages.get_or_create(&labels).observe(seconds(timing.duration_us));
        }
        // Stages may overlap: the end of the start is that of the latest.
        let end_us = stages.iter().map(|timing| timing.begin_us.saturating_add(timing.duration_us)).max();
        self.until_ready.observe(seconds(end_us.unwrap_or_default()));
        self.starts.get_or_create(&ResultLabels { result: "ready" }).inc();
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.starts.get_or_create(&ResultLabels { result: "failed" }).inc();
        self.failures.get_or_create(&ReasonLabels { reason }).inc();
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS_SECONDS)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
