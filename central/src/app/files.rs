//! Files of a sandbox, through the tunnel of its node.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use roost_proto::id::NodeId;
use roost_proto::model::CopyReport;
use roost_proto::node::download_files_piece::Piece;
use roost_proto::node::upload_files_progress::Progress;
use roost_proto::node::{
    DownloadFilesPiece, DownloadFilesRequest, UploadFilesInput, UploadFilesProgress, UploadFilesStart,
    upload_files_input::Input,
};
use tonic::{Status, Streaming};

use super::streams::{call, node_error};
use super::{RequestError, Scope};

/// Time until a node has found what is meant; the copy itself may last.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Silence after which a copy has failed: the node gives up long before.
const SILENCE: Duration = Duration::from_secs(600);
/// Largest piece of an archive that is sent to a node at once.
const PIECE_BYTES: usize = 256 << 10;

/// How an upload goes on.
#[derive(Debug)]
pub enum UploadEvent {
    /// So much is written.
    Step(CopyReport),
    /// All of it is.
    Done(CopyReport),
}

/// What comes of a download.
#[derive(Debug)]
pub enum DownloadEvent {
    /// A piece of the archive.
    Data(Bytes),
    /// That was all.
    Done(CopyReport),
}

impl Scope {
    /// Unpacks an archive in a sandbox; the stream ends with `Done` or an
    /// error. An archive that breaks off must only end: the node sees that a
    /// part is missing.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn upload_files(
        &self,
        name: &str,
        path: String,
        rename: bool,
        archive: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<BoxStream<'static, Result<UploadEvent, RequestError>>, RequestError> {
        let sandbox = self.sandbox(name).await?;
        let mut node = self.central.node_client(&sandbox.node_id).await?;
        let start = UploadFilesStart { sandbox_id: sandbox.id.to_string(), path, rename };
        let pieces = archive.flat_map(|chunk| futures::stream::iter(pieces(chunk)));
        let inputs = futures::stream::iter([Input::Start(start)]).chain(pieces.map(|data| Input::Data(data.into())));
        let inputs = inputs.map(|input| UploadFilesInput { input: Some(input) });
        let progress = call(&sandbox.node_id, START_TIMEOUT, node.upload_files(inputs)).await?;
        let node = sandbox.node_id.clone();
        Ok(self.until_ending(uploaded(sandbox.node_id, progress), move || Err(cut_off(&node))).boxed())
    }

    /// A file or directory of a sandbox as a tar archive; the stream ends with
    /// `Done` or an error.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn download_files(
        &self,
        name: &str,
        path: String,
        follow_link: bool,
    ) -> Result<BoxStream<'static, Result<DownloadEvent, RequestError>>, RequestError> {
        let sandbox = self.sandbox(name).await?;
        let mut node = self.central.node_client(&sandbox.node_id).await?;
        let request = DownloadFilesRequest { sandbox_id: sandbox.id.to_string(), path, follow_link };
        let pieces = call(&sandbox.node_id, START_TIMEOUT, node.download_files(request)).await?;
        let node = sandbox.node_id.clone();
        Ok(self.until_ending(downloaded(sandbox.node_id, pieces), move || Err(cut_off(&node))).boxed())
    }
}

fn cut_off(node: &NodeId) -> RequestError {
    node_error(node, Status::unavailable("central shuts down: copy again"))
}

fn pieces(mut chunk: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while chunk.len() > PIECE_BYTES {
        pieces.push(chunk.split_to(PIECE_BYTES));
    }
    pieces.push(chunk);
    pieces
}

/// The next message of a node, which must have one.
async fn next<T>(node: &NodeId, messages: &mut Streaming<T>) -> Result<T, RequestError> {
    let next = tokio::time::timeout(SILENCE, messages.message()).await;
    let next = next.unwrap_or_else(|_| Err(Status::deadline_exceeded("the copy made no progress for 10 minutes")));
    let ended = || Status::data_loss("the node ended the copy without a result");
    next.and_then(|message| message.ok_or_else(ended)).map_err(|status| node_error(node, status))
}

fn uploaded(
    node: NodeId,
    mut messages: Streaming<UploadFilesProgress>,
) -> impl Stream<Item = Result<UploadEvent, RequestError>> + Send {
    async_stream::try_stream! {
        loop {
            match next(&node, &mut messages).await?.progress {
                Some(Progress::Step(report)) => yield UploadEvent::Step(report.into()),
                Some(Progress::Done(report)) => {
                    yield UploadEvent::Done(report.into());
                    break;
                }
                // Of a newer node.
                None => {}
            }
        }
    }
}

fn downloaded(
    node: NodeId,
    mut messages: Streaming<DownloadFilesPiece>,
) -> impl Stream<Item = Result<DownloadEvent, RequestError>> + Send {
    async_stream::try_stream! {
        loop {
            match next(&node, &mut messages).await?.piece {
                Some(Piece::Data(data)) => yield DownloadEvent::Data(data.into()),
                Some(Piece::Done(report)) => {
                    yield DownloadEvent::Done(report.into());
                    break;
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reaches_a_node_in_pieces_that_it_takes() {
        let sizes = |bytes: usize| pieces(vec![0; bytes].into()).iter().map(Bytes::len).collect::<Vec<_>>();
        assert_eq!(sizes(3), [3]);
        assert_eq!(sizes(PIECE_BYTES), [PIECE_BYTES]);
        assert_eq!(sizes(2 * PIECE_BYTES + 1), [PIECE_BYTES, PIECE_BYTES, 1]);
    }
}
