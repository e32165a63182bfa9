//! The table of the daemon's named asynchronous tasks.
//!
//! Everything that runs on its own is started here, and nowhere else by
//! `tokio::spawn`: so the debugging socket can say what the daemon is doing,
//! and a panic has a name and is counted.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// State of a task that never set one.
const INITIAL_STATE: &str = "running";

/// Name of a task: what kind it is, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskName {
    kind: &'static str,
    subject: Option<String>,
}

impl TaskName {
    /// The task of this kind that belongs to `subject`, e.g. `driver` of a
    /// sandbox. Kinds are few: metrics count tasks by them.
    #[must_use]
    pub fn of(kind: &'static str, subject: impl fmt::Display) -> Self {
        Self { kind, subject: Some(subject.to_string()) }
    }

    /// The kind alone.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

impl From<&'static str> for TaskName {
    fn from(kind: &'static str) -> Self {
        Self { kind, subject: None }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "{} {subject}", self.kind),
            None => f.write_str(self.kind),
        }
    }
}

/// One task at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// Its name, e.g. `driver sbx-…`.
    pub name: String,
    /// What it does now.
    pub state: String,
    /// Time since it started, in milliseconds.
    pub age_ms: u64,
    /// Time in the present state, in milliseconds.
    pub state_age_ms: u64,
}

/// The table; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    table: Arc<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By number, so that the list is in order of start.
    running: Mutex<BTreeMap<u64, Entry>>,
    next_number: AtomicU64,
    panics: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    name: TaskName,
    state: String,
    started_at: Instant,
    state_since: Instant,
}

impl Tasks {
    /// Runs `future` as a task of its own. It stands in the table until it
    /// ends, panics or is aborted. Needs a tokio runtime.
    ///
    /// A panic is logged and counted, and then seen by the owner of the
    /// returned handle as with `tokio::spawn`.
    pub fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn_with(name, |_handle| future)
    }

    /// As [`Self::spawn`], for a task that says what it does by its
    /// [`TaskHandle`].
    pub fn spawn_with<F>(
        &self,
        name: impl Into<TaskName>,
        future: impl FnOnce(TaskHandle) -> F,
    ) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let name = name.into();
        let row = Row::insert(Arc::clone(&self.table), name.clone());
        // Held once and not by each of the layers around it: a node has a task
        // for every sandbox.
        let future = Box::pin(future(TaskHandle { table: Arc::clone(&self.table), number: row.number }));
        tokio::spawn(async move {
            // Nothing of the future is looked at after its panic but the
            // message.
            let result = AssertUnwindSafe(future).catch_unwind().await;
            result.unwrap_or_else(|panic| {
                row.table.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(task = %name, panic = panic_text(&*panic), "task panicked");
                std::panic::resume_unwind(panic)
            })
        })
    }

    /// Every running task, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<TaskInfo> {
        let now = Instant::now();
        let age_ms = |since| u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let info = |entry: &Entry| TaskInfo {
            name: entry.name.to_string(),
            state: entry.state.clone(),
            age_ms: age_ms(entry.started_at),
            state_age_ms: age_ms(entry.state_since),
        };
        self.table.running().values().map(info).collect()
    }

    /// Number of running tasks by kind.
    #[must_use]
    pub fn count_by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for entry in self.table.running().values() {
            *counts.entry(entry.name.kind).or_default() += 1;
        }
        counts
    }

    /// Tasks that panicked since the daemon started.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.table.panics.load(Ordering::Relaxed)
    }
}

impl Table {
    /// A panic while the lock is held leaves the map whole.
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's hold on its own row.
#[derive(Debug, Clone)]
pub struct TaskHandle {
    table: Arc<Table>,
    number: u64,
}

impl TaskHandle {
    /// Says what the task does from now on, e.g. `idle`. The same state again
    /// does not start its age anew.
    pub fn set_state(&self, state: impl Into<String>) {
        let state = state.into();
        if let Some(entry) = self.table.running().get_mut(&self.number)
            && entry.state != state
        {
            entry.state = state;
            entry.state_since = Instant::now();
        }
    }
}

/// A row of the table, as long as the task lives; a dropped future counts.
struct Row {
    table: Arc<Table>,
    number: u64,
}

impl Row {
    fn insert(table: Arc<Table>, name: TaskName) -> Self {
        let number = table.next_number.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let entry = Entry { name, state: INITIAL_STATE.into(), started_at: now, state_since: now };
        table.running().insert(number, entry);
        Self { table, number }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.table.running().remove(&self.number);
    }
}

/// What a panic said; panics of the standard macros carry a text.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn a_task_shows_its_name_state_and_ages_until_it_ends() {
        let tasks = Tasks::default();
        let (end, ended) = oneshot::channel::<()>();
        let (handle_tx, handle_rx) = oneshot::channel();
        let task = tasks.spawn_with(TaskName::of("driver", "sbx-1"), |handle| async move {
            let _ = handle_tx.send(handle);
            let _ = ended.await;
        });
        let handle = handle_rx.await.unwrap();
        tokio::time::advance(Duration::from_millis(100)).await;
        handle.set_state("starting");
        tokio::time::advance(Duration::from_millis(20)).await;
        handle.set_state("starting");
        let expected =
            TaskInfo { name: "driver sbx-1".into(), state: "starting".into(), age_ms: 120, state_age_ms: 20 };
        assert_eq!(tasks.list(), [expected]);
        assert_eq!(tasks.count_by_kind(), BTreeMap::from([("driver", 1)]));
        end.send(()).unwrap();
        task.await.unwrap();
        assert_eq!(tasks.list(), []);
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_reaches_the_owner() {
        let tasks = Tasks::default();
        let task = tasks.spawn("broken", async { panic!("as asked") });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!((tasks.panics(), tasks.list()), (1, vec![]));
    }

    #[tokio::test]
    async fn an_aborted_task_leaves_the_table() {
        let tasks = Tasks::default();
        let task = tasks.spawn("endless", std::future::pending::<()>());
        assert_eq!(tasks.list().len(), 1);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(tasks.list(), []);
    }
}
