//! No desktop is ready: one is made, and claimed once it is.

use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Claimed, Phase, Sandbox, resolve};
use tokio::time::Instant;

use super::super::sandbox::request_of;
use super::super::{Conflict, Noun, RequestError};
use super::Attempt;
use super::node::Refusal;
use crate::changes::Subscription;
use crate::clock;
use crate::store::{CreateSandboxError, Intent, NewSandbox, SandboxKey};

/// How long a start may take before the caller is told to come back: below the
/// 30 s of a request, and far above a start on a node that has the image.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The sandbox is looked at again after so long without news, as news may be
/// lost with a connection of the database.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

impl Attempt<'_> {
    /// Makes the sandbox, waits until it is Ready and claims it.
    pub(super) async fn cold(&self, id: SandboxId) -> Result<Claimed, RequestError> {
        let events = self.scope.watch(None);
        let made = self.make(id).await?;
        let sandbox = match self.until_ready(made, events).await? {
            sandbox if sandbox.observed.phase == Phase::Ready => sandbox,
            failed => return Err(self.give_up(&failed).await?),
        };
        match self.ask_sandbox(&sandbox.node_id, &sandbox.id).await {
            Ok(given) => self.finish(&sandbox.node_id, given).await,
            Err(Refusal::NotBound(message)) => Err(self.stands_unbound(&sandbox.node_id, message).await),
            Err(Refusal::Next(message)) => Err(Conflict::NotReady(message).into()),
            Err(Refusal::Wrong(error) | Refusal::Failed(error)) => Err(error),
        }
    }

    /// The claim's id is the key of the creation: two requests make one.
    async fn make(&self, id: SandboxId) -> Result<Sandbox, RequestError> {
        let pool = &self.pool.pool;
        let template = self.scope.template(&pool.template).await?;
        let profile = self.scope.profile(pool.profile.as_ref().unwrap_or(&template.profile)).await?;
        let spec = resolve(&template, &profile, &pool.env);
        let request = request_of(&spec);
        let new = NewSandbox {
            hint: None,
            id,
            name: self.body.name.clone(),
            spec,
            idempotency: Some((self.record.id.to_string(), self.record.body_sha256.clone())),
            now_unix_ms: clock::now_unix_ms(),
        };
        let made = self.scope.store().create_sandbox(new, self.scope.placing(request)).await;
        let made = made.map_err(|error| match error {
            CreateSandboxError::NameTaken(name) => Conflict::NameTaken(name.into()).into(),
            CreateSandboxError::KeyReused => Conflict::KeyReused.into(),
            CreateSandboxError::Place(error) => RequestError::from(error),
            CreateSandboxError::Store(error) => error.into(),
        });
        match made {
            Ok(made) => Ok(made.sandbox),
            Err(error @ (RequestError::Place(_) | RequestError::Conflict(_))) => {
                // Nothing was made: the name and the key are free again.
                self.scope.store().drop_claim(self.record.id.clone()).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until a start has ended, one way or the other.
    async fn until_ready(&self, made: Sandbox, events: Subscription) -> Result<Sandbox, RequestError> {
        let (deadline, mut events) = (Instant::now() + READY_TIMEOUT, events.events);
        let id = made.id;
        loop {
            let found = self.scope.store().sandbox(SandboxKey::Id(id.clone())).await?;
            let sandbox = found.ok_or_else(|| RequestError::not_found(Noun::Sandbox, &id))?;
            match sandbox.observed.phase {
                Phase::Ready | Phase::Failed => return Ok(sandbox),
                Phase::Deleting | Phase::Gone => return Err(Conflict::Deleting(id.to_string()).into()),
                _ if Instant::now() >= deadline => {
                    return Err(Conflict::ClaimStarting { sandbox: id.to_string() }.into());
                }
                _ => {}
            }
            let news = async {
                while let Ok(event) = events.recv().await {
                    if *event.event.id() == id {
                        return;
                    }
                }
                // The subscription ended or lagged: the look below goes on.
                std::future::pending::<()>().await;
            };
            let until = deadline.min(Instant::now() + LOOK_PERIOD);
            // Cut by the time: what was not received stays in the channel, and
            // the sandbox is looked at all the same.
            drop(tokio::time::timeout_at(until, news).await);
        }
    }

    /// The start failed: nobody would ever have this sandbox.
    async fn give_up(&self, failed: &Sandbox) -> Result<RequestError, RequestError> {
        let store = self.scope.store();
        self.scope.wish(failed.id.as_str(), Intent::Delete.into()).await?;
        store.drop_claim(self.record.id.clone()).await?;
        let why = failed.observed.message.clone().or_else(|| failed.observed.reason.clone()).unwrap_or_default();
        let pool = &self.pool.pool.name;
        Ok(Conflict::NotReady(format!("pool {pool} has no desktop ready, and a new one did not start: {why}")).into())
    }
}
