//! A real registry on loopback, and small images pushed to it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, RequestBuilder};
use roostd::containerd::image::Digest;
use serde_json::{Value, json};

use crate::archives::Image;
use crate::private_containerd::wait_for;

/// User and password of a registry that asks for them.
pub(crate) const USER: (&str, &str) = ("node", "secret");
/// The same for the registry: bcrypt is the only form that it takes.
const HTPASSWD: &str = "node:$2b$04$lgGEu.D9wLes4X40xv78h.dBa/EuczbGtmLr9t/3ETrh.E3pTYoR6\n";

/// `docker-registry` under a temporary directory.
pub(crate) struct Registry {
    process: Child,
    directory: Arc<tempfile::TempDir>,
    data: Data,
    pub(crate) host: String,
    client: Client,
    scheme: &'static str,
}

/// Where images lie, and what keeps that from going.
pub(crate) type Data = (PathBuf, Arc<tempfile::TempDir>);

/// What a registry asks of its clients.
#[derive(Default)]
pub(crate) struct Demands {
    pub(crate) password: bool,
    pub(crate) tls: bool,
    /// The registry's own settings for tokens.
    pub(crate) token: Option<Value>,
    /// Where another registry keeps what this one is to have, too.
    pub(crate) data: Option<Data>,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::demanding(Demands::default()).await
    }

    pub(crate) async fn demanding(demands: Demands) -> Self {
        // Whichever test is first; the daemon does it in its main.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let path = |name: &str| directory.path().join(name).display().to_string();
        // Free now, and nobody else asks for exactly this one.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut http = json!({ "addr": address.to_string() });
        let mut client = Client::builder().no_proxy();
        if demands.tls {
            let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            fs::write(path("ca.pem"), key.cert.pem()).unwrap();
            fs::write(path("key.pem"), key.signing_key.serialize_pem()).unwrap();
            http["tls"] = json!({ "certificate": path("ca.pem"), "key": path("key.pem") });
            client = client.tls_certs_only([reqwest::Certificate::from_pem(key.cert.pem().as_bytes()).unwrap()]);
        } else {
            client = client.tls_certs_only([]);
        }
        let data = demands.data.unwrap_or_else(|| (path("data").into(), directory.clone()));
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": data.0 }, "delete": { "enabled": true } },
            "http": http,
        });
        if demands.password {
            fs::write(path("htpasswd"), HTPASSWD).unwrap();
            config["auth"] = json!({ "htpasswd": { "realm": "test", "path": path("htpasswd") } });
        }
        if let Some(token) = demands.token {
            config["auth"] = json!({ "token": token });
        }
        fs::write(path("config.yml"), config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.args(["serve", &path("config.yml")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("these tests need Debian's package docker-registry");
        let host = format!("localhost:{}", address.port());
        let scheme = if demands.tls { "https" } else { "http" };
        let started = Self { process, directory, data, host, client: client.build().unwrap(), scheme };
        wait_for("the registry to answer", async || started.client.get(started.url("")).send().await.is_ok()).await;
        started
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{path}", self.scheme, self.host)
    }

    /// Certificate to trust, of a registry with TLS.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The same images behind other demands: a second registry.
    pub(crate) async fn again(&self, demands: Demands) -> Self {
        Self::demanding(Demands { data: Some(self.data.clone()), ..demands }).await
    }

    /// Full name of an image there.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.basic_auth(USER.0, Some(USER.1))
    }

    /// Pushes an image under `repository:tag`.
    pub(crate) async fn push(&self, image: &Image, repository: &str, tag: &str) -> Digest {
        for layer in &image.layers {
            self.push_blob(repository, &layer.bytes).await;
        }
        self.push_blob(repository, &image.config()).await;
        let manifest = image.manifest();
        self.push_manifest(repository, tag, &manifest).await;
        Digest::of(&manifest)
    }

    pub(crate) async fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let begun = self.authorized(self.client.post(self.url(&format!("{repository}/blobs/uploads/")))).send().await;
        let location = begun.unwrap().headers()[LOCATION].to_str().unwrap().to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", Digest::of(bytes));
        let request = self.authorized(self.client.put(url).body(bytes.to_vec()));
        let put = request.header(CONTENT_TYPE, "application/octet-stream").send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.status());
    }

    /// Takes a blob away again, whatever names it.
    pub(crate) async fn delete_blob(&self, repository: &str, bytes: &[u8]) {
        let url = self.url(&format!("{repository}/blobs/{}", Digest::of(bytes)));
        let gone = self.authorized(self.client.delete(url)).send().await.unwrap();
        assert!(gone.status().is_success(), "{}", gone.status());
    }

    /// Pushes a manifest or index under a tag or digest.
    pub(crate) async fn push_manifest(&self, repository: &str, name: &str, bytes: &[u8]) {
        let document: Value = serde_json::from_slice(bytes).unwrap();
        let url = self.url(&format!("{repository}/manifests/{name}"));
        let request = self.authorized(self.client.put(url).body(bytes.to_vec()));
        let put = request.header(CONTENT_TYPE, document["mediaType"].as_str().unwrap()).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.status());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
