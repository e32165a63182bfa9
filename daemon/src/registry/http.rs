//! Requests to one endpoint: address, authorization, retries.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use roost_proto::model::ImageRef;
use roost_proto::support::REDACTED;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::credentials::Credential;
use super::error::RegistryError;
use super::guard::{self, Detour};
use super::host::Endpoint;
use super::route::Route;
use super::{advice, auth, retry};

/// Longest wait for the head of an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence within an answer.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for a small answer: slower than 40 KiB/s nothing is pulled.
const BODY_TIMEOUT: Duration = Duration::from_secs(100);
/// Longest time for the first words of an error's body.
const WORDS_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an error's body that are read for its first words.
const MAX_ERROR_BYTES: usize = 8 << 10;
/// Characters of an error's body that are quoted.
const MAX_QUOTED_CHARS: usize = 200;

/// What ended a try.
pub(super) type Cause = Box<dyn StdError + Send + Sync>;

/// No answer within the time allowed.
#[derive(Debug, thiserror::Error)]
#[error("no whole answer within {seconds} s")]
pub(super) struct Silence {
    /// How long.
    pub(super) seconds: u64,
}

/// One endpoint for one reference.
#[derive(Debug)]
pub(super) struct Api {
    route: Route,
    endpoint: Endpoint,
    reference: ImageRef,
    credential: Option<Credential>,
    /// Hosts besides its own that its credential may go to for a token.
    token_hosts: Vec<String>,
    attempts: u32,
    /// What the last 401 was answered with.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Api {
    pub(super) fn new(route: Route, endpoint: Endpoint, reference: ImageRef, credential: Option<Credential>) -> Self {
        let authorization = Mutex::default();
        Self { route, endpoint, reference, credential, token_hosts: Vec::new(), attempts: 1, authorization }
    }

    /// The same with more tries of each request.
    pub(super) fn with_attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// The same with hosts that its credential may go to for a token.
    pub(super) fn with_token_hosts(self, token_hosts: Vec<String>) -> Self {
        Self { token_hosts, ..self }
    }

    /// Host as configuration and people name it.
    pub(super) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// E.g. `https://registry.example`.
    pub(super) fn base(&self) -> &str {
        &self.endpoint.base
    }

    pub(super) fn repository(&self) -> &str {
        &self.endpoint.repository
    }

    pub(super) fn is_plain(&self) -> bool {
        self.endpoint.is_plain()
    }

    pub(super) fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    pub(super) fn token_hosts(&self) -> &[String] {
        &self.token_hosts
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Asks for `path` below the repository, from a byte on, as often as the
    /// configuration allows.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub(super) async fn get(&self, path: &str, accept: &str, offset: u64) -> Result<Response, RegistryError> {
        let url = self.url(path)?;
        self.route.guard.check(&url).map_err(|detour| self.unreachable(1, detour.into()))?;
        let mut attempt = 1;
        let mut is_answered = false;
        loop {
            let mut request = self.route.client.get(url.clone()).header(ACCEPT, accept);
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let authorization = self.authorization.lock().await.clone();
            if let Some(value) = authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let pause = match self.send(request).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                // Once for each call: the token may have expired since.
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !is_answered => {
                    is_answered = true;
                    self.require_own(&response, &url)?;
                    let answer = auth::answer(self, &response).await?.ok_or_else(|| self.refused())?;
                    *self.authorization.lock().await = Some(answer);
                    continue;
                }
                Ok(response) => {
                    let asked = asked_pause(&response);
                    let error = self.status_error(path, response).await;
                    let waits = asked.unwrap_or_default();
                    if !error.is_transient() || attempt >= self.attempts || waits > retry::LONGEST_RETRY_AFTER {
                        return Err(error);
                    }
                    asked
                }
                Err(source) if attempt >= self.attempts || advice::is_final(&*source) => {
                    return Err(self.unreachable(attempt, source));
                }
                Err(_) => None,
            };
            attempt += 1;
            let pause = pause.unwrap_or_else(|| retry::pause(attempt, rand::random()));
            tracing::debug!(host = self.host(), path, attempt, ?pause, "registry is asked again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Cause> {
        match timeout(HEAD_TIMEOUT, request.send()).await {
            // The URL of a redirect may carry a signature.
            Ok(answer) => answer.map_err(|error| error.without_url().into()),
            Err(_) => Err(Silence { seconds: HEAD_TIMEOUT.as_secs() }.into()),
        }
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let text = format!("{}/v2/{}/{path}", self.endpoint.base, self.endpoint.repository);
        let mut url: Url = text.parse().map_err(|_| self.wrong("its address is not usable"))?;
        if let Some(registry) = &self.endpoint.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    /// Only the registry itself is answered when it asks for a login: not a
    /// host that it redirects to, which would name a token service of its own.
    fn require_own(&self, response: &Response, asked: &Url) -> Result<(), RegistryError> {
        if response.url().origin() == asked.origin() {
            return Ok(());
        }
        let other = response.url().host_str().unwrap_or_default();
        Err(self.wrong(format!("it redirects to {other}, which asks for a login of its own")))
    }

    pub(super) async fn status_error(&self, path: &str, response: Response) -> RegistryError {
        let status = response.status();
        let asked = asked_pause(&response).filter(|asked| *asked > retry::LONGEST_RETRY_AFTER);
        let (host, reference) = (self.way(), self.reference.clone());
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, reference, object: object_of(path) },
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => self.unreachable(1, advice::LoginWanted.into()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized { host, reference },
            _ => {
                let problem = match asked {
                    Some(asked) => format!("it asks to wait {} s", asked.as_secs()),
                    None => self.without_secrets(&first_words(response).await),
                };
                RegistryError::Status { host, reference, status: status.as_u16(), problem }
            }
        }
    }

    /// An answer may quote what it was asked with.
    fn without_secrets(&self, words: &str) -> String {
        let secrets = self.credential.iter().flat_map(Credential::secrets);
        secrets.fold(words.to_owned(), |words, secret| words.replace(&secret, REDACTED))
    }

    /// The host, and the proxy whose answer it may be.
    fn way(&self) -> String {
        match &self.route.proxy {
            Some(proxy) => format!("{} (through proxy {proxy})", self.host()),
            None => self.host().to_owned(),
        }
    }

    /// No answer, or one that leads astray.
    pub(super) fn unreachable(&self, attempts: u32, source: Cause) -> RegistryError {
        let (host, reference) = (self.host().to_owned(), self.reference.clone());
        let advice = match guard::detour(&*source) {
            Some(Detour::Inside { host: inside }) if host.starts_with(inside.as_str()) => advice::NAME_IT.to_owned(),
            Some(detour) => return self.wrong(detour.to_string()),
            None => advice::advice(&host, self.route.proxy.as_deref(), &*source),
        };
        RegistryError::Unreachable { host, reference, attempts, advice, source }
    }

    pub(super) fn refused(&self) -> RegistryError {
        RegistryError::Unauthorized { host: self.way(), reference: self.reference.clone() }
    }

    pub(super) fn wrong(&self, problem: impl Into<String>) -> RegistryError {
        let (host, reference) = (self.way(), self.reference.clone());
        RegistryError::Answer { host, reference, problem: problem.into() }
    }
}

fn asked_pause(response: &Response) -> Option<Duration> {
    let header = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    retry::retry_after(header, Timestamp::now()).filter(|_| retry::is_transient(response.status().as_u16()))
}

fn object_of(path: &str) -> String {
    match path.split_once('/') {
        Some(("blobs", digest)) => format!("blob {digest}"),
        Some((_, name)) => format!("manifest \"{name}\""),
        None => path.to_owned(),
    }
}

/// The beginning of an error's body, in one line.
async fn first_words(mut response: Response) -> String {
    let mut bytes = BytesMut::new();
    let reading = async {
        while bytes.len() < MAX_ERROR_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            bytes.extend_from_slice(&chunk);
        }
    };
    // What came until then is enough.
    let _ = timeout(WORDS_TIMEOUT, reading).await;
    bytes.truncate(MAX_ERROR_BYTES);
    let text = String::from_utf8_lossy(&bytes);
    let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_QUOTED_CHARS).collect();
    if words.is_empty() { "without a reason".into() } else { words }
}

/// Reads a small answer whole.
///
/// # Errors
/// It is larger than `max_bytes`, the connection breaks, or it comes too
/// slowly.
pub(super) async fn read_body(api: &Api, mut response: Response, max_bytes: usize) -> Result<Bytes, RegistryError> {
    let reading = async {
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await.map_err(|error| api.unreachable(1, error.without_url().into()))? {
                Some(chunk) if body.len() + chunk.len() > max_bytes => {
                    return Err(api.wrong(format!("a document of more than {max_bytes} bytes")));
                }
                Some(chunk) => body.extend_from_slice(&chunk),
                None => return Ok(body.freeze()),
            }
        }
    };
    let silence = || Silence { seconds: BODY_TIMEOUT.as_secs() };
    timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(|_| Err(api.unreachable(1, silence().into())))
}
