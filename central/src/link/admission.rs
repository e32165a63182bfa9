//! How many nodes may come in at once.
//!
//! A fleet that lost its central comes back together. What is worked on at
//! once is bounded, so that people's requests keep their share of database and
//! processor; the others are told when to come again, the later the more there
//! are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use roost_proto::protocol::RETRY_AFTER_MS;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

/// Pause for those who come just too late, in milliseconds.
const PAUSE_MS: u32 = 500;
/// Longest pause, in milliseconds: well below the time until a node is Stale.
const PAUSE_MAX_MS: u32 = 15_000;

/// The door for nodes.
#[derive(Debug)]
pub struct Admission {
    permits: Arc<Semaphore>,
    entries_max: u32,
    /// Refusals since there was room last.
    refused: AtomicU32,
}

impl Admission {
    /// A door for so many at once.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        let permits = Arc::new(Semaphore::new(entries_max.min(Semaphore::MAX_PERMITS)));
        Self { permits, entries_max: u32::try_from(entries_max).unwrap_or(u32::MAX), refused: AtomicU32::new(0) }
    }

    /// Lets a node in for as long as the answer is kept.
    ///
    /// # Errors
    /// `ResourceExhausted` with [`RETRY_AFTER_MS`] when too many are inside.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, Status> {
        match self.permits.clone().try_acquire_owned() {
            Ok(permit) => {
                // At least half empty: the storm is over.
                if self.permits.available_permits() >= usize::try_from(self.entries_max / 2).unwrap_or(usize::MAX) {
                    self.refused.store(0, Ordering::Relaxed);
                }
                Ok(permit)
            }
            Err(_) => {
                let refused = self.refused.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                Err(come_again(pause_ms(refused, self.entries_max)))
            }
        }
    }
}

/// The pause for the `refused`th of a storm: as many as fit at once get the
/// same, and each further such group one pause more.
fn pause_ms(refused: u32, entries_max: u32) -> u32 {
    (refused / entries_max.max(1)).saturating_add(1).saturating_mul(PAUSE_MS).min(PAUSE_MAX_MS)
}

/// A refusal that says when to come again.
fn come_again(after_ms: u32) -> Status {
    let mut status =
        Status::new(Code::ResourceExhausted, format!("too many nodes at once: come again in {after_ms} ms"));
    status.metadata_mut().insert(RETRY_AFTER_MS, after_ms.into());
    status
}

/// What a session is told when central shuts down: with many of them, the
/// nodes come back over some seconds.
pub(super) fn shutting_down(sessions: usize) -> Status {
    let after_ms = u32::try_from(sessions).unwrap_or(u32::MAX).saturating_mul(2).min(PAUSE_MAX_MS);
    let mut status = Status::unavailable("central shuts down: connect again");
    status.metadata_mut().insert(RETRY_AFTER_MS, after_ms.into());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_ms(status: &Status) -> u32 {
        status.metadata().get(RETRY_AFTER_MS).unwrap().to_str().unwrap().parse().unwrap()
    }

    #[test]
    fn those_beyond_the_bound_are_told_to_come_later_and_later() {
        let admission = Admission::new(2);
        let inside = (admission.enter().unwrap(), admission.enter().unwrap());
        let told: Vec<u32> = (0..5).map(|_| asked_ms(&admission.enter().unwrap_err())).collect();
        assert_eq!(told, [500, 1_000, 1_000, 1_500, 1_500]);
        drop(inside);
        drop(admission.enter().unwrap());
        let _inside = (admission.enter().unwrap(), admission.enter().unwrap());
        assert_eq!(asked_ms(&admission.enter().unwrap_err()), 500, "a new storm begins anew");
    }

    #[test]
    fn no_pause_is_longer_than_its_bound() {
        assert_eq!(pause_ms(u32::MAX, 1), PAUSE_MAX_MS);
        assert_eq!(asked_ms(&shutting_down(usize::MAX)), PAUSE_MAX_MS);
        assert_eq!(asked_ms(&shutting_down(0)), 0);
    }
}
