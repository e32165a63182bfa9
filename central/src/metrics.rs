//! What `/metrics` shows, in OpenMetrics.
//!
//! Durations are in seconds, as the convention wants.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use roost_proto::model::{NodePhase, Phase};

/// Content type of the text that [`Metrics::encode`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// 100 µs to 13 s, each twice the one before: from a cached read to a stuck disk.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
}

/// Why a transaction began anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the label says it")]
pub enum RetryReason {
    Conflict,
    ConnectionLost,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    reason: RetryReason,
}

/// How a claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the label says it")]
pub enum ClaimOutcome {
    Warm,
    Cold,
    Replayed,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClaimLabels {
    outcome: ClaimOutcome,
}

/// Latency of the store, by call, and transactions that began anew.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    latency: Histograms<OperationLabels>,
    retries: Family<RetryLabels, Counter>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self { latency: Family::new_with_constructor(latency_histogram), retries: Family::default() }
    }
}

impl StoreMetrics {
    /// Counts one call.
    pub fn observe(&self, operation: &'static str, took: Duration) {
        self.latency.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    /// Counts one transaction that begins anew.
    pub fn retried(&self, reason: RetryReason) {
        self.retries.get_or_create(&RetryLabels { reason }).inc();
    }

    /// How many transactions began anew for this reason.
    #[must_use]
    pub fn retries(&self, reason: RetryReason) -> u64 {
        self.retries.get_or_create(&RetryLabels { reason }).get()
    }
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Histograms<RequestLabels>,
    claims: Histograms<ClaimLabels>,
    /// Latency of the store.
    pub store: StoreMetrics,
    nodes: Family<PhaseLabels, Gauge>,
    sandboxes: Family<PhaseLabels, Gauge>,
    sessions: Gauge,
    store_up: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("roost_central");
        let requests: Histograms<RequestLabels> = Family::new_with_constructor(latency_histogram);
        let claims: Histograms<ClaimLabels> = Family::new_with_constructor(latency_histogram);
        let store = StoreMetrics::default();
        let (nodes, sandboxes, sessions) = (Family::default(), Family::default(), Gauge::default());
        let help = "Time until the head of an answer, by route, method and status";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, requests.clone());
        let help = "Time of a claim until it was bound or refused, by its end";
        registry.register_with_unit("claim_duration", help, Unit::Seconds, claims.clone());
        let help = "Time of a store call, waiting included";
        registry.register_with_unit("store_call_duration", help, Unit::Seconds, store.latency.clone());
        let help = "Transactions that began anew, by reason";
        registry.register("store_retries", help, store.retries.clone());
        registry.register("nodes", "Enrolled nodes, by phase", nodes.clone());
        registry.register("sandboxes", "Sandboxes, by phase", sandboxes.clone());
        registry.register("node_sessions", "Open NodeLink sessions", sessions.clone());
        let store_up = Gauge::default();
        registry.register("store_up", "1 while the database answers", store_up.clone());
        Self { store_up, registry, requests, claims, store, nodes, sandboxes, sessions }
    }
}

impl Metrics {
    /// Counts one answered request; `route` is the pattern, never the path.
    pub fn request(&self, method: &str, route: &str, code: u16, took: Duration) {
        let labels = RequestLabels { method: method.into(), route: route.into(), code: code.into() };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts one claim.
    pub fn claim(&self, outcome: ClaimOutcome, took: Duration) {
        self.claims.get_or_create(&ClaimLabels { outcome }).observe(took.as_secs_f64());
    }

    /// Sets whether the database answers.
    pub fn set_store_up(&self, is_up: bool) {
        self.store_up.set(gauge(u8::from(is_up)));
    }

    /// Sets what is counted at the moment of a scrape.
    pub fn set_totals(&self, nodes: &[NodePhase], sandboxes: &[(String, u64)], sessions: usize) {
        for phase in [NodePhase::Enrolled, NodePhase::Online, NodePhase::Stale, NodePhase::Offline] {
            let count = nodes.iter().filter(|&&p| p == phase).count();
            self.nodes.get_or_create(&PhaseLabels { phase: phase.to_string() }).set(gauge(count));
        }
        for phase in Phase::ALL.map(|p| p.to_string()) {
            let count = sandboxes.iter().find(|(name, _)| *name == phase).map_or(0, |(_, count)| *count);
            self.sandboxes.get_or_create(&PhaseLabels { phase }).set(gauge(count));
        }
        self.sessions.set(gauge(sessions));
    }

    /// The text of a scrape.
    ///
    /// # Errors
    /// When a metric cannot be written, which no metric here does.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_names_every_phase_and_the_units() {
        let metrics = Metrics::default();
        metrics.request("GET", "/api/v1/sandboxes", 200, Duration::from_millis(1));
        metrics.store.observe("sandboxes", Duration::from_millis(1));
        metrics.set_totals(&[NodePhase::Online], &[("Ready".into(), 3)], 1);
        let text = metrics.encode().unwrap();
        assert!(text.contains("roost_central_sandboxes{phase=\"Ready\"} 3"), "{text}");
        assert!(text.contains("roost_central_nodes{phase=\"Offline\"} 0"), "{text}");
        assert!(text.contains("roost_central_http_request_duration_seconds_bucket{"), "{text}");
        metrics.claim(ClaimOutcome::Warm, Duration::from_millis(4));
        let text = metrics.encode().unwrap();
        assert!(text.contains("roost_central_claim_duration_seconds_count{outcome=\"Warm\"} 1"), "{text}");
    }
}
