//! The use of a sandbox from outside, for its idle timeout: programs that run,
//! viewers that look, moments of use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::node_time::NodeTime;

/// What uses one sandbox; shared by its driver and those who use it.
#[derive(Debug)]
pub struct Activity {
    time: NodeTime,
    open: AtomicU32,
    used_at_ms: AtomicU64,
}

impl Activity {
    /// Nobody uses it.
    #[must_use]
    pub fn new(time: NodeTime) -> Arc<Self> {
        Arc::new(Self { time, open: AtomicU32::new(0), used_at_ms: AtomicU64::new(0) })
    }

    /// Somebody used it just now.
    pub fn touch(&self) {
        self.used_at_ms.fetch_max(self.time.now_ms(), Ordering::Relaxed);
    }

    /// Somebody uses it until the answer is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InUse {
        self.open.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// How many use it now.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Node time of the last use, in milliseconds; 0 before any.
    #[must_use]
    pub fn used_at_ms(&self) -> u64 {
        self.used_at_ms.load(Ordering::Relaxed)
    }
}

/// A use that lasts.
#[derive(Debug)]
pub struct InUse(Arc<Activity>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.touch();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_use_is_a_use() {
        let activity = Activity::new(NodeTime::new(1));
        let first = activity.begin();
        let second = activity.begin();
        drop(first);
        assert_eq!(activity.open(), 1);
        tokio::time::advance(Duration::from_secs(5)).await;
        drop(second);
        assert_eq!((activity.open(), activity.used_at_ms()), (0, 5_001));
    }
}
