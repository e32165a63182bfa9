//! Pulls: one request, the events of all nodes.

use std::time::Duration;

use http::Method;
use roost_proto::model::{ImageInfo, ImageRef, Problem, PullPolicy, PullStep};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::lines::Lines;
use crate::client::sse::{Assembler, Event};
use crate::client::{Call, Client, ClientError};

/// Silence after which the connection counts as dead: three of the server's
/// keep-alive comments are missing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// What is to be pulled.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pull {
    /// The image.
    pub(crate) reference: ImageRef,
    /// Whether the registry is asked also where the image is.
    pub(crate) policy: PullPolicy,
    /// Whether it is pinned as well.
    pub(crate) pin: bool,
    /// Names or ids; empty = every node that is online.
    pub(crate) nodes: Vec<String>,
}

/// What happened on one node.
#[derive(Debug, Clone)]
pub(crate) struct PullLine {
    /// Name of the node.
    pub(crate) node: String,
    /// What.
    pub(crate) event: PullEvent,
}

/// How a pull goes on.
#[derive(Debug, Clone)]
pub(crate) enum PullEvent {
    /// Something was done.
    Step(PullStep),
    /// The image is there.
    Done(Box<ImageInfo>),
    /// It is not, and why.
    Failed(Box<Problem>),
}

#[derive(Deserialize)]
struct Data {
    name: String,
    step: Option<PullStep>,
    image: Option<ImageInfo>,
    problem: Option<Problem>,
}

impl Client {
    /// Has nodes pull an image; `progress` sees every event.
    ///
    /// # Errors
    /// See [`ClientError`]; what a single node refuses is an event.
    pub(crate) async fn pull_image(&self, pull: &Pull, mut progress: impl FnMut(PullLine)) -> Result<(), ClientError> {
        let call = Call::new(Method::POST, "/images/pull").json(pull)?;
        let take = |data: Data| data.line().into_iter().for_each(&mut progress);
        self.events(&call, take).await
    }

    /// Makes a call whose answer is a stream of events, and hands on the data
    /// of each.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(super) async fn events<T: DeserializeOwned>(
        &self,
        call: &Call,
        mut take: impl FnMut(T),
    ) -> Result<(), ClientError> {
        let what = call.to_string();
        let mut lines = Lines::new(self.stream(call).await?);
        let mut assembler = Assembler::default();
        loop {
            let line = match tokio::time::timeout(IDLE_TIMEOUT, lines.next()).await {
                Ok(Some(Ok(line))) => line,
                Ok(Some(Err(error))) => return Err(ClientError::Broken { what, source: error.into() }),
                Ok(None) => return Ok(()),
                Err(_) => return Err(ClientError::Timeout { what, after: IDLE_TIMEOUT }),
            };
            if let Some(Event { data, .. }) = assembler.line(&line) {
                let data = serde_json::from_str(&data);
                take(data.map_err(|source| ClientError::Unreadable { what: what.clone(), source })?);
            }
        }
    }
}

impl Data {
    /// None for events of a newer server.
    fn line(self) -> Option<PullLine> {
        let event = match (self.step, self.image, self.problem) {
            (Some(step), _, _) => PullEvent::Step(step),
            (_, Some(image), _) => PullEvent::Done(Box::new(image)),
            (_, _, Some(problem)) => PullEvent::Failed(Box::new(problem)),
            (None, None, None) => return None,
        };
        Some(PullLine { node: self.name, event })
    }
}
