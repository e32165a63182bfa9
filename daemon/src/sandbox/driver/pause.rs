//! A sandbox that stands still.

use std::sync::Arc;

use super::{Driver, RETRY};
use crate::sandbox::Desired;
use crate::sandbox::failure::chain;
use crate::sandbox::state::Phase;

/// Reason of a sandbox that is Ready and is not to be.
const PAUSE_FAILED: &str = "pause-failed";

impl Driver {
    /// Makes its processes stand still. What does not is left running and said
    /// to be, until the next try.
    pub(super) async fn pause(&mut self, desired: &Arc<Desired>) -> Phase {
        self.idle = None;
        match self.services.runtime.pause(&desired.id).await {
            Ok(()) => {
                self.publisher.phase(desired, &Phase::Paused);
                Phase::Paused
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(sandbox = %desired.id, error, "sandbox does not stand still");
                self.publisher.note(PAUSE_FAILED, format!("{error}; it runs, and is paused as soon as that works"));
                // Cancel-safe: a wish stays in its channel. One that is closed
                // says that the daemon shuts down.
                tokio::select! {
                    () = tokio::time::sleep(RETRY.1) => {}
                    Ok(()) = self.desired.changed() => {}
                }
                Phase::Ready
            }
        }
    }

    /// Lets its processes go on.
    pub(super) async fn resume(&mut self, desired: &Arc<Desired>) -> Phase {
        let mut retry = RETRY.0;
        while let Err(error) = self.services.runtime.resume(&desired.id).await {
            let error = chain(&error);
            tracing::warn!(sandbox = %desired.id, error, "sandbox does not go on");
            self.publisher.note("resume-failed", error);
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
        }
        self.publisher.restore(&self.progress, self.progress.ready.as_ref());
        self.publisher.phase(desired, &Phase::Ready);
        Phase::Ready
    }

    /// Takes over what an earlier daemon left standing still, or was about to;
    /// none: it runs, or is to.
    pub(super) async fn adopt_paused(&mut self, desired: &Arc<Desired>) -> Option<Phase> {
        let is_paused = desired.paused && self.progress.ready.is_some();
        let done = match is_paused {
            // Again: the earlier one may have been killed in the middle of it.
            true => self.services.runtime.pause(&desired.id).await,
            false => self.services.runtime.resume(&desired.id).await,
        };
        if let Err(error) = done {
            tracing::warn!(sandbox = %desired.id, is_paused, error = %chain(&error), "adopted sandbox is not as wanted");
            return None;
        }
        is_paused.then(|| {
            tracing::info!(sandbox = %desired.id, "sandbox adopted while it stands still");
            self.publisher.display(self.record.display_number);
            Phase::Paused
        })
    }
}
