//! The loop over the watch.

use std::time::Duration;

use roost_proto::id::SandboxName;
use roost_proto::model::Sandbox;
use tokio::time::Instant;

use super::live::Live;
use super::progress::{Ending, Progress};
use super::{Goal, Subject, WaitError};
use crate::client::{Client, ClientError, Watch, WatchEvent};
use crate::output::{Console, human};

/// Waits until every sandbox is where it should be. `ended` is told of each
/// one, as it happens and with the live line out of its way.
///
/// # Errors
/// The server refuses the watch, or `ended` fails. What goes wrong with one
/// sandbox goes to `ended`.
pub(crate) async fn wait(
    client: &Client,
    console: &Console,
    (goal, subjects): (Goal, Vec<Subject>),
    timeout: Duration,
    mut ended: impl FnMut(Ending) -> Result<(), WaitError>,
) -> Result<(), WaitError> {
    let only = if let [subject] = subjects.as_slice() { Some(subject.id.to_string()) } else { None };
    let mut watch = Watch::new(client.clone(), only);
    let mut progress = Progress::new(goal, subjects);
    let mut live = Live::new(console);
    let deadline = deadline(timeout);
    while !progress.is_over() {
        // Both futures may be dropped half-way: the watch keeps what it has
        // received, and a lookup is made again after the next connection.
        let endings = match tokio::time::timeout_at(deadline, step(client, &mut watch, &mut progress)).await {
            Ok(endings) => endings?,
            Err(_) => progress.time_is_up(&human_timeout(timeout)),
        };
        for ending in endings {
            live.aside(|| ended(ending))?;
        }
        live.show(progress.summary());
    }
    Ok(())
}

/// Takes one event; after a new connection also the present state, as it may
/// have changed unseen.
async fn step(client: &Client, watch: &mut Watch, progress: &mut Progress) -> Result<Vec<Ending>, WaitError> {
    match next(client, watch, progress).await? {
        WatchEvent::Sandbox(sandbox) => Ok(progress.see(*sandbox).into_iter().collect()),
        WatchEvent::Gone(id) => Ok(progress.gone(&id).into_iter().collect()),
        // The next call of the watch connects again.
        WatchEvent::Lost(_) => Ok(Vec::new()),
        WatchEvent::Connected => look(client, progress).await,
    }
}

/// The watch may refuse to begin because the one sandbox is gone already.
async fn next(client: &Client, watch: &mut Watch, progress: &Progress) -> Result<WatchEvent, WaitError> {
    match (watch.next().await, progress.open().as_slice()) {
        (Err(error), [id]) if error.is_not_found() && client.is_gone(id.as_str()).await? => {
            Ok(WatchEvent::Gone(id.clone()))
        }
        (outcome, _) => Ok(outcome?),
    }
}

async fn look(client: &Client, progress: &mut Progress) -> Result<Vec<Ending>, WaitError> {
    let mut endings = Vec::new();
    for id in progress.open() {
        match client.find_sandbox(id.as_str()).await {
            Ok(Some(sandbox)) => endings.extend(progress.see(sandbox)),
            Ok(None) => endings.extend(progress.gone(&id)),
            // The watch itself will tell, or break and come back here.
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(endings)
}

impl Client {
    /// A sandbox, or `None` when there is none by this id.
    async fn find_sandbox(&self, id: &str) -> Result<Option<Sandbox>, ClientError> {
        // Every id is a DNS label, as names are.
        let Ok(id) = id.parse::<SandboxName>() else { return Ok(None) };
        match self.get_sandbox(&id).await {
            Ok(sandbox) => Ok(Some(sandbox)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn is_gone(&self, id: &str) -> Result<bool, ClientError> {
        self.find_sandbox(id).await.map(|sandbox| sandbox.is_none())
    }
}

/// The moment at which a wait ends; zero means that it does not.
fn deadline(timeout: Duration) -> Instant {
    /// Longer than anybody waits, short enough for every clock.
    const FOREVER: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + if timeout.is_zero() { FOREVER } else { timeout.min(FOREVER) }
}

fn human_timeout(timeout: Duration) -> String {
    if timeout < Duration::from_secs(10) { format!("{timeout:?}") } else { human::span(timeout) }
}
