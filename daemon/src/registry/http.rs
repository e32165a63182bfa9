//! Requests to one endpoint: address, authorization, retries.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Certificate, Client, NoProxy, Proxy, RequestBuilder, Response, StatusCode, Url};
use roost_proto::model::ImageRef;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::credentials::{Credential, Credentials};
use super::error::RegistryError;
use super::host::Endpoint;
use super::{auth, retry};
use crate::config::ProxyConfig;

/// Longest time for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence within an answer.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an error's body that are read for its first words.
const MAX_ERROR_BYTES: usize = 8 << 10;
/// Characters of an error's body that are quoted.
const MAX_QUOTED_CHARS: usize = 200;

/// What ended a try.
pub(super) type Cause = Box<dyn StdError + Send + Sync>;

/// No answer within the time allowed.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {seconds} s")]
pub(super) struct Silence {
    /// How long.
    pub(super) seconds: u64,
}

/// One endpoint for one reference.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    endpoint: Endpoint,
    reference: ImageRef,
    credential: Option<Credential>,
    attempts: u32,
    /// What the last 401 was answered with.
    authorization: Mutex<Option<HeaderValue>>,
}

/// Makes the connection pool of one host.
///
/// # Errors
/// The certificates or the proxy cannot be used.
pub(super) fn client(
    endpoint: &Endpoint,
    ca: Option<&[u8]>,
    proxy: &ProxyConfig,
    credentials: &Credentials,
) -> Result<Client, RegistryError> {
    let wrong = |source: reqwest::Error| RegistryError::File {
        path: format!("the TLS or proxy settings of {}", endpoint.host).into(),
        source: Box::new(source),
    };
    let mut builder = Client::builder()
        .user_agent(concat!("roostd/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy();
    let no_proxy = NoProxy::from_string(&proxy.no_proxy.join(","));
    for (url, is_tls) in [(&proxy.http, false), (&proxy.https, true)] {
        let Some(url) = url else { continue };
        let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host.trim_end_matches('/'));
        let mut proxy = if is_tls { Proxy::https(url) } else { Proxy::http(url) }.map_err(wrong)?;
        if let Some(Credential::Password { username, password }) = credentials.of_host(host) {
            proxy = proxy.basic_auth(username, password);
        }
        builder = builder.proxy(proxy.no_proxy(no_proxy.clone()));
    }
    if endpoint.is_plain() {
        // No root certificates are needed, and a machine may have none.
        builder = builder.tls_certs_only([]);
    } else if let Some(ca) = ca {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(ca).map_err(wrong)?);
    }
    builder.build().map_err(wrong)
}

impl Api {
    pub(super) fn new(
        client: Client,
        endpoint: Endpoint,
        reference: ImageRef,
        credential: Option<Credential>,
        attempts: u32,
    ) -> Self {
        Self { client, endpoint, reference, credential, attempts, authorization: Mutex::default() }
    }

    /// Host as configuration and people name it.
    pub(super) fn host(&self) -> &str {
        &self.endpoint.host
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

    pub(super) fn http(&self) -> &Client {
        &self.client
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
        let mut attempt = 1;
        let mut is_answered = false;
        loop {
            let mut request = self.client.get(url.clone()).header(ACCEPT, accept);
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
                Err(source) if attempt >= self.attempts => return Err(self.unreachable(attempt, source)),
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

    async fn status_error(&self, path: &str, response: Response) -> RegistryError {
        let status = response.status();
        let asked = asked_pause(&response).filter(|asked| *asked > retry::LONGEST_RETRY_AFTER);
        let (host, reference) = (self.host().to_owned(), self.reference.clone());
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, reference, object: object_of(path) },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Unauthorized { host, reference },
            _ => {
                let problem = match asked {
                    Some(asked) => format!("it asks to wait {} s", asked.as_secs()),
                    None => first_words(response).await,
                };
                RegistryError::Status { host, reference, status: status.as_u16(), problem }
            }
        }
    }

    pub(super) fn unreachable(&self, attempts: u32, source: Cause) -> RegistryError {
        RegistryError::Unreachable { host: self.host().to_owned(), reference: self.reference.clone(), attempts, source }
    }

    pub(super) fn refused(&self) -> RegistryError {
        RegistryError::Unauthorized { host: self.host().to_owned(), reference: self.reference.clone() }
    }

    pub(super) fn wrong(&self, problem: impl Into<String>) -> RegistryError {
        let (host, reference) = (self.host().to_owned(), self.reference.clone());
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
    while bytes.len() < MAX_ERROR_BYTES
        && let Ok(Ok(Some(chunk))) = timeout(SILENCE_TIMEOUT, response.chunk()).await
    {
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&bytes);
    let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_QUOTED_CHARS).collect();
    if words.is_empty() { "without a reason".into() } else { words }
}

/// Reads a small answer whole.
///
/// # Errors
/// It is larger than `max_bytes`, or the connection breaks.
pub(super) async fn read_body(api: &Api, mut response: Response, max_bytes: usize) -> Result<Bytes, RegistryError> {
    let mut body = BytesMut::new();
    loop {
        let silence = || Silence { seconds: SILENCE_TIMEOUT.as_secs() };
        let chunk = timeout(SILENCE_TIMEOUT, response.chunk()).await;
        let chunk = chunk.map_err(|_| api.unreachable(1, silence().into()))?;
        match chunk.map_err(|error| api.unreachable(1, error.without_url().into()))? {
            Some(chunk) if body.len() + chunk.len() > max_bytes => {
                return Err(api.wrong(format!("a document of more than {max_bytes} bytes")));
            }
            Some(chunk) => body.extend_from_slice(&chunk),
            None => return Ok(body.freeze()),
        }
    }
}
