//! A small client of central's REST API, one connection each.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use roost_proto::id::ClaimId;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Result;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One connection to central as its admin.
#[derive(Debug)]
pub struct Rest {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    /// Idempotency key of the next call.
    key: Option<String>,
}

/// A watch of one sandbox: an endless answer.
#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    text: String,
}

impl Rest {
    /// Connects to the API on a port of this machine.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(port: u16, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, token: token.trim().to_owned(), key: None })
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<http::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "central")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if let Some(key) = &self.key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::from(body.map(Value::to_string).unwrap_or_default()))?;
        self.sender.ready().await?;
        Ok(tokio::time::timeout(LIMIT, self.sender.send_request(request)).await??)
    }

    /// One call; the status and the JSON of its answer, null without one.
    ///
    /// # Errors
    /// When there is no answer, or one that is no JSON.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        Ok((status, value))
    }

    /// The bytes of an answer that must succeed.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn bytes(&mut self, path: &str) -> Result<Bytes> {
        let answer = self.send(Method::GET, path, None).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(format!("GET {path}: {status}").into()) }
    }

    /// A call that must succeed.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn good(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, value) = self.call(method.clone(), path, body).await?;
        if status.is_success() { Ok(value) } else { Err(format!("{method} {path}: {status}: {value}").into()) }
    }

    /// Claims a desktop, with the claim's id as idempotency key; the status and
    /// the JSON of the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn claim(&mut self, id: &ClaimId, body: &Value) -> Result<(StatusCode, Value)> {
        self.key = Some(id.to_string());
        let answer = self.call(Method::POST, "/api/v1/claims", Some(body)).await;
        self.key = None;
        answer
    }

    /// Reads a list whole, page by page.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn list(&mut self, path: &str) -> Result<Vec<Value>> {
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}?page_size=500{token}");
            let mut answer = self.good(Method::GET, &page, None).await?;
            items.append(answer["items"].as_array_mut().ok_or("a list without items")?);
            match answer["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => return Ok(items),
            }
        }
    }

    /// Watches one sandbox; the connection serves nothing else from now on.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn watch(mut self, sandbox: &str) -> Result<Watch> {
        let answer = self.send(Method::GET, &format!("/api/v1/watch/sandboxes?sandbox={sandbox}"), None).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("watch of {sandbox}: {status}").into());
        }
        Ok(Watch { body: answer.into_body(), text: String::new() })
    }
}

impl Watch {
    /// The next event's data.
    ///
    /// # Errors
    /// When the answer ends.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(serde_json::from_str);
                self.text = rest.to_owned();
                if let Some(data) = data {
                    return Ok(data?);
                }
                continue;
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame()).await?.ok_or("the watch ended")??;
            if let Ok(data) = frame.into_data() {
                self.text.push_str(std::str::from_utf8(&data)?);
            }
        }
    }

    /// Waits until the sandbox is in a phase.
    ///
    /// # Errors
    /// When the watch ends before.
    pub async fn until(&mut self, phase: &str) -> Result<Value> {
        loop {
            let event = self.next().await?;
            if event["observed"]["phase"] == phase {
                return Ok(event);
            }
        }
    }
}
