//! A real central in this process.

use std::path::Path;
use std::sync::Arc;

use roost_central::app::{App, Central, Create, Ends, Scope, default_tenant, issue_join_token};
use roost_central::config::Config;
use roost_central::tasks::Tasks;

use crate::PATIENCE;

/// A running central; its state outlives restarts.
pub(crate) struct RealCentral {
    pub(crate) ends: Ends,
    pub(crate) central: Arc<Central>,
    tasks: Tasks,
    dir: tempfile::TempDir,
}

impl RealCentral {
    /// Starts one with further lines in its section `[link]`.
    pub(crate) async fn start(link: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "127.0.0.1:0", link);
        Self::run(config, dir).await
    }

    async fn run(config: Config, dir: tempfile::TempDir) -> Self {
        let app = App::build(config).await.unwrap();
        let (ends, central) = (app.ends().unwrap(), app.central());
        let tasks = app.spawn();
        Self { ends, central, tasks, dir }
    }

    /// Ends this one and begins another one on the same state and port.
    pub(crate) async fn restart(self, link: &str) -> Self {
        assert!(self.tasks.finish(PATIENCE).await, "central did not end");
        drop(self.central);
        let config = config(self.dir.path(), &self.ends.link.to_string(), link);
        Self::run(config, self.dir).await
    }

    /// Central as its administrator sees it.
    pub(crate) async fn scope(&self) -> Scope {
        let token = std::fs::read_to_string(self.dir.path().join("token")).unwrap();
        Scope::authenticate(&self.central, Some(token.trim())).await.unwrap()
    }

    /// Makes a sandbox and returns its id.
    pub(crate) async fn create_sandbox(&self) -> String {
        let body = serde_json::from_str(r#"{"template":"bare"}"#).unwrap();
        let made = self.scope().await.create_sandbox(Create { body, idempotency_key: None }).await.unwrap();
        made.sandbox.id.to_string()
    }

    /// The phase that central knows of a sandbox.
    pub(crate) async fn phase(&self, sandbox: &str) -> String {
        self.scope().await.sandbox(sandbox).await.unwrap().observed.phase.to_string()
    }

    /// Where its CAs lie.
    pub(crate) fn ca_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state/ca")
    }

    /// The certificate that it presents to nodes, in DER.
    pub(crate) async fn server_certificate(&self) -> Vec<u8> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.central.ca.present().serving().certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(self.ends.link).await.unwrap();
        let name = roost_proto::CENTRAL_TLS_NAME.try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    /// The address that nodes dial.
    pub(crate) fn address(&self) -> String {
        format!("https://{}", self.ends.link)
    }

    /// A join string as people get it.
    pub(crate) async fn join_string(&self) -> String {
        let (store, tenant) = (&*self.central.store, default_tenant().unwrap());
        issue_join_token(store, &tenant, self.central.ca.present().serving().fingerprint(), 600).await.unwrap().token
    }
}

fn config(dir: &Path, link_listen: &str, link: &str) -> Config {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config");
    let any = "listen = \"127.0.0.1:0\"";
    let text = format!(
        "state_dir = \"{0}/state\"\nseed_dir = \"{seeds}\"\nadmin_token_file = \"{0}/token\"\n[api]\n{any}\n[admin]\n{any}\n\
         [link]\nlisten = \"{link_listen}\"\n{link}\n",
        dir.display()
    );
    Config::parse(&text, Path::new("test.toml")).unwrap()
}
