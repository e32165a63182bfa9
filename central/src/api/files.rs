//! Files of a sandbox: `/sandboxes/{sandbox}/files`.

use std::sync::{Arc, Mutex};

use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use roost_proto::model::{CopyReport, Problem};
use serde::Deserialize;
use serde_json::json;

use super::extract::{Caller, Query};
use super::problem::ApiError;
use crate::app::{DownloadEvent, RequestError, UploadEvent};
use crate::changes::lock;

/// Trailer with what a download moved, as JSON.
const REPORT: HeaderName = HeaderName::from_static("roost-copy");
/// Trailer with the problem document of a download that broke off.
const PROBLEM: HeaderName = HeaderName::from_static("roost-problem");
/// Longest trailer: clients take some 16 KiB of them.
const TRAILER_MAX_BYTES: usize = 8 << 10;

/// What to take.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DownloadQuery {
    /// Absolute path inside. The archive has one top entry, named as its last
    /// part; `.` if it ends in `/.`.
    path: String,
    /// Whether a link in the path's own place is followed.
    #[serde(default)]
    follow_link: bool,
}

/// A file or directory of a sandbox as a tar archive. A copy that fails in the
/// middle breaks the body off. To a caller that sends `TE: trailers` the
/// trailer `roost-problem` says why instead, and `roost-copy` what was copied.
#[utoipa::path(get, path = "/api/v1/sandboxes/{sandbox}/files", tag = "sandboxes", params(DownloadQuery,
    ("sandbox" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The archive", content_type = "application/x-tar", body = Vec<u8>),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn download(
    Caller(scope): Caller,
    Path(name): Path<String>,
    Query(query): Query<DownloadQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let takes_trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes() == b"trailers");
    let events = scope.download_files(&name, query.path, query.follow_link).await?;
    let frames = events.filter_map(move |event| std::future::ready(frame(event, takes_trailers)));
    let mut response = Body::new(StreamBody::new(frames)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::TRAILER, HeaderValue::from_static("roost-copy, roost-problem"));
    Ok(response)
}

fn frame(event: Result<DownloadEvent, RequestError>, takes_trailers: bool) -> Option<Result<Frame<Bytes>, ApiFault>> {
    match event {
        Ok(DownloadEvent::Data(data)) => Some(Ok(Frame::data(data))),
        Ok(DownloadEvent::Done(report)) => takes_trailers.then(|| Ok(trailer(REPORT, &short(report)))),
        Err(error) => {
            let error = ApiError::from(error);
            Some(if takes_trailers { Ok(trailer(PROBLEM, error.problem())) } else { Err(ApiFault(error)) })
        }
    }
}

/// Breaks a body off.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.problem().detail)]
struct ApiFault(ApiError);

fn trailer(name: HeaderName, value: &impl serde::Serialize) -> Frame<Bytes> {
    // JSON escapes what no header may hold, but for DEL.
    let json = serde_json::to_string(value).unwrap_or_default().replace('\u{7f}', "\\u007f");
    let mut trailers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(json.as_bytes()) {
        trailers.insert(name, value);
    }
    Frame::trailers(trailers)
}

/// A report whose problems fit into a trailer; their number stays.
fn short(mut report: CopyReport) -> CopyReport {
    let too_long = |r: &CopyReport| serde_json::to_string(r).is_ok_and(|json| json.len() > TRAILER_MAX_BYTES);
    while too_long(&report) && report.problems.pop().is_some() {}
    report
}

/// Where to.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// Absolute path inside: a directory that the archive is laid into.
    path: String,
    /// As `cp` does: unless `path` is a directory, the one top entry of the
    /// archive gets this path.
    #[serde(default)]
    rename: bool,
}

/// Unpacks a tar archive in a sandbox, with the rights of its user. The answer
/// is one JSON object a line: `{"step":…}`, and last `{"done":…}` or
/// `{"problem":…}`. An archive that breaks off leaves whole files only.
#[utoipa::path(put, path = "/api/v1/sandboxes/{sandbox}/files", tag = "sandboxes",
    params(UploadQuery, ("sandbox" = String, Path, description = "Id or name")),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, description = "Progress", content_type = "application/x-ndjson", body = CopyReport),
        (status = "default", body = Problem, description = "Refused")))]
pub(super) async fn upload(
    Caller(scope): Caller,
    Path(name): Path<String>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let fault = Arc::new(Mutex::new(false));
    let archive = archive(request.into_body().into_data_stream(), fault.clone());
    let events = scope.upload_files(&name, query.path, query.rename, archive).await?;
    let lines = events.map(move |event| Ok::<_, std::convert::Infallible>(line(event, *lock(&fault))));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// The body as it comes; one that breaks ends early, which the node notices.
fn archive(mut body: BodyDataStream, is_broken: Arc<Mutex<bool>>) -> impl Stream<Item = Bytes> + Send {
    async_stream::stream! {
        while let Some(chunk) = body.next().await {
            let Ok(chunk) = chunk else {
                *lock(&is_broken) = true;
                return;
            };
            yield chunk;
        }
    }
}

/// One line of progress. A broken body explains what the node can only see as
/// a part of an archive.
fn line(event: Result<UploadEvent, RequestError>, is_broken: bool) -> String {
    let value = match event {
        Ok(UploadEvent::Step(report)) => json!({ "step": report }),
        Ok(UploadEvent::Done(report)) => json!({ "done": report }),
        Err(_) if is_broken => {
            json!({ "problem": ApiError::malformed_body("the archive ended early: send it again").problem() })
        }
        Err(error) => json!({ "problem": ApiError::from(error).problem() }),
    };
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fits_into_a_trailer_and_keeps_its_count() {
        let mut report = CopyReport::default();
        for number in 0..60 {
            report.problem(std::path::Path::new(&format!("{number}/{}\u{7f}é", "x".repeat(4000))), "no");
        }
        let short = short(report);
        assert_eq!(short.problem_count, 60);
        assert!(!short.problems.is_empty() && short.problems.len() < 5, "{}", short.problems.len());
        let trailers = trailer(REPORT, &short).into_trailers().unwrap();
        let back: CopyReport = serde_json::from_slice(trailers[REPORT].as_bytes()).unwrap();
        assert_eq!(back, short);
    }
}
