//! A running central and a client of its REST API.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use roost_central::app::{App, Ends};
use roost_central::config::Config;
use roost_central::tasks::Tasks;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test fails: far above what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A central of its own, in a directory of its own.
pub(crate) struct Central {
    pub(crate) ends: Ends,
    pub(crate) token: String,
    pub(crate) config: Config,
    dir: TempDir,
    tasks: Tasks,
    /// Its parts.
    pub(crate) inner: std::sync::Arc<roost_central::app::Central>,
}

fn config(dir: &Path, extra: &str) -> Config {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config");
    let text = format!(
        "state_dir = \"{0}/state\"\nseed_dir = \"{seeds}\"\nadmin_token_file = \"{0}/token\"\n{extra}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n",
        dir.display()
    );
    Config::parse(&text, Path::new("test.toml")).unwrap()
}

/// The parts of the configuration that every test needs.
pub(crate) const PLAIN: &str = "[api]\nlisten = \"127.0.0.1:0\"\n[link]\nlisten = \"127.0.0.1:0\"\n";

impl Central {
    pub(crate) async fn start() -> Self {
        Self::start_with(PLAIN).await
    }

    pub(crate) async fn start_with(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), extra);
        Self::run(config, dir).await
    }

    /// Another replica beside a first one: its CA, its database, its token.
    pub(crate) async fn start_beside(first: &Self, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), extra);
        std::fs::create_dir_all(config.ca_dir()).unwrap();
        for file in std::fs::read_dir(first.config.ca_dir()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), config.ca_dir().join(file.file_name())).unwrap();
        }
        std::fs::write(dir.path().join("token"), &first.token).unwrap();
        Self::run(config, dir).await
    }

    /// What the operators' end says.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "x").body(Full::<Bytes>::default()).unwrap();
        let answer = Answer::read(open(self.ends.admin, request).await).await;
        (answer.status.as_u16(), answer.text())
    }

    async fn run(config: Config, dir: TempDir) -> Self {
        let app = App::build(config.clone()).await.unwrap();
        let ends = app.ends().unwrap();
        let inner = app.central();
        let tasks = app.spawn();
        let token = std::fs::read_to_string(dir.path().join("token")).unwrap().trim().to_owned();
        Self { ends, token, config, dir, tasks, inner }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Ends this central and begins another one on the same state.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(|| {}).await
    }

    /// The same, with something done to the state in between.
    pub(crate) async fn restart_after(self, change: impl FnOnce()) -> Self {
        assert!(self.tasks.finish(PATIENCE).await, "central did not end");
        change();
        Self::run(self.config, self.dir).await
    }

    /// Ends everything and says whether it ended in time.
    pub(crate) async fn stop(self) -> bool {
        self.tasks.finish(PATIENCE).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("host", "central")
            .header("authorization", format!("Bearer {}", self.token))
    }

    /// Sends a request; the answer's body is read whole.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        Answer::read(open(self.ends.api, request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Full::default()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(Full::new(body.to_owned().into())).unwrap()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> Answer {
        let request = self.request(Method::PUT, path).header("content-type", "application/json");
        self.send(request.body(Full::new(body.to_owned().into())).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path).body(Full::default()).unwrap()).await
    }

    /// A join string as people get it.
    pub(crate) async fn join_token(&self) -> String {
        let made = self.post("/join-tokens", "{}").await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
        made.json()["token"].as_str().unwrap().to_owned()
    }

    /// Waits until the sandbox is in a phase.
    pub(crate) async fn wait_for_phase(&self, id: &str, phase: &str) -> Value {
        soon(phase, async {
            loop {
                let sandbox = self.get(&format!("/sandboxes/{id}")).await;
                if sandbox.status.is_success() && sandbox.json()["observed"]["phase"] == phase {
                    return sandbox.json();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

/// Sends a request on a connection of its own; the body is still to be read.
pub(crate) async fn open(address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    soon("an answer", sender.send_request(request)).await.unwrap()
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = soon("a body", body.collect()).await.unwrap().to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a problem document with this code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{problem}");
        problem
    }
}
