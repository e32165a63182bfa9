//! What has a present value: the node's totals and each live sandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use roost_proto::id::{SandboxId, TemplateName, TenantId};
use roost_proto::model::{NodeCap, NodeCapacity, Phase, Pool, Pressure, Usage};

use crate::tasks::Tasks;

/// The daemon's state as metrics need it. Called on a blocking thread, once
/// for each scrape.
pub trait SampleSource: fmt::Debug + Send + Sync + 'static {
    /// Every sandbox that the node holds; one that is gone is not listed.
    fn sandboxes(&self) -> Vec<SandboxSample>;
    /// The node as a whole.
    fn node(&self) -> NodeSample;
}

/// One sandbox at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSample {
    /// Which.
    pub id: SandboxId,
    /// Template it was made from.
    pub template: TemplateName,
    /// Who owns it.
    pub tenant: TenantId,
    /// Where it is in its life.
    pub phase: Phase,
    /// What it uses; absent while it has no cgroup.
    pub usage: Option<Usage>,
}

/// The node at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSample {
    /// What sandboxes may request.
    pub capacity: NodeCapacity,
    /// What all sandboxes together can use; absent before it is known.
    pub cap: Option<NodeCap>,
    /// Pools of the node.
    pub pools: Vec<Pool>,
    /// Conditions by type, and whether they are true.
    pub conditions: Vec<(String, bool)>,
    /// Time lost by waiting; absent where the kernel does not measure it.
    pub pressure: Option<Pressure>,
    /// CPU requested by all sandboxes, in thousandths of a core.
    pub cpu_requested_millis: u64,
    /// Memory requested by all sandboxes, in bytes.
    pub memory_requested_bytes: u64,
    /// User id ranges given to sandboxes.
    pub id_ranges_in_use: u64,
    /// Commits of the ledger since the daemon started.
    pub ledger_commits: u64,
    /// Time spent in them, in microseconds.
    pub ledger_commit_us: u64,
    /// Size of the ledger on disk, in bytes.
    pub ledger_bytes: u64,
    /// Whether the connection to central stands.
    pub is_link_connected: bool,
    /// Time between the last heartbeat and its acknowledgement, in
    /// microseconds; absent while none was acknowledged.
    pub heartbeat_rtt_us: Option<u64>,
    /// How far central's clock is ahead of ours, in milliseconds; absent while
    /// it is not known.
    pub clock_offset_ms: Option<i64>,
    /// End of the node's certificate, Unix time in milliseconds; absent while
    /// there is none.
    pub certificate_not_after_unix_ms: Option<u64>,
}

/// Reads the source at each scrape.
#[derive(Debug)]
pub(super) struct SampleCollector {
    pub(super) source: Arc<OnceLock<Arc<dyn SampleSource>>>,
    pub(super) tasks: Tasks,
}

impl Collector for SampleCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        out.tasks(&self.tasks)?;
        let Some(source) = self.source.get() else { return Ok(()) };
        let sandboxes = source.sandboxes();
        let node = source.node();
        out.node(&node, &sandboxes)?;
        out.health(&node)?;
        out.pools(&node.pools)?;
        out.ledger_and_link(&node)?;
        out.sandboxes(&sandboxes)
    }
}

/// Labels of a sandbox's series.
fn labels(sample: &SandboxSample) -> [(&'static str, &str); 3] {
    [("sandbox", sample.id.as_str()), ("template", sample.template.as_str()), ("tenant", sample.tenant.as_str())]
}

/// Resource, `some` or `full`, and share from 0 to 1 of what is measured.
fn stalls(pressure: Option<Pressure>) -> Vec<(&'static str, &'static str, f64)> {
    let share = |ppm: u32| f64::from(ppm) / 1e6;
    let both = |(resource, stall): (&'static str, roost_proto::model::Stall)| {
        let full = stall.full_avg10_ppm.map(|ppm| (resource, "full", share(ppm)));
        std::iter::once((resource, "some", share(stall.some_avg10_ppm))).chain(full)
    };
    pressure.iter().flat_map(Pressure::measured).flat_map(both).collect()
}

/// Writes families of series.
pub(super) struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn tasks(&mut self, tasks: &Tasks) -> fmt::Result {
        let counts = tasks.count_by_kind();
        let rows = counts.iter().map(|(kind, count)| ([("kind", *kind)], *count));
        self.gauges("tasks", "Asynchronous tasks of the daemon by kind", None, rows)?;
        self.counter("task_panics", "Asynchronous tasks that panicked", None, &tasks.panics())
    }

    fn node(&mut self, node: &NodeSample, sandboxes: &[SandboxSample]) -> fmt::Result {
        let mut by_phase: BTreeMap<String, u64> = Phase::ALL.iter().map(|phase| (phase.to_string(), 0)).collect();
        for sandbox in sandboxes {
            *by_phase.entry(sandbox.phase.to_string()).or_default() += 1;
        }
        let rows = by_phase.iter().map(|(phase, count)| ([("phase", phase.as_str())], *count));
        self.gauges("sandboxes", "Sandboxes of the node by phase", None, rows)?;

        let (cores, bytes) = (Unit::Other("cores".into()), Some(&Unit::Bytes));
        let cores = Some(&cores);
        let requested = node.cpu_requested_millis as f64 / 1000.0;
        self.gauge("node_cpu_requested", "CPU requested by sandboxes", cores, &requested)?;
        let allocatable = f64::from(node.capacity.cpu_allocatable_millis) / 1000.0;
        self.gauge("node_cpu_allocatable", "CPU that sandboxes may request", cores, &allocatable)?;
        let requested = node.memory_requested_bytes;
        self.gauge("node_memory_requested", "Memory requested by sandboxes", bytes, &requested)?;
        let allocatable = node.capacity.memory_allocatable_bytes;
        self.gauge("node_memory_allocatable", "Memory that sandboxes may request", bytes, &allocatable)?;
        let most = u64::from(node.capacity.sandboxes_max);
        self.gauge("node_sandboxes_allocatable", "Most sandboxes at once", None, &most)?;
        self.gauge("node_id_ranges", "User id ranges given to sandboxes", None, &node.id_ranges_in_use)
    }

    fn health(&mut self, node: &NodeSample) -> fmt::Result {
        let conditions = node.conditions.iter().map(|(kind, is_true)| ([("type", kind.as_str())], u64::from(*is_true)));
        self.gauges("node_condition", "1 while the condition of this type is true", None, conditions)?;
        if let Some(cap) = node.cap {
            let cores = Unit::Other("cores".into());
            let help = "CPU that all sandboxes together can use";
            self.gauge("node_cpu_cap", help, Some(&cores), &(f64::from(cap.cpu_millis) / 1000.0))?;
            let help = "Memory that all sandboxes together can use";
            self.gauge("node_memory_cap", help, Some(&Unit::Bytes), &cap.memory_bytes)?;
            self.gauge("node_pids_cap", "Processes that all sandboxes together can have", None, &cap.pids)?;
        }
        let help = "Share of the last 10 s in which tasks of the node waited for a resource";
        let rows = stalls(node.pressure)
            .into_iter()
            .map(|(resource, kind, share)| ([("resource", resource), ("kind", kind)], share));
        self.gauges("node_pressure", help, Some(&Unit::Ratios), rows)
    }

    fn ledger_and_link(&mut self, node: &NodeSample) -> fmt::Result {
        self.gauge("ledger_size", "Size of the ledger on disk", Some(&Unit::Bytes), &node.ledger_bytes)?;
        self.counter("ledger_commits", "Durable changes of the ledger", None, &node.ledger_commits)?;
        let help = "Time spent until changes of the ledger were durable";
        self.counter("ledger_commit", help, Some(&Unit::Seconds), &(node.ledger_commit_us as f64 / 1e6))?;
        let connected = u64::from(node.is_link_connected);
        self.gauge("link_connected", "Whether the connection to central stands", None, &connected)?;
        if let Some(offset_ms) = node.clock_offset_ms {
            let help = "How far central's clock is ahead of the node's";
            self.gauge("clock_offset", help, Some(&Unit::Seconds), &(offset_ms as f64 / 1e3))?;
        }
        if let Some(end_ms) = node.certificate_not_after_unix_ms {
            let help = "Unix time at which the node's certificate ends";
            self.gauge("certificate_not_after", help, Some(&Unit::Seconds), &(end_ms as f64 / 1e3))?;
        }
        let Some(rtt_us) = node.heartbeat_rtt_us else { return Ok(()) };
        let help = "Time between the last heartbeat and its acknowledgement";
        self.gauge("heartbeat_lag", help, Some(&Unit::Seconds), &(rtt_us as f64 / 1e6))
    }

    fn sandboxes(&mut self, sandboxes: &[SandboxSample]) -> fmt::Result {
        let phases = sandboxes.iter().map(|sample| {
            let [sandbox, template, tenant] = labels(sample).map(|(name, value)| (name, value.to_owned()));
            ([sandbox, template, tenant, ("phase", sample.phase.to_string())], 1u64)
        });
        self.gauges("sandbox_phase", "1 for the phase that the sandbox is in", None, phases)?;
        let used: Vec<_> = sandboxes.iter().filter_map(|s| Some((labels(s), s.usage?))).collect();
        let rows = |value: fn(&Usage) -> u64| used.iter().map(move |(labels, usage)| (*labels, value(usage)));
        let help = "Memory charged to the sandbox, display and tmpfs included";
        self.gauges("sandbox_memory", help, Some(&Unit::Bytes), rows(|usage| usage.memory_bytes))?;
        let help = "Bytes held in /dev/shm of the sandbox";
        self.gauges("sandbox_shm", help, Some(&Unit::Bytes), rows(|usage| usage.shm_bytes))?;
        let help = "What counts against the disk limit of the sandbox; only where it has one";
        let limited = used.iter().filter_map(|(labels, usage)| Some((*labels, usage.disk_bytes?)));
        self.gauges("sandbox_disk", help, Some(&Unit::Bytes), limited)?;
        self.gauges("sandbox_pids", "Processes and threads", None, rows(|usage| u64::from(usage.pids)))?;
        let stalled = used.iter().flat_map(|(labels, usage)| {
            let [sandbox, template, tenant] = *labels;
            let row = move |(resource, kind, share)| {
                ([sandbox, template, tenant, ("resource", resource), ("kind", kind)], share)
            };
            stalls(usage.pressure).into_iter().map(row)
        });
        let help = "Share of the last 10 s in which tasks of the sandbox waited for a resource";
        self.gauges("sandbox_pressure", help, Some(&Unit::Ratios), stalled)?;
        let seconds = used.iter().map(|(labels, usage)| (*labels, usage.cpu_us as f64 / 1e6));
        self.counters("sandbox_cpu", "CPU time used by the sandbox", Some(&Unit::Seconds), seconds)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(value)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: &impl EncodeCounterValue) -> fmt::Result {
        let mut counter = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, _, f64>(value, None)
    }

    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (L, impl EncodeGaugeValue)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (L, impl EncodeCounterValue)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }
}
