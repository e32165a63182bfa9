//! Pulls through a real proxy, `tinyproxy`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use roostd::config::{ImagesConfig, ProxyConfig, RegistryConfig};

use crate::image;
use crate::private_containerd::{PrivateContainerd, wait_for};
use crate::pulls::{config, credentials, entry, pull, puller, told};
use crate::server::{Demands, Registry};

const USER: (&str, &str) = ("node", "proxy-password");

/// `tinyproxy` under a temporary directory.
struct Tinyproxy {
    process: Child,
    directory: tempfile::TempDir,
    host: String,
}

impl Tinyproxy {
    /// With further lines of its configuration.
    async fn start(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (path, log) = (directory.path().join("conf"), directory.path().join("log"));
        let config = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nLogLevel Connect\nLogFile \"{}\"\n{lines}\n",
            address.port(),
            log.display(),
        );
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("these tests need Debian's package tinyproxy-bin");
        let started = Self { process, directory, host: address.to_string() };
        wait_for("the proxy to listen", async || std::net::TcpStream::connect(address).is_ok()).await;
        started
    }

    /// Only for who knows the password.
    async fn with_login() -> Self {
        Self::start(&format!("BasicAuth {} {}", USER.0, USER.1)).await
    }

    /// Requests that came, by their beginning.
    fn seen(&self, request: &str) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        log.lines().filter(|line| line.contains("Request") && line.contains(request)).count()
    }

    fn config(&self) -> ProxyConfig {
        let url = Some(format!("http://{}", self.host));
        ProxyConfig { http: url.clone(), https: url, no_proxy: Vec::new() }
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A registry by plain HTTP and one by TLS, both with an image.
async fn registries() -> [Registry; 2] {
    let plain = Registry::start().await;
    plain.push(&image(), "app", "1").await;
    let secure = plain.again(Demands { tls: true, ..Demands::default() }).await;
    [plain, secure]
}

fn through(proxy: ProxyConfig, [plain, secure]: &[Registry; 2]) -> ImagesConfig {
    let mut config = config(&[&plain.host]);
    let entry = entry(&secure.host, &[]);
    config.registries.push(RegistryConfig { insecure: false, ca_file: Some(secure.ca_file()), ..entry });
    ImagesConfig { proxy, ..config }
}

#[tokio::test]
async fn pulls_go_through_the_proxy_with_and_without_tls() {
    let (containerd, registries) = (PrivateContainerd::start().await, registries().await);
    let proxy = Tinyproxy::start("").await;
    let puller = puller(&containerd, through(proxy.config(), &registries));
    pull(&puller, &registries[0].reference("app:1")).await.unwrap();
    assert!(proxy.seen(&format!("GET http://{}/v2/app/", registries[0].host)) >= 4, "manifest, configuration, layers");
    let before = proxy.seen("");
    let other = PrivateContainerd::start().await;
    let puller = crate::pulls::puller(&other, through(proxy.config(), &registries));
    pull(&puller, &registries[1].reference("app:1")).await.unwrap();
    assert!(proxy.seen(&format!("CONNECT {}", registries[1].host)) >= 1);
    assert_eq!(proxy.seen("GET"), before, "TLS goes through the tunnel alone");
    assert_eq!(other.unpacked("hello"), [b"one"]);
}

#[tokio::test]
async fn a_host_that_no_proxy_names_is_asked_directly() {
    let (containerd, registries) = (PrivateContainerd::start().await, registries().await);
    let proxy = Tinyproxy::start("").await;
    let direct = ProxyConfig { no_proxy: vec!["localhost".into()], ..proxy.config() };
    let puller = puller(&containerd, through(direct, &registries));
    for registry in &registries {
        pull(&puller, &registry.reference("app:1")).await.unwrap();
    }
    assert_eq!(proxy.seen(""), 0);
}

#[tokio::test]
async fn a_proxy_that_wants_a_login_gets_its_own_and_says_so_until_it_has_it() {
    let (containerd, registries) = (PrivateContainerd::start().await, registries().await);
    let proxy = Tinyproxy::with_login().await;
    let file = credentials(&[]);
    let with = through(proxy.config(), &registries);
    let puller = puller(&containerd, ImagesConfig { credentials_file: Some(file.path().to_owned()), ..with });
    let write = |password: &str| {
        let other = credentials(&[(&proxy.host, USER.0, password)]);
        std::fs::copy(other.path(), file.path()).unwrap();
    };
    for attempt in ["none", "wrong"] {
        if attempt == "wrong" {
            write("wrong-password");
        }
        for registry in &registries {
            let before = proxy.seen("");
            let error = pull(&puller, &registry.reference("app:1")).await.unwrap_err();
            let text = told(&error);
            assert!(text.contains(&proxy.host) && text.contains("images.credentials_file"), "{text}");
            assert!(!text.contains("wrong-password"), "{text}");
            if attempt == "none" {
                assert!(text.contains(&format!("[registry.\"{}\"]", proxy.host)), "{text}");
                assert!(proxy.seen("") - before <= 1, "a login that is not there does not come by itself");
            }
        }
    }
    write(USER.1);
    for registry in &registries {
        pull(&puller, &registry.reference("app:1")).await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_away_is_named_with_what_to_do() {
    let (containerd, registries) = (PrivateContainerd::start().await, registries().await);
    // Tunnels go to no port but this; behind it, and where the plain requests
    // go, nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = Tinyproxy::start(&format!("ConnectPort {closed}")).await;
    let mut strict = through(proxy.config(), &registries);
    strict.attempts = 1;
    strict.registries.push(entry(&format!("localhost:{closed}"), &[]));
    let asked = puller(&containerd, strict.clone());
    let text = told(&pull(&asked, &registries[1].reference("app:1")).await.unwrap_err());
    assert!(text.contains(&proxy.host) && text.contains("images.proxy.no_proxy"), "{text}");
    let text = told(&pull(&asked, &format!("localhost:{closed}/app:1")).await.unwrap_err());
    assert!(text.contains(&format!("through proxy {}", proxy.host)), "{text}");

    let host = proxy.host.clone();
    drop(proxy);
    let away = puller(&containerd, strict);
    for registry in &registries {
        let text = told(&pull(&away, &registry.reference("app:1")).await.unwrap_err());
        assert!(text.contains(&format!("through proxy {host}")) && text.contains("images.proxy"), "{text}");
    }
}
