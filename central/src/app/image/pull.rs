//! One image, pulled by several nodes at once.

use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use roost_proto::convert::WireEnum;
use roost_proto::id::NodeId;
use roost_proto::model::{ImageInfo, ImageRef, Node, NodePhase, PullPolicy, PullStep};
use roost_proto::node::{PullImageProgress, PullImageRequest, pull_image_progress::Progress};
use tonic::{Status, Streaming};

use super::keep;
use crate::app::streams::{call, node_error};
use crate::app::{Noun, RequestError, Scope};

/// Time until a node has taken the request; the pull itself may last.
const PULL_START_TIMEOUT: Duration = Duration::from_secs(20);
/// Silence after which a pull has failed: a layer of several GiB unpacks
/// without a word.
const PULL_SILENCE: Duration = Duration::from_secs(600);

/// What is to be pulled, and where.
#[derive(Debug, Clone)]
pub struct PullImages {
    /// The image.
    pub reference: ImageRef,
    /// `Always` asks the registry also where the image is.
    pub policy: PullPolicy,
    /// Whether it is pinned as well.
    pub pin: bool,
    /// Names or ids; empty = every node that is online.
    pub nodes: Vec<String>,
}

/// How the pull of one node goes on.
#[derive(Debug)]
pub enum PullEvent {
    /// Something was done.
    Step(PullStep),
    /// The image is on the node.
    Done(ImageInfo),
    /// The node does not get it.
    Failed(RequestError),
}

impl Scope {
    /// Has nodes pull an image. Each node's events end with `Done` or
    /// `Failed`; one node's failure does not touch the others. Dropping the
    /// stream ends the pulls that nobody else waits for.
    ///
    /// # Errors
    /// A node that does not exist, or none at all; see [`RequestError`].
    pub async fn pull_images(&self, pull: PullImages) -> Result<BoxStream<'static, (Node, PullEvent)>, RequestError> {
        let nodes = self.chosen(&pull.nodes).await?;
        let mut all = SelectAll::new();
        for node in nodes {
            let events = pull_on(self.clone(), node.id.clone(), pull.clone());
            all.push(events.map(move |event| (node.clone(), event)).boxed());
        }
        Ok(all.boxed())
    }

    /// The nodes that are meant, each once.
    pub(super) async fn chosen(&self, names: &[String]) -> Result<Vec<Node>, RequestError> {
        let mut nodes = self.nodes().await?;
        if names.is_empty() {
            nodes.retain(|node| node.phase == NodePhase::Online);
            if nodes.is_empty() {
                return Err(RequestError::field("nodes", "no node is online: see `roost node ls`"));
            }
            return Ok(nodes);
        }
        let is_meant = |node: &Node, name: &String| node.name == *name || node.id.as_str() == name;
        let unknown = names.iter().find(|name| !nodes.iter().any(|node| is_meant(node, name)));
        if let Some(name) = unknown {
            return Err(RequestError::not_found(Noun::Node, name));
        }
        nodes.retain(|node| names.iter().any(|name| is_meant(node, name)));
        Ok(nodes)
    }
}

fn pull_on(scope: Scope, node: NodeId, pull: PullImages) -> impl Stream<Item = PullEvent> + Send {
    async_stream::stream! {
        let mut progress = match begin(&scope, &node, &pull).await {
            Ok(progress) => progress,
            Err(error) => {
                yield PullEvent::Failed(error);
                return;
            }
        };
        loop {
            let event = next(&scope, &node, &mut progress).await.unwrap_or_else(PullEvent::Failed);
            let is_last = !matches!(event, PullEvent::Step(_));
            yield event;
            if is_last {
                return;
            }
        }
    }
}

async fn begin(scope: &Scope, node: &NodeId, pull: &PullImages) -> Result<Streaming<PullImageProgress>, RequestError> {
    let mut client = scope.central.sessions.client(node)?;
    let request =
        PullImageRequest { reference: pull.reference.to_string(), policy: pull.policy.to_wire(), pin: pull.pin };
    call(node, PULL_START_TIMEOUT, client.pull_image(request)).await
}

async fn next(
    scope: &Scope,
    node: &NodeId,
    progress: &mut Streaming<PullImageProgress>,
) -> Result<PullEvent, RequestError> {
    let next = tokio::time::timeout(PULL_SILENCE, progress.message()).await;
    let silent = || Err(Status::deadline_exceeded("the pull made no progress for 10 minutes"));
    let message = next.unwrap_or_else(|_| silent()).map_err(|status| node_error(node, status))?;
    let invalid = |error: roost_proto::convert::InvalidMessage| node_error(node, Status::internal(error.to_string()));
    match message.and_then(|message| message.progress) {
        Some(Progress::Step(step)) => Ok(PullEvent::Step(step.try_into().map_err(invalid)?)),
        Some(Progress::Done(image)) => Ok(PullEvent::Done(keep(&scope.central, node, image).await?)),
        None => Err(node_error(node, Status::data_loss("the node ended the pull without a result"))),
    }
}
