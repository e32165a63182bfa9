//! A WebSocket over the same connections as everything else.
//!
//! The upgrade is an ordinary request, so that a refusal arrives as a whole
//! problem document.

use http::{HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Call, Client, ClientError};

/// Largest message, in bytes: the server sends a pipe's worth at a time.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Client {
    /// Opens a WebSocket that speaks `protocol`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn socket(&self, call: Call, protocol: &'static str) -> Result<Socket, ClientError> {
        let key = generate_key();
        let broken = |problem| ClientError::broken(call.to_string(), problem);
        let key_value = HeaderValue::from_str(&key).map_err(|_| broken("the WebSocket key is no header"))?;
        let call = call
            .clone()
            .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol))
            .header(header::SEC_WEBSOCKET_KEY, key_value);
        let request = self.request(&call)?;
        let response = self.in_time(self.open(request, &call), &call).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken("the server did not switch to WebSocket"));
        }
        let is = |name: header::HeaderName, value: &str| {
            response.headers().get(name).is_some_and(|given| given.as_bytes() == value.as_bytes())
        };
        if !is(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes())) {
            return Err(broken("the server's WebSocket handshake is wrong"));
        }
        if !is(header::SEC_WEBSOCKET_PROTOCOL, protocol) {
            return Err(broken("the server does not speak the stream protocol of this version"));
        }
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded =
            upgraded.map_err(|error| ClientError::Broken { what: call.to_string(), source: error.into() })?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await)
    }
}
