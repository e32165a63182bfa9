//! What a driver needs done to real things: the seam between the life of a
//! sandbox and whatever runs it.
//!
//! Everything above this trait (states, drivers, manager, ledger, the
//! connection to central) is the same whether desktops run under containerd
//! ([`super::Node`]) or are only played ([`crate::sim`]), and does not know
//! which. An implementation decides nothing: it does what it is asked, takes
//! nothing for granted and may be asked again.

mod node;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Binding, NodeCondition, Resources, Usage};

use tokio::sync::watch;

use super::Desired;
use super::claim::{BindError, Bound, Parcel};
use super::ensure::{Ended, Watch};
use super::failure::StartError;
use super::node_time::NodeTime;
use super::publisher::Publisher;
use super::restart::Scope;
use super::teardown::TeardownError;
use crate::host;
use crate::host::cgroup::LimitsSet;
use crate::metrics::Metrics;
use crate::reconcile::ledger::{Ledger, Record};
use crate::volume::VolumeTable;

/// All that a start is told.
#[derive(Debug)]
pub struct Start<'a> {
    /// What is wanted.
    pub desired: Arc<Desired>,
    /// What is allocated.
    pub record: &'a Record,
    /// Where stages are published.
    pub publisher: &'a mut Publisher,
    /// Tells when to give up.
    pub watch: Watch<'a>,
}

/// What runs of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// A container has ended.
    Ended(Ended),
    /// None has.
    Runs,
    /// It cannot be told now.
    Unknown,
}

/// A claim to bind to a sandbox that is Ready.
#[derive(Debug, Clone)]
pub struct Bind {
    /// What is wanted.
    pub desired: Arc<Desired>,
    /// What id 0 inside is outside.
    pub first_id: u32,
    /// Number of the X server.
    pub display_number: u32,
    /// The claim.
    pub binding: Arc<Binding>,
    /// Content that came with it; none when an earlier call brought it.
    pub parcel: Option<Arc<Parcel>>,
    /// It came with files and was never bound: not without them.
    pub needs_files: bool,
}

/// Processes that the kernel killed for want of memory, by container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomKills {
    /// In the display's.
    pub display: u64,
    /// In the workload's.
    pub workload: u64,
}

/// Runs sandboxes.
#[tonic::async_trait]
pub trait Runtime: Debug + Send + Sync + 'static {
    /// Brings a sandbox from nothing to Ready, stage by stage.
    ///
    /// # Errors
    /// See [`StartError`]; what was made stays until [`Self::stop`].
    async fn start(&self, start: Start<'_>) -> Result<(), StartError>;

    /// Makes a part of a sandbox again, and brings it to Ready; what `scope`
    /// does not name stays as it is. What stands in the way is removed first.
    /// Where nothing tells the parts apart, everything is started.
    ///
    /// # Errors
    /// See [`StartError`]; what was made stays until [`Self::stop`].
    async fn restart(&self, _scope: Scope, start: Start<'_>) -> Result<(), StartError> {
        self.start(start).await
    }

    /// Returns once the window manager that made the sandbox Ready is gone and
    /// no other took its place: its exit code, where it is known. Where window
    /// managers are not watched, never.
    async fn window_manager_lost(&self, _desired: &Desired, _display_number: u32) -> Option<i32> {
        std::future::pending().await
    }

    /// Kills for want of memory that the kernel counted in the present
    /// containers of a sandbox. Blocks for about 20 µs.
    ///
    /// # Errors
    /// When the counters cannot be read.
    fn oom_kills(&self, _id: &SandboxId) -> Result<OomKills, host::Error> {
        Ok(OomKills::default())
    }

    /// Gives a sandbox that is Ready to whoever claimed it, without a restart.
    /// May be called again for the same claim.
    ///
    /// # Errors
    /// See [`BindError`]; what was laid out stays.
    async fn bind(&self, bind: Bind) -> Result<Bound, BindError>;

    /// Looks whether a sandbox that runs already is Ready: for adoption.
    ///
    /// # Errors
    /// See [`StartError`].
    async fn verify(
        &self,
        desired: &Desired,
        display_number: u32,
        watch: &mut Watch<'_>,
        timeout: Duration,
    ) -> Result<(), StartError>;

    /// Whether the containers of a sandbox run.
    async fn look(&self, id: &SandboxId) -> Liveness;

    /// Ends the processes and takes away all that a start made; what the
    /// workload wrote and the logs stay. `grace`: between SIGTERM and SIGKILL
    /// for the workload.
    ///
    /// # Errors
    /// See [`TeardownError`]; call again later.
    async fn stop(&self, id: &SandboxId, grace: Duration) -> Result<(), TeardownError>;

    /// Removes what [`Self::stop`] left: files and logs.
    ///
    /// # Errors
    /// See [`TeardownError`]; call again later.
    async fn remove_files(&self, id: &SandboxId) -> Result<(), TeardownError>;

    /// Gives what runs of a sandbox its limits, without a restart. A limit
    /// below what is in use is refused and the old one stays. May take
    /// seconds, while memory is reclaimed.
    ///
    /// # Errors
    /// When it does not run, or the kernel refuses for another reason.
    async fn set_limits(&self, id: &SandboxId, wanted: &Resources) -> Result<LimitsSet, host::Error>;

    /// Makes every process of a sandbox stand still; again is success.
    ///
    /// # Errors
    /// When it does not run, or one of them does not stand still in time: all
    /// go on then.
    async fn pause(&self, _id: &SandboxId) -> Result<(), host::Error> {
        Ok(())
    }

    /// Lets the processes of a sandbox go on; again is success.
    ///
    /// # Errors
    /// What the kernel refuses.
    async fn resume(&self, _id: &SandboxId) -> Result<(), host::Error> {
        Ok(())
    }

    /// Time since the last input; none where that cannot be told now.
    async fn input_idle(&self, _id: &SandboxId, _display_number: u32) -> Option<Duration> {
        Some(Duration::MAX)
    }

    /// What a sandbox uses now. Blocks for about 20 µs.
    ///
    /// # Errors
    /// When it does not run.
    fn usage(&self, id: &SandboxId) -> Result<Usage, host::Error>;
}

/// What the manager and all drivers of a node share.
#[derive(Debug, Clone)]
pub struct Services {
    /// Runs the sandboxes.
    pub runtime: Arc<dyn Runtime>,
    /// What is durable.
    pub ledger: Ledger,
    /// Counts starts and failures.
    pub metrics: Metrics,
    /// What the node runs short of: it takes no new sandbox while one is true.
    pub pressures: watch::Receiver<Vec<NodeCondition>>,
    /// Who has which volume.
    pub volumes: VolumeTable,
    /// What deadlines are kept in.
    pub time: NodeTime,
}
