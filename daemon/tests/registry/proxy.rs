//! A mirror that misbehaves as it is told, in front of a real registry.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;

use crate::server::Registry;

/// Time for what was written to get through before a connection breaks.
const FLUSH: Duration = Duration::from_millis(200);

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status, and how many seconds to wait.
    Status(u16, Option<u64>),
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// The same, this much later.
    CutLate(usize, Duration),
    /// One byte of the answer is another one.
    Corrupt,
    /// The answer never comes to its end.
    Hang(usize),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    /// First byte that was asked for.
    pub(crate) offset: u64,
}

#[derive(Debug, Default)]
struct Script {
    /// Part of a path, the fault, and how often it happens.
    faults: Vec<(String, Fault, usize)>,
    seen: Vec<Seen>,
}

/// The mirror.
#[derive(Clone)]
pub(crate) struct Proxy {
    script: Arc<Mutex<Script>>,
    upstream: String,
    client: reqwest::Client,
    pub(crate) host: String,
}

impl Proxy {
    /// Starts in front of a registry without TLS.
    pub(crate) async fn start(registry: &Registry) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("localhost:{}", listener.local_addr().unwrap().port());
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let upstream = registry.url("").trim_end_matches("/v2/").to_owned();
        let proxy = Self { script: Arc::default(), upstream, client, host };
        let router = Router::new().fallback(forward).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        proxy
    }

    /// Has the next `times` requests with `part` in their path go wrong.
    pub(crate) fn fail(&self, part: &str, fault: Fault, times: usize) {
        self.script.lock().unwrap().faults.push((part.to_owned(), fault, times));
    }

    /// Forgets faults and requests.
    pub(crate) fn reset(&self) {
        *self.script.lock().unwrap() = Script::default();
    }

    /// Requests with `part` in their path.
    pub(crate) fn seen(&self, part: &str) -> Vec<Seen> {
        self.script.lock().unwrap().seen.iter().filter(|seen| seen.path.contains(part)).cloned().collect()
    }

    fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut script = self.script.lock().unwrap();
        let (_, fault, left) = script.faults.iter_mut().find(|(part, _, left)| *left > 0 && path.contains(&**part))?;
        *left -= 1;
        Some(fault.clone())
    }
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Result<Response, Infallible> {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let fault = proxy.next_fault(&path);
    let range = request.headers().get(header::RANGE).and_then(|v| v.to_str().ok()).unwrap_or("bytes=0-");
    let offset = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    proxy.script.lock().unwrap().seen.push(Seen { path: path.clone(), offset });
    if let Some(Fault::Status(status, retry_after)) = fault {
        let wait = retry_after.map(|seconds| (header::RETRY_AFTER, seconds.to_string()));
        let headers: HeaderMap = wait.into_iter().map(|(k, v)| (k, v.parse().unwrap())).collect();
        return Ok((StatusCode::from_u16(status).unwrap(), headers, "told to").into_response());
    }
    let mut upstream = proxy.client.get(format!("{}{path}", proxy.upstream));
    for name in [header::ACCEPT, header::RANGE, header::AUTHORIZATION] {
        if let Some(value) = request.headers().get(&name) {
            upstream = upstream.header(name, value);
        }
    }
    let answer = upstream.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut bytes = answer.bytes().await.unwrap().to_vec();
    let length = bytes.len();
    let body = match fault {
        Some(Fault::Cut(after)) => broken(&bytes[..after.min(length)], FLUSH, Some(io::ErrorKind::ConnectionReset)),
        Some(Fault::CutLate(after, late)) => {
            broken(&bytes[..after.min(length)], late, Some(io::ErrorKind::ConnectionReset))
        }
        Some(Fault::Hang(after)) => broken(&bytes[..after], FLUSH, None),
        Some(Fault::Corrupt) => {
            bytes[length / 2] ^= 1;
            Body::from(bytes)
        }
        _ => Body::from(bytes),
    };
    let kept = [
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::WWW_AUTHENTICATE,
        HeaderName::from_static("docker-content-digest"),
    ];
    let mut response = Response::builder().status(status).header(header::CONTENT_LENGTH, length);
    for name in kept {
        if let Some(value) = headers.get(&name) {
            response = response.header(name, value);
        }
    }
    Ok(response.body(body).unwrap())
}

/// Some bytes, and then the end of the connection, or nothing for ever.
fn broken(bytes: &[u8], late: Duration, end: Option<io::ErrorKind>) -> Body {
    let first = Bytes::copy_from_slice(bytes);
    Body::from_stream(stream::unfold(Some(first), move |state| async move {
        match state {
            Some(bytes) => Some((Ok(bytes), None)),
            None => {
                tokio::time::sleep(late).await;
                match end {
                    Some(kind) => Some((Err(io::Error::from(kind)), None)),
                    None => std::future::pending().await,
                }
            }
        }
    }))
}
