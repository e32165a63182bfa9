//! Claims: how long they take, and how they end; and the pools at a scrape.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use roost_proto::model::Pool;

use super::samples::Writer;

/// Bounds of the buckets, in seconds: fine around the promises of 5 and 25 ms,
/// coarse up to hooks that work for long.
const BUCKETS_SECONDS: [f64; 12] = [0.002, 0.0035, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The series about claims.
pub(super) struct Claims(Family<ResultLabels, Histogram, fn() -> Histogram>);

impl Claims {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let claims = Family::new_with_constructor((|| Histogram::new(BUCKETS_SECONDS)) as fn() -> Histogram);
        let help = "Time that a claim took, the hook's answer included, by how it ended";
        registry.register_with_unit("claim_duration", help, Unit::Seconds, claims.clone());
        Self(claims)
    }

    pub(super) fn ended(&self, result: &'static str, took: Duration) {
        self.0.get_or_create(&ResultLabels { result }).observe(took.as_secs_f64());
    }
}

impl Writer<'_> {
    pub(super) fn pools(&mut self, pools: &[Pool]) -> fmt::Result {
        let rows = |value: fn(&Pool) -> u64| pools.iter().map(move |p| ([("pool", p.spec.name.as_str())], value(p)));
        let help = "Fewest desktops that the pool is to have ready";
        self.gauges("pool_min_ready", help, None, rows(|pool| pool.spec.min_ready.into()))?;
        self.gauges("pool_ready", "Desktops that can be claimed now", None, rows(|pool| pool.ready.into()))?;
        self.gauges("pool_starting", "Desktops that are starting", None, rows(|pool| pool.starting.into()))?;
        let help = "Ready desktops of an older template";
        self.gauges("pool_outdated", help, None, rows(|pool| pool.outdated.into()))?;
        let help = "Age of the desktop that is ready for longest; 0 without one";
        let seconds = pools
            .iter()
            .map(|p| ([("pool", p.spec.name.as_str())], Duration::from_millis(p.oldest_ready_ms).as_secs_f64()));
        self.gauges("pool_oldest_ready", help, Some(&Unit::Seconds), seconds)?;
        let help = "1 while the last start of the pool failed";
        self.gauges("pool_failing", help, None, rows(|pool| pool.problem.is_some().into()))?;
        self.counters("pool_hits", "Claims that found a desktop ready", None, rows(|pool| pool.hits))?;
        self.counters("pool_misses", "Claims that found none ready", None, rows(|pool| pool.misses))
    }
}
