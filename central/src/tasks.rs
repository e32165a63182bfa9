//! Background work with a name, a common end and a common wait.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// Spawns every asynchronous task of central; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
}

impl Tasks {
    /// Runs a future until it ends by itself; it should end soon after
    /// [`Tasks::ending`] is cancelled.
    pub fn spawn(&self, span: Span, future: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(future.instrument(span));
    }

    /// Cancelled when central shuts down.
    #[must_use]
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Asks all tasks to end and waits for them, at most `grace`; true if all did.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.ending.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}
