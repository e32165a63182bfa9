//! How a sandbox's files are reached: through central, or at the daemon on
//! this machine.

use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use roost_proto::id::{SandboxId, SandboxName};
use roost_proto::model::CopyReport;
use roost_proto::node::download_files_piece::Piece as WirePiece;
use roost_proto::node::upload_files_input::Input;
use roost_proto::node::upload_files_progress::Progress;
use roost_proto::node::{DownloadFilesRequest, UploadFilesInput, UploadFilesStart};

use super::super::App;
use super::super::debug::find_local;
use crate::client::{Client, Piece};
use crate::error::CliError;
use crate::node_socket::{NodeSocket, NodeSocketError};

/// The archive on its way into a sandbox.
pub(super) type Archive = BoxStream<'static, std::io::Result<Bytes>>;
/// The archive on its way out of one.
pub(super) type Pieces = BoxStream<'static, Result<Piece, CliError>>;

/// The way to one sandbox.
pub(super) enum Road<'a> {
    /// Through central.
    Central(&'a Client, SandboxName),
    /// By the node's socket.
    Socket(NodeSocket, SandboxId),
}

impl<'a> Road<'a> {
    /// Finds the way.
    ///
    /// # Errors
    /// There is no server, or nothing listens at the socket, or it has no such
    /// sandbox.
    pub(super) async fn find(app: &'a App, socket: Option<PathBuf>, sandbox: &SandboxName) -> Result<Self, CliError> {
        let Some(path) = socket else { return Ok(Self::Central(app.client()?, sandbox.clone())) };
        let socket = NodeSocket::connect_patiently(path).await?;
        let id = find_local(&socket, sandbox.as_str()).await?.id;
        Ok(Self::Socket(socket, id))
    }

    /// Sends an archive; `step` sees how much of it is written.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn upload(
        &self,
        (path, rename): (&str, bool),
        archive: Archive,
        mut step: impl FnMut(&CopyReport),
    ) -> Result<CopyReport, CliError> {
        let (socket, id) = match self {
            Self::Central(client, sandbox) => {
                return Ok(client.upload_files(sandbox, (path, rename), archive, step).await?);
            }
            Self::Socket(socket, id) => (socket, id),
        };
        let start = UploadFilesStart { sandbox_id: id.to_string(), path: path.into(), rename };
        // A fault only ends the archive: the node sees that a part is missing.
        let data = archive
            .take_while(|piece| std::future::ready(piece.is_ok()))
            .filter_map(|piece| std::future::ready(piece.ok().map(|piece| Input::Data(piece.into()))));
        let inputs = stream::iter([Input::Start(start)]).chain(data);
        let inputs = inputs.map(|input| UploadFilesInput { input: Some(input) });
        let mut messages = socket.api().upload_files(inputs).await.map_err(NodeSocketError::from)?.into_inner();
        while let Some(message) = messages.message().await.map_err(NodeSocketError::from)? {
            match message.progress {
                Some(Progress::Step(report)) => step(&report.into()),
                Some(Progress::Done(report)) => return Ok(report.into()),
                None => {}
            }
        }
        Err(ended())
    }

    /// Takes an archive; its last piece is the report.
    ///
    /// # Errors
    /// See [`CliError`].
    pub(super) async fn download(&self, path: &str, follow_link: bool) -> Result<Pieces, CliError> {
        match self {
            Self::Central(client, sandbox) => {
                let pieces = client.download_files(sandbox, path, follow_link).await?;
                Ok(pieces.map_err(CliError::from).boxed())
            }
            Self::Socket(socket, id) => {
                let request = DownloadFilesRequest { sandbox_id: id.to_string(), path: path.into(), follow_link };
                let messages = socket.api().download_files(request).await.map_err(NodeSocketError::from)?.into_inner();
                let pieces = messages.map_err(|status| NodeSocketError::from(status).into());
                let known = |message: roost_proto::node::DownloadFilesPiece| {
                    std::future::ready(Ok(message.piece.map(|piece| match piece {
                        WirePiece::Data(data) => Piece::Data(data.into()),
                        WirePiece::Done(report) => Piece::Done(report.into()),
                    })))
                };
                Ok(pieces.try_filter_map(known).boxed())
            }
        }
    }
}

/// A copy that ended without a word.
pub(super) fn ended() -> CliError {
    let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the node ended the copy without a result");
    CliError::File { operation: "copy", path: "to the end".into(), source }
}
