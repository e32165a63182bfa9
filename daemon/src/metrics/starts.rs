//! Starts of sandboxes: how long each stage takes, and how they end.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use roost_proto::model::Stage;

/// Bounds of the buckets, in seconds: fine where the promises lie (stages of
/// 5 to 50 ms, starts of 150 and 400 ms), coarse up to the longest start that
/// a template may allow.
const BUCKETS_SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0];

/// How a start ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartResult {
    /// The sandbox is Ready.
    Ready,
    /// It failed; the reason is a stable word, as in the sandbox's state.
    Failed(&'static str),
    /// Nobody wants it any more.
    Cancelled,
}

impl StartResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

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
    whole: Family<ResultLabels, Histogram, fn() -> Histogram>,
    starts: Counter,
    failures: Family<ReasonLabels, Counter>,
}

impl Starts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let stages = Family::new_with_constructor(histogram as fn() -> Histogram);
        let help = "Time that one stage of a sandbox start took";
        registry.register_with_unit("sandbox_start_stage_duration", help, Unit::Seconds, stages.clone());
        let whole = Family::new_with_constructor(histogram as fn() -> Histogram);
        let help = "Time from the acceptance of a sandbox start to its end";
        registry.register_with_unit("sandbox_start_duration", help, Unit::Seconds, whole.clone());
        let starts = Counter::default();
        registry.register("sandbox_starts", "Sandbox starts that ended, whichever way", starts.clone());
        let failures = Family::default();
        registry.register("sandbox_start_failures", "Failed sandbox starts by their reason", failures.clone());
        Self { stages, whole, starts, failures }
    }

    pub(super) fn stage_ended(&self, stage: Stage, duration: Duration) {
        self.stages.get_or_create(&StageLabels { stage: stage.as_str() }).observe(duration.as_secs_f64());
    }

    pub(super) fn ended(&self, result: StartResult, duration: Duration) {
        self.whole.get_or_create(&ResultLabels { result: result.as_str() }).observe(duration.as_secs_f64());
        self.starts.inc();
        if let StartResult::Failed(reason) = result {
            self.failures.get_or_create(&ReasonLabels { reason }).inc();
        }
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS_SECONDS)
}
