//! A server that plays the contract of the REST API.

mod images;
mod pools;
mod routes;
mod state;
mod streams;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

use crate::server::{Handler, HangUp, Reply, Server, problem};
pub(crate) use state::{Recorded, State};

/// The only token that the server takes.
pub(crate) const TOKEN: &str = "good-token";

/// One change, as the watch tells it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) kind: &'static str,
    pub(crate) sandbox_id: String,
    pub(crate) data: String,
}

/// The server; it ends when dropped.
pub(crate) struct Central {
    shared: Arc<Shared>,
    server: Server,
    has_tls: bool,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
}

impl Central {
    pub(crate) fn start() -> Self {
        Self::with(None)
    }

    /// With TLS; the certificate's issuer is left in `ca_file`.
    pub(crate) fn start_tls(ca_file: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(ca_file, issuer.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Self::with(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn with(tls: Option<TlsAcceptor>) -> Self {
        let has_tls = tls.is_some();
        // More changes than any test makes.
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), changes: broadcast::channel(256).0 });
        let server = Server::start(Arc::clone(&shared), tls);
        Self { shared, server, has_tls }
    }

    pub(crate) fn url(&self) -> String {
        let port = self.server.address.port();
        if self.has_tls { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// The requests that were made to a path.
    pub(crate) fn requests(&self, method: &str, path: &str) -> Vec<Recorded> {
        let state = self.state();
        state.requests.iter().filter(|r| r.method == method && r.path == path).cloned().collect()
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes a sandbox and tells the watchers.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut roost_proto::model::Sandbox)) {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(id) else { return };
        change(sandbox);
        sandbox.observed.revision += 1;
        let data = serde_json::to_string(sandbox).unwrap();
        let change = state.number(id, "sandbox", data);
        // Nobody may be watching.
        let _ = self.changes.send(change);
    }

    pub(crate) fn remove(&self, id: &str) {
        let mut state = self.state();
        state.sandboxes.remove(id);
        let change = state.number(id, "gone", format!("{{\"id\":\"{id}\"}}"));
        let _ = self.changes.send(change);
    }
}

impl Handler for Shared {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply, HangUp> {
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let is_allowed = authorization == Some(&format!("Bearer {TOKEN}"));
        let recorded = Recorded::of(&request);
        if request.headers().contains_key("upgrade") {
            self.state().requests.push(recorded.clone());
            return Ok(if is_allowed { streams::exec(&self, request, &recorded) } else { unauthorized() });
        }
        if !is_allowed {
            self.state().requests.push(recorded);
            return Ok(unauthorized());
        }
        if images::is_import(&recorded) {
            self.state().requests.push(recorded.clone());
            return Ok(images::import(request.into_body(), &recorded).await);
        }
        let body = request.into_body().collect().await.map_err(|_| HangUp)?.to_bytes();
        let recorded = Recorded { body, ..recorded };
        self.state().requests.push(recorded.clone());
        routes::route(&self, &recorded)
    }
}

fn unauthorized() -> Reply {
    problem(401, "unauthorized", "the request carries no valid token", &[])
}
