//! Files of sandboxes.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::{HeaderValue, Method, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use roost_proto::id::SandboxName;
use roost_proto::model::{CopyReport, Problem};
use serde::Deserialize;

use super::lines::Lines;
use super::{Call, Client, ClientError};

/// Silence after which a copy counts as dead: the node gives up long before.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// One line of an upload's progress.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Step(CopyReport),
    Done(CopyReport),
    Problem(Box<Problem>),
}

/// A part of what comes out of a sandbox.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// Of the archive.
    Data(Bytes),
    /// That was all.
    Done(CopyReport),
}

impl Client {
    /// Unpacks an archive in a sandbox; `step` sees how much of it is written.
    ///
    /// # Errors
    /// See [`ClientError`]; what the node refuses is [`ClientError::Problem`].
    pub(crate) async fn upload_files(
        &self,
        sandbox: &SandboxName,
        (path, rename): (&str, bool),
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        mut step: impl FnMut(&CopyReport),
    ) -> Result<CopyReport, ClientError> {
        let call = Call::new(Method::PUT, format!("/sandboxes/{sandbox}/files"));
        let call = call.query("path", path).query("rename", rename.to_string());
        let what = call.to_string();
        let body = StreamBody::new(archive.map_ok(Frame::data)).boxed_unsync();
        let mut lines = Lines::new(self.upload(&call, body, None).await?);
        loop {
            let line = match tokio::time::timeout(IDLE_TIMEOUT, lines.next()).await {
                Ok(Some(line)) => {
                    line.map_err(|error| ClientError::Broken { what: what.clone(), source: error.into() })?
                }
                Ok(None) => return Err(ClientError::broken(what, "the answer ended before the copy did")),
                Err(_) => return Err(ClientError::Timeout { what, after: IDLE_TIMEOUT }),
            };
            let line =
                serde_json::from_str(&line).map_err(|source| ClientError::Unreadable { what: what.clone(), source })?;
            match line {
                Line::Step(report) => step(&report),
                Line::Done(report) => return Ok(report),
                Line::Problem(problem) => {
                    return Err(ClientError::Problem { problem, token_origin: self.target.token_origin.clone() });
                }
            }
        }
    }

    /// A file or directory of a sandbox as an archive; its last piece is the
    /// report.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn download_files(
        &self,
        sandbox: &SandboxName,
        path: &str,
        follow_link: bool,
    ) -> Result<impl Stream<Item = Result<Piece, ClientError>> + Send + use<>, ClientError> {
        // With trailers the server can say what went wrong in the middle.
        let call = Call::get(format!("/sandboxes/{sandbox}/files"))
            .query("path", path)
            .query("follow_link", follow_link.to_string())
            .header(header::TE, HeaderValue::from_static("trailers"));
        let what = call.to_string();
        let token_origin = self.target.token_origin.clone();
        let frames = http_body_util::BodyStream::new(self.stream(&call).await?);
        Ok(frames.map(move |frame| {
            let broken = |source: hyper::Error| ClientError::Broken { what: what.clone(), source: source.into() };
            let trailers = match frame.map_err(broken)?.into_data() {
                Ok(data) => return Ok(Piece::Data(data)),
                Err(frame) => frame.into_trailers().unwrap_or_default(),
            };
            let unreadable = |source| ClientError::Unreadable { what: what.clone(), source };
            match (trailers.get("roost-copy"), trailers.get("roost-problem")) {
                (Some(report), _) => Ok(Piece::Done(serde_json::from_slice(report.as_bytes()).map_err(unreadable)?)),
                (None, Some(problem)) => {
                    let problem = serde_json::from_slice(problem.as_bytes()).map_err(unreadable)?;
                    Err(ClientError::Problem { problem, token_origin: token_origin.clone() })
                }
                (None, None) => Err(ClientError::broken(what.clone(), "the copy ended without a result")),
            }
        }))
    }
}
