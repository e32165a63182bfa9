//! What Prometheus is told, read at each scrape.

use roost_proto::model::{NodeCapacity, NodeStatus, Phase};
use tokio::sync::watch;

use crate::link::LinkState;
use crate::metrics::{NodeSample, SampleSource, SandboxSample};
use crate::pool::Pools;
use crate::reconcile::ledger::Ledger;
use crate::sandbox::{Manager, View};

/// Reads the node for metrics.
#[derive(Debug)]
pub struct Samples {
    ledger: Ledger,
    manager: Manager,
    pools: Pools,
    capacity: NodeCapacity,
    status: watch::Receiver<NodeStatus>,
    link: Option<watch::Receiver<LinkState>>,
}

impl Samples {
    /// Samples of the node and, if it has one, its connection to central.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        manager: Manager,
        pools: Pools,
        capacity: NodeCapacity,
        status: watch::Receiver<NodeStatus>,
        link: Option<watch::Receiver<LinkState>>,
    ) -> Self {
        Self { ledger, manager, pools, capacity, status, link }
    }

    fn live(&self) -> Vec<View> {
        let mut views = self.manager.changed_since(0);
        views.retain(|view| view.observed.phase != Phase::Gone);
        views
    }
}

impl SampleSource for Samples {
    fn sandboxes(&self) -> Vec<SandboxSample> {
        let sample = |view: View| SandboxSample {
            id: view.desired.id.clone(),
            template: view.desired.spec.template.clone(),
            tenant: view.desired.tenant.clone(),
            phase: view.observed.phase,
            usage: view.observed.usage,
        };
        self.live().into_iter().map(sample).collect()
    }

    fn node(&self) -> NodeSample {
        use std::sync::atomic::Ordering::Relaxed;
        let views = self.live();
        let resources = || views.iter().map(|view| view.desired.resources());
        let ledger = self.ledger.figures();
        let link = self.link.as_ref().map(|link| link.borrow().clone());
        let status = self.status.borrow().clone();
        NodeSample {
            capacity: self.capacity,
            cap: status.cap,
            pools: self.pools.list(),
            conditions: status.conditions.into_iter().map(|c| (c.kind, c.is_true)).collect(),
            pressure: status.load.pressure,
            cpu_requested_millis: resources().map(|r| u64::from(r.cpu_request_millis)).sum(),
            memory_requested_bytes: resources().map(|r| r.memory_request_bytes).sum(),
            id_ranges_in_use: u64::try_from(self.manager.id_ranges_used()).unwrap_or(u64::MAX),
            ledger_commits: ledger.commits.load(Relaxed),
            ledger_commit_us: ledger.commit_us.load(Relaxed),
            ledger_bytes: ledger.size_bytes.load(Relaxed),
            is_link_connected: link.as_ref().is_some_and(LinkState::is_connected),
            heartbeat_rtt_us: link.as_ref().and_then(|l| l.rtt_us),
            clock_offset_ms: link.as_ref().and_then(|l| l.clock_offset_ms),
            certificate_not_after_unix_ms: link.as_ref().and_then(|l| l.certificate_not_after_unix_ms),
        }
    }
}
