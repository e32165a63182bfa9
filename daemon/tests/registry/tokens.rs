//! Tokens: a real registry verifies what a token service of the test signs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use roostd::config::{ImagesConfig, ProxyConfig, RegistryConfig};
use roostd::containerd::image::ImageError;
use roostd::registry::RegistryError;
use serde_json::{Value, json};

use crate::private_containerd::PrivateContainerd;
use crate::proxy::{Fault, Proxy};
use crate::pulls::{config, credentials, entry, pull, puller, registry_error};
use crate::server::{Demands, Registry};
use crate::{blob, image};

const SERVICE: &str = "registry of the test";
const ISSUER: &str = "tokens of the test";
/// How long after its end the registry still accepts a token, in seconds.
const LEEWAY_S: i64 = 60;

/// A request for a token.
#[derive(Debug, Clone)]
struct Asked {
    scope: String,
    service: String,
    authorization: Option<String>,
}

#[derive(Debug)]
struct Script {
    asked: Vec<Asked>,
    /// Status of the next answers, and how many; then tokens.
    refusals: (u16, usize),
    /// Repository that tokens are for; the one that was asked for if absent.
    repository: Option<String>,
    /// Seconds until the registry no longer accepts the tokens.
    lifetime_s: i64,
}

/// The service.
#[derive(Clone)]
struct Tokens {
    script: Arc<Mutex<Script>>,
    pkcs8: Arc<Vec<u8>>,
    certificate: Arc<Vec<u8>>,
    directory: Arc<tempfile::TempDir>,
    port: u16,
}

impl Tokens {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = rcgen::generate_simple_self_signed(vec!["tokens".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tokens.pem"), key.cert.pem()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = Script { asked: Vec::new(), refusals: (0, 0), repository: None, lifetime_s: 300 };
        let tokens = Self {
            script: Arc::new(Mutex::new(script)),
            pkcs8: Arc::new(key.signing_key.serialize_der()),
            certificate: Arc::new(key.cert.der().to_vec()),
            directory: Arc::new(directory),
            port: listener.local_addr().unwrap().port(),
        };
        let router = Router::new().fallback(answer).with_state(tokens.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        tokens
    }

    fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("tokens.pem")
    }

    /// What a registry must be told to send its clients here, by this name of
    /// the host.
    fn demands(&self, host: &str) -> Demands {
        let token = json!({
            "realm": format!("http://{host}:{}/token", self.port),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": self.certificate_file(),
        });
        Demands { token: Some(token), ..Demands::default() }
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        self.script().asked.clone()
    }

    /// A token that the registry verifies by the certificate.
    fn sign(&self, repository: &str, lifetime_s: i64) -> String {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let access = json!([{ "type": "repository", "name": repository, "actions": ["pull"] }]);
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&*self.certificate)] });
        let claims = json!({
            "iss": ISSUER, "sub": "node", "aud": SERVICE, "jti": format!("{}", rand::random::<u64>()),
            "nbf": now - 600, "iat": now - 600, "exp": now + lifetime_s - LEEWAY_S, "access": access,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8, &random).unwrap();
        let signature = key.sign(&random, text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

async fn answer(State(tokens): State<Tokens>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let query = query.unwrap_or_default();
    let of = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let mut script = tokens.script();
    script.asked.push(Asked { scope: of("scope"), service: of("service"), authorization });
    if script.refusals.1 > 0 {
        script.refusals.1 -= 1;
        return (StatusCode::from_u16(script.refusals.0).unwrap(), "told to").into_response();
    }
    let asked = of("scope").split(':').nth(1).unwrap_or_default().to_owned();
    let (repository, lifetime_s) = (script.repository.clone().unwrap_or(asked), script.lifetime_s);
    drop(script);
    axum::Json(json!({ "token": tokens.sign(&repository, lifetime_s), "expires_in": 300 })).into_response()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A registry with an image, and the same behind tokens.
async fn guarded(tokens: &Tokens, realm_host: &str) -> Registry {
    let open = Registry::start().await;
    open.push(&image(), "team/app", "1").await;
    open.again(tokens.demands(realm_host)).await
}

fn with(file: &tempfile::NamedTempFile, config: ImagesConfig) -> ImagesConfig {
    ImagesConfig { credentials_file: Some(file.path().to_owned()), ..config }
}

#[tokio::test]
async fn a_token_is_asked_for_one_repository_and_once() {
    let (containerd, tokens) = (PrivateContainerd::start().await, Tokens::start().await);
    let registry = guarded(&tokens, "localhost").await;
    let file = credentials(&[(&registry.host, "node", "secret")]);
    let puller = puller(&containerd, with(&file, config(&[&registry.host])));
    pull(&puller, &registry.reference("team/app:1")).await.unwrap();
    let asked = tokens.asked();
    assert!(!asked.is_empty());
    for asked in &asked {
        assert_eq!((&*asked.scope, &*asked.service), ("repository:team/app:pull", SERVICE));
        assert_eq!(asked.authorization, Some(basic("node", "secret")));
    }
    assert_eq!(asked.len(), 1, "one token is enough for manifest, configuration and layers");
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_layer_is_replaced_and_the_layer_gone_on_with() {
    let (containerd, tokens) = (PrivateContainerd::start().await, Tokens::start().await);
    let registry = guarded(&tokens, "localhost").await;
    let proxy = Proxy::start(&registry).await;
    let large = blob(&image(), 0);
    tokens.script().lifetime_s = 10;
    proxy.fail(&large, Fault::CutLate(1 << 20, Duration::from_secs(12)), 1);
    pull(&puller(&containerd, config(&[&proxy.host])), &format!("{}/team/app:1", proxy.host)).await.unwrap();
    let seen: Vec<_> = proxy.seen(&large).iter().map(|seen| seen.offset).collect();
    assert!(tokens.asked().len() >= 2, "{:?}", tokens.asked());
    assert!(seen.len() >= 3 && seen[1..].iter().all(|offset| *offset > 0), "{seen:?}");
    assert_eq!(containerd.unpacked("hello"), [b"one"]);
}

#[tokio::test]
async fn a_refused_token_and_a_token_for_something_else_are_told_as_what_they_are() {
    let (containerd, tokens) = (PrivateContainerd::start().await, Tokens::start().await);
    let registry = guarded(&tokens, "localhost").await;
    let puller = puller(&containerd, config(&[&registry.host]));
    let reference = registry.reference("team/app:1");
    tokens.script().refusals = (401, 1);
    let refused = pull(&puller, &reference).await.unwrap_err();
    assert!(matches!(registry_error(&refused), RegistryError::Unauthorized { .. }), "{refused}");
    tokens.script().repository = Some("another/app".into());
    let another = pull(&puller, &reference).await.unwrap_err();
    assert!(matches!(registry_error(&another), RegistryError::Unauthorized { .. }), "{another}");
    tokens.script().repository = None;
    tokens.script().refusals = (503, 9);
    let down = pull(&puller, &reference).await.unwrap_err();
    assert!(matches!(registry_error(&down), RegistryError::Status { status: 503, .. }), "{down}");
    tokens.script().refusals = (503, 1);
    pull(&puller, &reference).await.unwrap();
}

#[tokio::test]
async fn credentials_go_to_a_token_service_elsewhere_only_where_the_configuration_says_so() {
    let (containerd, tokens) = (PrivateContainerd::start().await, Tokens::start().await);
    // To the node, 127.0.0.1 is another host than localhost.
    let registry = guarded(&tokens, "127.0.0.1").await;
    let file = credentials(&[(&registry.host, "node", "secret")]);
    let reference = registry.reference("team/app:1");
    // A host that the configuration names as a proxy may be asked, and yet
    // has no business with the credentials.
    let https = Some("http://127.0.0.1:9".into());
    let named = ImagesConfig { proxy: ProxyConfig { https, ..ProxyConfig::default() }, ..config(&[&registry.host]) };
    let error = pull(&puller(&containerd, with(&file, named)), &reference).await.unwrap_err();
    assert!(error.to_string().contains("add that to token_hosts"), "{error}");
    let inside = pull(&puller(&containerd, config(&[&registry.host])), &reference).await.unwrap_err();
    assert!(inside.to_string().contains("only this machine reaches"), "{inside}");
    assert_eq!(tokens.asked().len(), 0, "{:?}", tokens.asked());

    let entry = RegistryConfig { token_hosts: vec!["127.0.0.1".into()], ..entry(&registry.host, &[]) };
    let trusted = ImagesConfig { registries: vec![entry], ..ImagesConfig::default() };
    pull(&puller(&containerd, with(&file, trusted)), &reference).await.unwrap();
    assert_eq!(tokens.asked()[0].authorization, Some(basic("node", "secret")));
}

#[tokio::test]
async fn a_mirror_and_its_registry_each_see_their_own_credentials_alone() {
    let containerd = PrivateContainerd::start().await;
    let (of_registry, of_mirror) = (Tokens::start().await, Tokens::start().await);
    let registry = guarded(&of_registry, "localhost").await;
    let mirror = Registry::start().await.again(of_mirror.demands("localhost")).await;
    let file = credentials(&[(&registry.host, "node", "of the registry"), (&mirror.host, "node", "of the mirror")]);
    let mut mirrored = config(&[&mirror.host]);
    mirrored.registries.push(entry(&registry.host, &[&mirror.host]));
    pull(&puller(&containerd, with(&file, mirrored)), &registry.reference("team/app:1")).await.unwrap();
    for (tokens, password) in [(of_registry, "of the registry"), (of_mirror, "of the mirror")] {
        let seen: Vec<_> = tokens.asked().into_iter().map(|asked| asked.authorization).collect();
        assert!(!seen.is_empty() && seen.iter().all(|seen| *seen == Some(basic("node", password))), "{seen:?}");
    }
}

#[tokio::test]
async fn a_registry_with_tls_cannot_send_its_clients_to_a_token_service_without() {
    let (containerd, tokens) = (PrivateContainerd::start().await, Tokens::start().await);
    let registry = Registry::demanding(Demands { tls: true, ..tokens.demands("localhost") }).await;
    let file = credentials(&[(&registry.host, "node", "secret")]);
    let entry = RegistryConfig { insecure: false, ca_file: Some(registry.ca_file()), ..entry(&registry.host, &[]) };
    let secure = ImagesConfig { registries: vec![entry], ..ImagesConfig::default() };
    let error = pull(&puller(&containerd, with(&file, secure)), &registry.reference("app:1")).await.unwrap_err();
    assert!(matches!(&*error, ImageError::Registry(_)) && error.to_string().contains("without TLS"), "{error}");
    assert_eq!(tokens.asked().len(), 0);
}
