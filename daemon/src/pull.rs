//! Images pulled from registries: each once, however many ask for it.
//!
//! A pull is a task of its own. Whoever asks for the same reference while it
//! runs waits for the same task; the last one to go away ends it. What came
//! until then is kept and gone on from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::model::{ImageInfo, ImageRef, PullPolicy};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::containerd::image::{ImageError, Position, Progress, Source};
use crate::registry::Registries;
use crate::sandbox::image::Images;
use crate::tasks::{TaskName, Tasks};

/// Pulls at once: they share one disk and one line; others wait.
const PULLS_AT_ONCE: usize = 4;

/// What a pull came to.
type Outcome = Option<Result<ImageInfo, Arc<ImageError>>>;

/// Brings images from registries; cheap to clone.
#[derive(Debug, Clone)]
pub struct Puller {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    images: Images,
    registries: Registries,
    tasks: Tasks,
    turns: Arc<Semaphore>,
    flights: Mutex<HashMap<ImageRef, Flight>>,
    /// How many images have come.
    arrivals: watch::Sender<u64>,
}

/// A pull that others may join.
#[derive(Debug, Clone)]
struct Flight {
    position: watch::Receiver<Position>,
    outcome: watch::Receiver<Outcome>,
    /// Alive while somebody waits; the task holds none.
    guard: std::sync::Weak<DropGuard>,
}

/// Waits for a pull. Dropped, it ends the pull if nobody else waits.
#[derive(Debug)]
pub struct Ticket {
    position: watch::Receiver<Position>,
    outcome: watch::Receiver<Outcome>,
    _guard: Arc<DropGuard>,
}

/// Why a pull brought nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// The registry, the image or the disk.
    #[error(transparent)]
    Image(Arc<ImageError>),
    /// The daemon shuts down.
    #[error("the pull ended with the daemon: pull again")]
    Ended,
}

impl Ticket {
    /// Where the pull stands.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// Waits for the end. Cancel-safe.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn done(&mut self) -> Result<ImageInfo, PullError> {
        match self.outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome.map_err(PullError::Image),
            // The task was dropped with its runtime, or panicked.
            Ok(None) | Err(_) => Err(PullError::Ended),
        }
    }
}

impl Puller {
    /// Pulls into `images`.
    #[must_use]
    pub fn new(images: Images, registries: Registries, tasks: Tasks) -> Self {
        let turns = Arc::new(Semaphore::new(PULLS_AT_ONCE));
        let arrivals = watch::Sender::new(0);
        Self { inner: Arc::new(Inner { images, registries, tasks, turns, flights: Mutex::default(), arrivals }) }
    }

    /// Rises whenever an image has come.
    #[must_use]
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.inner.arrivals.subscribe()
    }

    /// Every secret that registries or proxies are told: never to be shown.
    pub async fn secrets(&self) -> Vec<String> {
        self.inner.registries.secrets().await
    }

    /// Whether a start has to wait for a pull by this policy. A name without
    /// a registry is never pulled.
    ///
    /// # Errors
    /// That containerd fails.
    pub async fn is_needed(&self, reference: &ImageRef, policy: PullPolicy) -> Result<bool, ImageError> {
        if reference.registry().is_none() {
            return Ok(false);
        }
        match policy {
            PullPolicy::Never => Ok(false),
            PullPolicy::Always => Ok(true),
            PullPolicy::IfNotPresent => match self.inner.images.store().info(reference).await {
                Ok(_) => Ok(false),
                Err(ImageError::NotFound { .. }) => Ok(true),
                Err(error) => Err(error),
            },
        }
    }

    /// Begins a pull, or joins the one that runs.
    #[must_use]
    pub fn pull(&self, reference: &ImageRef) -> Ticket {
        let mut flights = self.inner.flights();
        if let Some(flight) = flights.get(reference)
            && let Some(guard) = flight.guard.upgrade()
        {
            return Ticket { position: flight.position.clone(), outcome: flight.outcome.clone(), _guard: guard };
        }
        let cancel = CancellationToken::new();
        let guard = Arc::new(cancel.clone().drop_guard());
        let (progress, position) = Progress::of_pull();
        let (outcome_tx, outcome) = watch::channel(None);
        let flight = Flight { position: position.clone(), outcome: outcome.clone(), guard: Arc::downgrade(&guard) };
        flights.insert(reference.clone(), flight);
        drop(flights);
        let (inner, reference) = (self.inner.clone(), reference.clone());
        self.inner.tasks.spawn(TaskName::of("pull", &reference), async move {
            // Cancel-safe: a pull that is dropped leaves only what the next
            // one goes on from.
            let result = tokio::select! {
                biased;
                () = cancel.cancelled() => return tracing::info!(image = %reference, "pull given up: nobody waits"),
                result = inner.pull(&reference, &progress) => result,
            };
            if let Err(error) = &result {
                let error = error as &dyn std::error::Error;
                tracing::warn!(image = %reference, error, "pull failed");
            }
            inner.flights().remove(&reference);
            outcome_tx.send_replace(Some(result.map_err(Arc::new)));
        });
        Ticket { position, outcome, _guard: guard }
    }
}

impl Inner {
    /// The lock protects a plain map and is never held across an await.
    fn flights(&self) -> MutexGuard<'_, HashMap<ImageRef, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pull(&self, reference: &ImageRef, progress: &Progress) -> Result<ImageInfo, ImageError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await.ok();
        let source = self.registries.find(reference, progress).await.map_err(Box::new)?;
        let digest = source.found().documents.manifest.blob().digest.to_string();
        match self.images.store().get(reference).await {
            Ok(held) if held.info.digest == digest => return Ok(held.info),
            Ok(_) | Err(ImageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let info = self.images.store().import(&source, progress).await?;
        self.images.forget(reference);
        self.arrivals.send_modify(|count| *count += 1);
        Ok(info)
    }
}
