//! Images on nodes.

mod manage;
mod pull;

pub(crate) use manage::{Prune, PruneLine, Pruned};
pub(crate) use pull::{Pull, PullEvent, PullLine};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use roost_proto::id::NodeId;
use roost_proto::model::{ImageInfo, ImageRef, Problem};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::lines::Lines;
use super::{Call, Client, ClientError};

/// Bytes read from an archive at once: few system calls, little memory.
const CHUNK_BYTES: usize = 256 << 10;
/// Silence after which an import counts as dead: unpacking a layer of several
/// gigabytes tells no progress meanwhile.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// An image and the nodes that hold it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HeldImage {
    /// Its name.
    pub(crate) reference: ImageRef,
    /// Digest of its manifest.
    pub(crate) digest: String,
    /// Compressed size in bytes.
    pub(crate) size_bytes: u64,
    /// Who holds it.
    pub(crate) nodes: Vec<NodeId>,
}

/// One line of an import's progress.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ImportEvent {
    /// What goes on.
    Step {
        /// `receive`, `verify`, `unpack`.
        name: String,
        /// Bytes of it that are done.
        done_bytes: u64,
        /// Bytes of it; 0 = not known.
        total_bytes: u64,
    },
    /// The node holds it.
    Done(ImageInfo),
    /// The node refused it.
    Problem(Box<Problem>),
}

/// An archive on its way.
pub(crate) struct Upload {
    /// Where it is read from.
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Its size in bytes; absent = not known.
    pub(crate) length: Option<u64>,
    /// Counts the bytes that were sent.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Client {
    /// Every image on every node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn list_images(&self) -> Result<Vec<HeldImage>, ClientError> {
        self.all(Call::get("/images")).await
    }

    /// Sends an archive to a node; `progress` sees every line of the answer.
    ///
    /// # Errors
    /// See [`ClientError`]; what the node refuses is [`ClientError::Problem`].
    pub(crate) async fn import_image(
        &self,
        node: &NodeId,
        reference: Option<&ImageRef>,
        upload: Upload,
        mut progress: impl FnMut(&ImportEvent),
    ) -> Result<ImageInfo, ClientError> {
        let call = Call::new(Method::POST, format!("/nodes/{node}/images")).query_option("reference", reference);
        let what = call.to_string();
        let sent = upload.sent;
        let chunks = ReaderStream::with_capacity(upload.reader, CHUNK_BYTES)
            .inspect_ok(move |chunk| {
                sent.fetch_add(u64::try_from(chunk.len()).unwrap_or(0), Ordering::Relaxed);
            })
            .map_ok(Frame::data);
        let body = StreamBody::new(chunks).boxed_unsync();
        let mut lines = Lines::new(self.upload(&call, body, upload.length).await?);
        loop {
            let event = match tokio::time::timeout(IDLE_TIMEOUT, lines.next()).await {
                Ok(Some(line)) => {
                    line.map_err(|error| ClientError::Broken { what: what.clone(), source: error.into() })?
                }
                Ok(None) => return Err(ClientError::broken(what, "the answer ended before the import did")),
                Err(_) => return Err(ClientError::Timeout { what, after: IDLE_TIMEOUT }),
            };
            if event.trim().is_empty() {
                continue;
            }
            let event = serde_json::from_str(&event)
                .map_err(|source| ClientError::Unreadable { what: what.clone(), source })?;
            progress(&event);
            match event {
                ImportEvent::Step { .. } => {}
                ImportEvent::Done(image) => return Ok(image),
                ImportEvent::Problem(problem) => {
                    return Err(ClientError::Problem { problem, token_origin: self.target.token_origin.clone() });
                }
            }
        }
    }

    /// Removes an image from a node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn remove_image(&self, node: &NodeId, reference: &ImageRef) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, format!("/nodes/{node}/images"));
        self.done(&call.query("reference", reference.as_str())).await
    }
}
