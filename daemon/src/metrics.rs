//! What Prometheus scrapes from the node.
//!
//! Events are counted as they happen ([`Metrics`]); everything that has a
//! present value is read at the scrape from a [`SampleSource`], so a sandbox
//! that is gone has no series left. Cardinality is bounded: labels are live
//! sandboxes, phases, stages, and words that stand in the code.

mod claims;
mod process;
mod recent;
mod samples;
mod starts;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use roost_proto::id::SandboxId;
use roost_proto::model::{Part, StageTiming, StartRecord};

use crate::tasks::Tasks;
use claims::Claims;
use recent::RecentStarts;
pub use samples::{NodeSample, SampleSource, SandboxSample};
use starts::{ReasonLabels, Starts};

/// Media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Prefix of every series but those of the process, whose names are fixed by
/// Prometheus.
const PREFIX: &str = "roost";

/// A part of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

/// Counts what happens; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    starts: Starts,
    claims: Claims,
    recent: RecentStarts,
    failures: Family<ReasonLabels, Counter>,
    expiries: Family<ReasonLabels, Counter>,
    restarts: Family<PartLabels, Counter>,
    oom_kills: Counter,
    source: Arc<OnceLock<Arc<dyn SampleSource>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers every series. Until [`Self::attach`] those of node and
    /// sandboxes are absent.
    #[must_use]
    pub fn new(tasks: Tasks) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::ProcessCollector));
        let roost = registry.sub_registry_with_prefix(PREFIX);
        let starts = Starts::register(roost);
        let claims = Claims::register(roost);
        let failures = Family::default();
        roost.register("sandbox_failures", "Ready sandboxes that failed, by their reason", failures.clone());
        let expiries = Family::default();
        roost.register("sandbox_expiries", "Sandboxes whose time was over, by which time", expiries.clone());
        let restarts = Family::default();
        roost.register("sandbox_restarts", "Restarts by policy that began, by what had ended", restarts.clone());
        let oom_kills = Counter::default();
        let help = "Processes of sandboxes that the kernel killed for want of memory";
        roost.register("sandbox_oom_kills", help, oom_kills.clone());
        let source: Arc<OnceLock<Arc<dyn SampleSource>>> = Arc::default();
        roost.register_collector(Box::new(samples::SampleCollector { source: Arc::clone(&source), tasks }));
        let recent = RecentStarts::default();
        Self {
            inner: Arc::new(Inner {
                registry,
                starts,
                claims,
                recent,
                failures,
                expiries,
                restarts,
                oom_kills,
                source,
            }),
        }
    }

    /// Names what the values of node and sandboxes are read from at each
    /// scrape. Only the first call counts.
    pub fn attach(&self, source: Arc<dyn SampleSource>) {
        if self.inner.source.set(source).is_err() {
            tracing::warn!("metrics have a source already");
        }
    }

    /// A start ended in Ready, after these stages.
    pub fn start_succeeded(&self, stages: &[StageTiming]) {
        self.inner.starts.succeeded(stages);
    }

    /// A start failed; `reason` is the stable word of the sandbox's state. A
    /// start that nobody wants any more is neither.
    pub fn start_failed(&self, reason: &'static str) {
        self.inner.starts.failed(reason);
    }

    /// Keeps a start that came to an end, for those who ask how the last ones
    /// went.
    pub fn start_ended(&self, start: StartRecord) {
        self.inner.recent.push(start);
    }

    /// The latest `last` starts (all that are kept without), of one sandbox or
    /// all, the oldest first.
    #[must_use]
    pub fn recent_starts(&self, sandbox: Option<&SandboxId>, last: Option<usize>) -> Vec<StartRecord> {
        self.inner.recent.last(sandbox, last)
    }

    /// A claim ended with this stable word, after so long.
    pub fn claim_ended(&self, result: &'static str, took: Duration) {
        self.inner.claims.ended(result, took);
    }

    /// A sandbox that was Ready failed; `reason` as in [`Self::start_failed`].
    pub fn sandbox_failed(&self, reason: &'static str) {
        self.inner.failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// The time of a sandbox was over; `reason` says which.
    pub fn sandbox_expired(&self, reason: &'static str) {
        self.inner.expiries.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A restart by policy began, after this part had ended.
    pub fn restart_begun(&self, part: Part) {
        self.inner.restarts.get_or_create(&PartLabels { part: part.as_str() }).inc();
    }

    /// The kernel killed `count` processes of a sandbox for want of memory.
    pub fn oom_kills(&self, count: u64) {
        self.inner.oom_kills.inc_by(count);
    }

    /// Everything as OpenMetrics text. Reads the sample source, so it blocks
    /// for some milliseconds with many sandboxes: call it on a blocking thread.
    ///
    /// # Errors
    /// None that a `String` could give; the type is that of the encoder.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.inner.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
