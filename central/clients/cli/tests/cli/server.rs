//! A hyper server in a thread of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Breaks the connection instead of answering.
#[derive(Debug)]
pub(crate) struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up on purpose")
    }
}

impl std::error::Error for HangUp {}

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Result<Reply, HangUp>> + Send;
}

/// Ends the server when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(handler: Arc<impl Handler>, tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, handler, tls) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended by itself, after a failed assertion.
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}

async fn accept(listener: TcpListener, handler: Arc<impl Handler>, tls: Option<TlsAcceptor>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (handler, tls) = (Arc::clone(&handler), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(tcp, handler).await,
                // A client that does not trust the certificate goes away here.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(tcp).await {
                        serve(stream, handler).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Arc<impl Handler>) {
    let service = service_fn(|request| Arc::clone(&handler).handle(request));
    // Broken connections are part of the tests.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

pub(crate) fn body(bytes: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed_unsync()
}

pub(crate) fn json(status: u16, value: &impl serde::Serialize) -> Reply {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body(serde_json::to_vec(value).unwrap()))
        .unwrap()
}

pub(crate) fn problem(status: u16, code: &str, detail: &str, errors: &[(&str, &str)]) -> Reply {
    let errors: Vec<_> =
        errors.iter().map(|(field, problem)| serde_json::json!({"field": field, "problem": problem})).collect();
    let document = serde_json::json!({
        "type": format!("/problems/{code}"), "title": code, "status": status, "code": code,
        "detail": detail, "errors": errors, "request_id": "req-1",
    });
    Response::builder()
        .status(status)
        .header("content-type", "application/problem+json")
        .body(body(document.to_string()))
        .unwrap()
}
