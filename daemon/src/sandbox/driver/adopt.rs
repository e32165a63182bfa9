//! Taking over what an earlier daemon left.

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::{Driver, Found};
use crate::containerd::{Role, TaskStatus};
use crate::reconcile::ledger::Comeback;
use crate::sandbox::Desired;
use crate::sandbox::ensure::Ended;
use crate::sandbox::failure::{StartError, chain};
use crate::sandbox::publisher::unix_ms;
use crate::sandbox::restart::Scope;
use crate::sandbox::state::Phase;

/// How long a running desktop may take to answer at its adoption.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a task of an earlier daemon counts as running. A shim that is slow
/// to answer is no reason to end a desktop.
fn runs(status: Option<TaskStatus>) -> bool {
    matches!(status, Some(TaskStatus::Running | TaskStatus::Unknown))
}

impl Driver {
    /// Finds out where an existing sandbox is. What an earlier daemon was in
    /// the middle of counts as Stopping: the next step clears it away.
    pub(super) async fn adopt(&mut self, found: Found) -> Phase {
        if self.accepted.is_some() {
            return Phase::Pending;
        }
        let wish = self.desired.borrow().clone();
        let desired = self.in_time(wish);
        self.publisher.restore(&self.progress, None);
        let phase = self.adopt_found(&desired, found).await;
        if matches!(&phase, Phase::Backoff(comeback) if comeback.scope < Scope::Sandbox) {
            // The display stays, and the next start does not make it known.
            self.publisher.display(self.record.display_number);
        }
        let ready = self.progress.ready.as_ref().filter(|_| matches!(phase, Phase::Ready | Phase::Paused));
        self.publisher.restore(&self.progress, ready);
        self.publisher.phase(&desired, &phase);
        phase
    }

    async fn adopt_found(&mut self, desired: &Arc<Desired>, found: Found) -> Phase {
        if self.barred.is_some() {
            return self.refuse(desired).await;
        }
        if let Some(failure) = self.progress.failure.clone() {
            self.tear_down(desired, Duration::ZERO).await;
            return Phase::Failed(failure);
        }
        if let Some(comeback) = self.progress.recovery.comeback.clone() {
            return self.adopt_backoff(desired, comeback, found).await;
        }
        let was_ready = self.progress.ready.is_some();
        match (found.display, found.workload) {
            (display, workload) if runs(display) && runs(workload) => self.adopt_running(desired).await,
            // Its clients may have ended with it: the display is looked at first.
            (Some(TaskStatus::Stopped(code)), _) if was_ready => {
                self.container_ended(desired, Ended { role: Role::Display, exit_code: Some(code) }).await
            }
            (_, Some(TaskStatus::Stopped(code))) if was_ready => {
                self.container_ended(desired, Ended { role: Role::Workload, exit_code: Some(code) }).await
            }
            _ => Phase::Stopping,
        }
    }

    /// Goes on waiting, if what was to stay is still there.
    async fn adopt_backoff(&mut self, desired: &Arc<Desired>, comeback: Comeback, found: Found) -> Phase {
        tracing::info!(sandbox = %desired.id, scope = ?comeback.scope, "sandbox adopted while a restart is waited for");
        let (display, workload) = (runs(found.display), runs(found.workload));
        match comeback.scope {
            // It was made again and not yet seen Ready.
            Scope::Workload if display && workload => self.adopt_running(desired).await,
            Scope::WindowManager if display && workload => self.keep_backoff(desired, comeback),
            Scope::Workload if display => self.keep_backoff(desired, comeback),
            Scope::WindowManager if display => {
                let exit_code = match found.workload {
                    Some(TaskStatus::Stopped(code)) => Some(code),
                    _ => None,
                };
                self.container_ended(desired, Ended { role: Role::Workload, exit_code }).await
            }
            Scope::Sandbox => {
                self.tear_down(desired, Duration::ZERO).await;
                self.keep_backoff(desired, comeback)
            }
            Scope::WindowManager | Scope::Workload => match found.display {
                Some(TaskStatus::Stopped(code)) => {
                    self.container_ended(desired, Ended { role: Role::Display, exit_code: Some(code) }).await
                }
                // The node was started anew: everything is, without a wait.
                _ => Phase::Stopping,
            },
        }
    }

    fn keep_backoff(&mut self, desired: &Desired, comeback: Comeback) -> Phase {
        let comeback = self.bounded(desired, comeback);
        let left_ms = comeback.at_unix_ms.saturating_sub(unix_ms());
        self.due = Some(Instant::now() + Duration::from_millis(left_ms));
        Phase::Backoff(comeback)
    }

    async fn adopt_running(&mut self, desired: &Arc<Desired>) -> Phase {
        if let Some(paused) = self.adopt_paused(desired).await {
            return paused;
        }
        let services = self.services.clone();
        let mut watch = self.watch(&services, CancellationToken::new());
        let number = self.record.display_number;
        match services.runtime.verify(desired, number, &mut watch, ADOPT_TIMEOUT).await {
            Ok(()) => {
                tracing::info!(sandbox = %desired.id, "sandbox adopted");
                self.publisher.display(number);
                self.progress.recovery.comeback = None;
                Phase::Ready
            }
            Err(StartError::Exited { exit_code, role }) => {
                let role = if role == Role::Display.as_str() { Role::Display } else { Role::Workload };
                self.container_ended(desired, Ended { role, exit_code: Some(exit_code) }).await
            }
            // It was Ready: a busy screen or a grabbed server is the user's
            // affair, and taking over must not disturb it.
            Err(error) if self.progress.ready.is_some() => {
                tracing::warn!(sandbox = %desired.id, error = %chain(&error), "adopted sandbox is slow to answer");
                self.publisher.display(number);
                Phase::Ready
            }
            Err(error) => {
                tracing::info!(sandbox = %desired.id, error = %chain(&error), "half a start is begun again");
                Phase::Stopping
            }
        }
    }
}
