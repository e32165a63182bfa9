//! Files through the tunnel: archives in and out, and what ends them.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use roost_proto::node::download_files_piece::Piece;
use roost_proto::node::upload_files_input::Input;
use roost_proto::node::upload_files_progress::Progress;
use roost_proto::node::*;
use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::{Code, Response, Status, Streaming};

use crate::harness::{Answer, Central, PLAIN, open, soon};
use crate::tunnel::with_tunnels;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn refused(code: Code, word: &'static str, message: &str) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert("roost-code", MetadataValue::from_static(word));
    status
}

/// A node that takes what ends in `END`.
pub(crate) async fn upload(
    mut input: Streaming<UploadFilesInput>,
) -> Result<Response<Answers<UploadFilesProgress>>, Status> {
    let Some(UploadFilesInput { input: Some(Input::Start(start)) }) = input.message().await? else {
        return Err(Status::invalid_argument("no start"));
    };
    if start.path == "/missing" {
        return Err(refused(Code::NotFound, "path-not-found", "/missing is not there"));
    }
    let progress = async_stream::try_stream! {
        let (mut bytes, mut last, mut largest) = (0, Vec::new(), 0);
        while let Some(message) = input.message().await? {
            let Some(Input::Data(data)) = message.input else { continue };
            bytes += data.len() as u64;
            largest = largest.max(data.len());
            last = data;
        }
        let report = CopyReport { files: 1, bytes, links: u64::from(start.rename), ..CopyReport::default() };
        yield UploadFilesProgress { progress: Some(Progress::Step(report.clone())) };
        if start.path == "/full" {
            Err(refused(Code::FailedPrecondition, "path-no-space", "no room is left for /full/a"))?;
        }
        if largest > 256 << 10 {
            Err(Status::internal("a piece is too large"))?;
        }
        if !last.ends_with(b"END") {
            Err(refused(Code::InvalidArgument, "archive-damaged", "the archive cannot be read: it has no end"))?;
        }
        yield UploadFilesProgress { progress: Some(Progress::Done(report)) };
    };
    Ok(Response::new(Box::pin(progress)))
}

/// A node that has `/tree`, and `/torn` that cannot be read to its end.
pub(crate) fn download(request: &DownloadFilesRequest) -> Result<Response<Answers<DownloadFilesPiece>>, Status> {
    let data = |size| Ok(DownloadFilesPiece { piece: Some(Piece::Data(vec![3; size])) });
    let pieces = match request.path.as_str() {
        "/tree" => {
            let problem = CopyProblem { path: "tree/ä".into(), reason: "is a socket, left out".into() };
            let report = CopyReport { files: 2, problems: vec![problem], problem_count: 1, ..CopyReport::default() };
            vec![data(200_000), data(200_000), Ok(DownloadFilesPiece { piece: Some(Piece::Done(report)) })]
        }
        "/torn" => vec![data(10), Err(refused(Code::FailedPrecondition, "sandbox-not-running", "it stopped running"))],
        path => return Err(refused(Code::NotFound, "path-not-found", &format!("{path} is not there"))),
    };
    Ok(Response::new(Box::pin(futures::stream::iter(pieces))))
}

async fn put(central: &Central, query: &str, body: Vec<u8>) -> Answer {
    let request = central.request(Method::PUT, &format!("/sandboxes/box/files?{query}"));
    central.send(request.body(Full::new(body.into())).unwrap()).await
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_archive_reaches_the_node_whole_and_its_report_comes_back() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    let body = [vec![5; 3 << 20], b"END".to_vec()].concat();
    let answer = put(&central, "path=/home/agent&rename=true", body).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/x-ndjson"));
    let lines = lines(&answer);
    assert_eq!(lines.last().unwrap()["done"]["bytes"], (3 << 20) + 3, "{lines:?}");
    assert_eq!(lines.last().unwrap()["done"]["links"], 1, "the wish to rename arrived");
}

#[tokio::test]
async fn what_a_node_refuses_of_a_copy_has_its_own_code() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    put(&central, "path=/missing", b"END".to_vec()).await.assert_problem(404, "path-not-found");
    let last = lines(&put(&central, "path=/full", b"END".to_vec()).await).pop().unwrap();
    assert_eq!((&last["problem"]["code"], &last["problem"]["status"]), (&"no-space".into(), &507.into()), "{last}");
    let last = lines(&put(&central, "path=/x", b"no mark".to_vec()).await).pop().unwrap();
    assert_eq!(last["problem"]["code"], "archive-damaged", "{last}");
    put(&central, "rename=true", b"END".to_vec()).await.assert_problem(422, "invalid-field");
    put(&central, "path=/x&mode=1", b"END".to_vec()).await.assert_problem(422, "invalid-field");
    central.get("/sandboxes/box/files?path=/nothing").await.assert_problem(404, "path-not-found");
    central.get("/sandboxes/nobody/files?path=/tree").await.assert_problem(404, "sandbox-not-found");
}

async fn get(central: &Central, path: &str, te: &str) -> hyper::Response<hyper::body::Incoming> {
    let request = central.request(Method::GET, &format!("/sandboxes/box/files?path={path}")).header("te", te);
    open(central.ends.api, request.body(Full::default()).unwrap()).await
}

/// A connection whose end is the test's own affair.
async fn connection<B>(central: &Central) -> (SendRequest<B>, JoinHandle<hyper::Result<()>>)
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = tokio::net::TcpStream::connect(central.ends.api).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

#[tokio::test]
async fn a_download_ends_with_a_trailer_or_breaks_off() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    let answer = get(&central, "/tree", "trailers").await;
    assert_eq!(answer.headers()["content-type"], "application/x-tar");
    let body = soon("a body", answer.into_body().collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    assert_eq!(body.to_bytes().len(), 400_000);
    let report: Value = serde_json::from_slice(trailers["roost-copy"].as_bytes()).unwrap();
    assert_eq!((&report["files"], &report["problems"][0]["path"]), (&2.into(), &"tree/ä".into()));

    let torn = soon("a body", get(&central, "/torn", "trailers").await.into_body().collect()).await.unwrap();
    let problem: Value = serde_json::from_slice(torn.trailers().unwrap()["roost-problem"].as_bytes()).unwrap();
    assert_eq!(problem["code"], "sandbox-not-ready", "{problem}");
    // Whoever does not ask for trailers must not take a part for the whole.
    let (mut sender, _connection) = connection(&central).await;
    let request = central.request(Method::GET, "/sandboxes/box/files?path=/torn").body(Full::default()).unwrap();
    let plain = async {
        let answer: hyper::Response<_> = sender.send_request(request).await?;
        answer.into_body().collect().await
    };
    assert!(soon("the end", plain).await.is_err());
    let whole = soon("a body", get(&central, "/tree", "").await.into_body().collect()).await.unwrap();
    assert_eq!(whole.to_bytes().len(), 400_000);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_archive() {
    let (central, _, _, _) = with_tunnels(PLAIN).await;
    let (mut sender, _connection) = connection(&central).await;
    let pieces = futures::stream::iter([
        Ok(Frame::data(Bytes::from_static(b"half"))),
        Err(std::io::Error::other("the disk broke")),
    ]);
    let request: Request<_> = central
        .request(Method::PUT, "/sandboxes/box/files?path=/x")
        .body(BodyExt::boxed_unsync(StreamBody::new(pieces)))
        .unwrap();
    // The connection breaks with its body.
    assert!(soon("the end", sender.send_request(request)).await.is_err());
    assert_eq!(central.get("/sandboxes/box/files?path=/tree").await.status, 200, "central goes on");
}
