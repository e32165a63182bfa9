//! The opening of an X connection.
//!
//! Done here and not by x11rb-async 0.14, whose handshake waits for ever when
//! the first eight bytes of the server's greeting arrive by themselves: it
//! then counts the rest twice.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use x11rb::errors::ParseError;
use x11rb::protocol::xproto::{Setup, SetupAuthenticate, SetupFailed, SetupRequest};
use x11rb::x11_utils::{Serialize, TryParse};

use super::XError;
use crate::display::cookie::{Cookie, PROTOCOL};

/// How the greeting begins when the client is let in.
const SUCCESS: u8 = 1;
/// How it begins when it is not.
const FAILED: u8 = 0;
/// Bytes up to and with the length of the rest, in words of four bytes.
const HEAD_BYTES: usize = 8;

/// Shows the cookie and reads the greeting; at most 256 KiB.
///
/// # Errors
/// [`XError::Refused`], [`XError::Handshake`] or [`XError::Lost`].
pub(super) async fn greet(socket: &mut UnixStream, cookie: &Cookie) -> Result<Setup, XError> {
    let greeting = exchange(socket, cookie).await.map_err(|error| XError::Lost(error.into()))?;
    match greeting.first() {
        Some(&SUCCESS) => Ok(parse::<Setup>(&greeting)?),
        Some(&FAILED) => Err(refused(&parse::<SetupFailed>(&greeting)?.reason)),
        _ => Err(refused(&parse::<SetupAuthenticate>(&greeting)?.reason)),
    }
}

async fn exchange(socket: &mut UnixStream, cookie: &Cookie) -> std::io::Result<Vec<u8>> {
    let request = SetupRequest {
        byte_order: if cfg!(target_endian = "big") { b'B' } else { b'l' },
        protocol_major_version: 11,
        protocol_minor_version: 0,
        authorization_protocol_name: PROTOCOL.into(),
        authorization_protocol_data: cookie.as_bytes().to_vec(),
    };
    socket.write_all(&request.serialize()).await?;
    let mut greeting = vec![0; HEAD_BYTES];
    socket.read_exact(&mut greeting).await?;
    let rest_words = u16::from_ne_bytes([greeting[6], greeting[7]]);
    greeting.resize(HEAD_BYTES + 4 * usize::from(rest_words), 0);
    socket.read_exact(&mut greeting[HEAD_BYTES..]).await?;
    Ok(greeting)
}

fn parse<T: TryParse>(greeting: &[u8]) -> Result<T, XError> {
    T::try_parse(greeting).map(|(parsed, _rest)| parsed).map_err(|error: ParseError| XError::Handshake(error))
}

fn refused(reason: &[u8]) -> XError {
    XError::Refused { reason: String::from_utf8_lossy(reason).trim_matches(['\0', '\n', ' ']).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server that answers with `pieces` makes of the handshake.
    async fn greeted_by(pieces: &[&[u8]]) -> Result<Setup, XError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let cookie = Cookie::random();
        let server = async {
            let mut request = [0; 48];
            theirs.read_exact(&mut request).await.unwrap();
            for piece in pieces {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(theirs);
        };
        tokio::join!(greet(&mut ours, &cookie), server).0
    }

    #[tokio::test]
    async fn a_refusal_is_understood_even_when_its_head_comes_alone() {
        let mut head = vec![FAILED, 7, 11, 0, 0, 0];
        head.extend(2u16.to_ne_bytes());
        let error = greeted_by(&[&head, b"not you\0"]).await.unwrap_err();
        assert!(matches!(&error, XError::Refused { reason } if reason == "not you"), "{error}");
    }

    #[tokio::test]
    async fn garbage_and_silence_are_errors() {
        let error = greeted_by(&[&[SUCCESS, 0, 11, 0, 0, 0, 0, 0]]).await.unwrap_err();
        assert!(matches!(error, XError::Handshake(_)), "{error}");
        let error = greeted_by(&[]).await.unwrap_err();
        assert!(matches!(error, XError::Lost(_)), "{error}");
    }
}
