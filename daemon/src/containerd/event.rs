//! containerd's events, as hints.
//!
//! Events that happen while nobody listens are lost, so a new subscription is
//! always followed by a list. A subscription shows no sign of life before its
//! first event: an event of our own proves that it stands.

use std::time::Duration;

use containerd_client::events::TaskExit;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::tonic::Streaming;
use containerd_client::types::Envelope;
use prost::Message;
use prost_types::Any;

use super::client::Client;
use super::container::ContainerId;
use super::error::Error;

/// Topic of the event that proves a subscription.
const PROOF_TOPIC: &str = "/roost/subscribed";
/// How long containerd may take to prove a subscription.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two proofs: the first may be published before the subscription.
const PROOF_PERIOD: Duration = Duration::from_millis(20);

/// The first process of a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskExited {
    /// Whose.
    pub id: ContainerId,
    /// Its exit code, 128 + signal when killed.
    pub exit_code: i32,
}

/// A subscription that is known to stand.
#[derive(Debug)]
pub struct Events {
    stream: Streaming<Envelope>,
}

impl Client {
    /// Subscribes to the ends of tasks, and returns once events flow.
    ///
    /// # Errors
    /// That containerd is unavailable or does not deliver.
    pub async fn subscribe(&self) -> Result<Events, Error> {
        let filter = |topic| format!("topic==\"{topic}\",namespace=={}", self.namespace());
        let filters = vec![filter("/tasks/exit"), filter(PROOF_TOPIC)];
        let mut events = self.events();
        let subscribed = events.subscribe(self.request_unbounded(SubscribeRequest { filters }));
        let publish = async {
            loop {
                self.publish_proof().await?;
                tokio::time::sleep(PROOF_PERIOD).await;
            }
        };
        let timeout = || Error::Timeout { operation: "subscribe to", object: "events".into() };
        // Cancel-safe: dropping either future ends its call, nothing is kept.
        let stream = tokio::select! {
            answer = subscribed => answer.map_err(Error::of("subscribe to", "events"))?.into_inner(),
            failed = publish => return failed,
            () = tokio::time::sleep(PROOF_TIMEOUT) => return Err(timeout()),
        };
        Ok(Events { stream })
    }

    async fn publish_proof(&self) -> Result<(), Error> {
        let event = Any { type_url: PROOF_TOPIC.into(), value: Vec::new() };
        let message = PublishRequest { topic: PROOF_TOPIC.into(), event: Some(event) };
        let answer = self.events().publish(self.request(message)).await;
        answer.map(drop).map_err(Error::of("publish", PROOF_TOPIC))
    }
}

impl Events {
    /// The next end of a task; cancel-safe.
    ///
    /// # Errors
    /// That the subscription broke: subscribe again, then list.
    pub async fn next(&mut self) -> Result<TaskExited, Error> {
        loop {
            let ended = || Error::Answer { operation: "read", object: "events".into(), missing: "a further event" };
            let envelope = self.stream.message().await.map_err(Error::of("read", "events"))?.ok_or_else(ended)?;
            if let Some(exited) = task_exited(&envelope) {
                return Ok(exited);
            }
        }
    }
}

/// The end of a container's first process; the end of an exec comes under the
/// same topic with another id.
fn task_exited(envelope: &Envelope) -> Option<TaskExited> {
    let any = envelope.event.as_ref().filter(|any| any.type_url.ends_with("TaskExit"))?;
    let exit = TaskExit::decode(any.value.as_slice()).ok()?;
    (exit.id == exit.container_id).then_some(())?;
    let id = ContainerId::parse(&exit.container_id)?;
    Some(TaskExited { id, exit_code: i32::try_from(exit.exit_status).unwrap_or(i32::MAX) })
}
