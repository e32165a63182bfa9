//! What ends a wait early: the wish changed, or a container ended.

use std::future::Future;
use std::time::Duration;

use roost_proto::id::SandboxId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::containerd::Role;
use crate::sandbox::failure::StartError;
use crate::sandbox::runtime::{Liveness, Runtime};

/// A container that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which of the two.
    pub role: Role,
    /// Its exit code; none when the runtime does not know the task any more
    /// (its shim was killed).
    pub exit_code: Option<i32>,
}

/// Between two looks at a runtime that does not answer.
const ASK_PERIOD: Duration = Duration::from_millis(500);

/// Watches one sandbox's containers and the driver's wish.
///
/// Events are hints: each one makes us ask the runtime, whose answer counts.
#[derive(Debug)]
pub struct Watch<'a> {
    runtime: &'a dyn Runtime,
    id: SandboxId,
    hints: watch::Receiver<u64>,
    /// The hint after which the runtime was asked last.
    answered: u64,
    cancel: CancellationToken,
    /// A container whose end is known.
    known: Option<Role>,
}

impl<'a> Watch<'a> {
    /// Watches for hints newer than `before`: older ones are about earlier
    /// containers.
    #[must_use]
    pub fn new(
        runtime: &'a dyn Runtime,
        id: SandboxId,
        hints: watch::Receiver<u64>,
        before: u64,
        cancel: CancellationToken,
    ) -> Self {
        Self { runtime, id, hints, answered: before, cancel, known: None }
    }

    /// Passes over a container whose end is known already.
    #[must_use]
    pub fn passing_over(self, known: Option<Role>) -> Self {
        Self { known, ..self }
    }

    /// Whether the start is still wanted.
    ///
    /// # Errors
    /// [`StartError::Cancelled`] when it is not.
    pub fn check(&self) -> Result<(), StartError> {
        if self.cancel.is_cancelled() { Err(StartError::Cancelled) } else { Ok(()) }
    }

    /// Waits until the start is no longer wanted. Cancel-safe.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Runs `wait` until it ends, the wish changes or a container ends.
    ///
    /// # Errors
    /// [`StartError::Cancelled`], [`StartError::Exited`].
    pub async fn during<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, StartError> {
        let cancel = self.cancel.clone();
        // Cancel-safe: `wait` is dropped with its connection, `ended` keeps a
        // hint until it was answered, the token stays cancelled.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(StartError::Cancelled),
            value = wait => Ok(value),
            ended = self.ended() => {
                Err(StartError::Exited { role: ended.role.as_str(), exit_code: ended.exit_code.unwrap_or(137) })
            }
        }
    }

    /// Waits until a container ended. Cancel-safe.
    pub async fn ended(&mut self) -> Ended {
        loop {
            let answered = self.answered;
            let Ok(hint) = self.hints.wait_for(|hint| *hint > answered).await.map(|hint| *hint) else {
                // The manager is gone: the daemon shuts down.
                return std::future::pending().await;
            };
            match self.runtime.look(&self.id).await {
                Liveness::Ended(ended) if Some(ended.role) != self.known => return ended,
                Liveness::Ended(_) | Liveness::Runs => self.answered = hint,
                Liveness::Unknown => tokio::time::sleep(ASK_PERIOD).await,
            }
        }
    }
}
