//! Changes of sandboxes as they happen, across broken connections.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use roost_proto::id::SandboxId;
use roost_proto::model::Sandbox;
use serde::Deserialize;

use super::lines::Lines;
use super::sse::{Assembler, Event};
use super::{Call, Client, ClientError};

/// Silence after which the connection counts as dead: three of the server's
/// keep-alive comments are missing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// First wait before a new connection; doubles up to [`MAX_DELAY`].
const MIN_DELAY: Duration = Duration::from_millis(200);
/// Longest wait before a new connection.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// A connection stands, or begins anew: what happened before it may have
    /// been missed.
    Connected,
    /// A sandbox as it is now.
    Sandbox(Box<Sandbox>),
    /// A sandbox that is no more.
    Gone(SandboxId),
    /// The connection is lost and is being remade.
    Lost(ClientError),
}

#[derive(Debug, Deserialize)]
struct GoneData {
    id: SandboxId,
}

/// A watch that reconnects and resumes by itself.
#[derive(Debug)]
pub(crate) struct Watch {
    client: Client,
    sandbox: Option<String>,
    lines: Option<Lines>,
    assembler: Assembler,
    delay: Duration,
    was_connected: bool,
}

impl Watch {
    /// Watches one sandbox (by id or name), or all.
    pub(crate) fn new(client: Client, sandbox: Option<String>) -> Self {
        Self { client, sandbox, lines: None, assembler: Assembler::default(), delay: MIN_DELAY, was_connected: false }
    }

    /// The next event. Cancel-safe: a connection that is being made is given
    /// up, everything received is kept.
    ///
    /// # Errors
    /// The first connection fails, or the server refuses for good.
    pub(crate) async fn next(&mut self) -> Result<WatchEvent, ClientError> {
        loop {
            let Some(lines) = &mut self.lines else { return self.connect().await };
            let line = match tokio::time::timeout(IDLE_TIMEOUT, lines.next()).await {
                Ok(Some(Ok(line))) => line,
                Ok(Some(Err(error))) => return Ok(self.lost(error.into())),
                Ok(None) => return Ok(self.lost("the server ended the stream".into())),
                Err(_) => return Ok(self.lost("the server fell silent".into())),
            };
            if let Some(event) = self.assembler.line(&line)
                && let Some(event) = decode(&event)?
            {
                // Only what arrives shows that the server works again.
                self.delay = MIN_DELAY;
                return Ok(event);
            }
        }
    }

    fn lost(&mut self, source: super::error::Source) -> WatchEvent {
        self.lines = None;
        WatchEvent::Lost(ClientError::Broken { what: self.call().to_string(), source })
    }

    async fn connect(&mut self) -> Result<WatchEvent, ClientError> {
        if self.was_connected {
            tokio::time::sleep(self.delay).await;
            self.delay = (self.delay * 2).min(MAX_DELAY);
        }
        self.assembler.reconnect();
        match self.client.stream(&self.call()).await {
            Ok(body) => {
                self.lines = Some(Lines::new(body));
                self.was_connected = true;
                Ok(WatchEvent::Connected)
            }
            Err(error) if self.was_connected && error.is_transient() => Ok(WatchEvent::Lost(error)),
            // The server no longer knows the position: begin anew.
            Err(error) if self.assembler.last_id().is_some() && !error.is_not_found() => {
                self.assembler.restart();
                Ok(WatchEvent::Lost(error))
            }
            Err(error) => Err(error),
        }
    }

    fn call(&self) -> Call {
        let call = Call::get("/watch/sandboxes").query_option("sandbox", self.sandbox.as_deref());
        let call = call.header(http::header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        match self.assembler.last_id().and_then(|id| HeaderValue::from_str(id).ok()) {
            Some(id) => call.header(HeaderName::from_static("last-event-id"), id),
            None => call,
        }
    }
}

fn decode(event: &Event) -> Result<Option<WatchEvent>, ClientError> {
    let unreadable = |source| ClientError::Unreadable { what: "GET /api/v1/watch/sandboxes".into(), source };
    match event.kind.as_str() {
        "sandbox" => {
            let sandbox = serde_json::from_str(&event.data).map_err(unreadable)?;
            Ok(Some(WatchEvent::Sandbox(Box::new(sandbox))))
        }
        "gone" => {
            let gone: GoneData = serde_json::from_str(&event.data).map_err(unreadable)?;
            Ok(Some(WatchEvent::Gone(gone.id)))
        }
        // The server could not resume: what it now tells is only what is there.
        "reset" => Ok(Some(WatchEvent::Connected)),
        // A later server may tell more kinds of things.
        _ => Ok(None),
    }
}
