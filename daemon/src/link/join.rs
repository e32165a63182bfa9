//! The join string: what an operator copies from central to a new node.

use std::fmt;
use std::str::FromStr;

/// Begin of every join token.
const TOKEN_PREFIX: &str = "rjt_";
/// Longest token that is accepted; central makes far shorter ones.
const TOKEN_MAX_BYTES: usize = 256;

/// `rjt_<random>.<fingerprint>`: a token that central takes once, and the
/// SHA-256 of the certificate that it must prove itself with.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinString {
    token: String,
    ca_sha256: [u8; 32],
}

impl fmt::Debug for JoinString {
    /// Without the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinString").finish_non_exhaustive()
    }
}

/// Why a text is no join string. The text itself is a secret and not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseJoinStringError {
    /// The token part is missing or of another kind.
    #[error("a join string begins with \"rjt_\": copy it whole from `roost node join-token`")]
    Token,
    /// The part behind the dot is missing or no SHA-256.
    #[error("a join string ends in \".\" and 64 hex digits: copy it whole from `roost node join-token`")]
    Fingerprint,
}

impl JoinString {
    /// The part that central asks for.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// SHA-256 of the DER of central's CA certificate.
    pub(super) fn ca_sha256(&self) -> [u8; 32] {
        self.ca_sha256
    }
}

impl FromStr for JoinString {
    type Err = ParseJoinStringError;

    fn from_str(text: &str) -> Result<Self, ParseJoinStringError> {
        let (token, fingerprint) = text.trim().split_once('.').ok_or(ParseJoinStringError::Fingerprint)?;
        let random = token.strip_prefix(TOKEN_PREFIX).ok_or(ParseJoinStringError::Token)?;
        let is_word = random.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if random.is_empty() || !is_word || token.len() > TOKEN_MAX_BYTES {
            return Err(ParseJoinStringError::Token);
        }
        let ca_sha256 = sha256_from_hex(fingerprint).ok_or(ParseJoinStringError::Fingerprint)?;
        Ok(Self { token: token.into(), ca_sha256 })
    }
}

fn sha256_from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let is_hex = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)).filter(|_| is_hex) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    is_hex.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<JoinString, ParseJoinStringError> {
        text.parse()
    }

    #[test]
    fn token_and_fingerprint_are_taken_apart() {
        let join = parse(&format!("rjt_abc-DEF_1.{}\n", "0aFF".repeat(16))).unwrap();
        assert_eq!(join.token(), "rjt_abc-DEF_1");
        assert_eq!(join.ca_sha256()[..4], [0x0a, 0xff, 0x0a, 0xff]);
    }

    #[test]
    fn what_is_wrong_is_said_without_showing_the_secret() {
        let hex = "0".repeat(64);
        assert_eq!(parse(&format!("tok_abc.{hex}")), Err(ParseJoinStringError::Token));
        assert_eq!(parse(&format!("rjt_.{hex}")), Err(ParseJoinStringError::Token));
        assert_eq!(parse(&format!("rjt_a b.{hex}")), Err(ParseJoinStringError::Token));
        assert_eq!(parse("rjt_abc"), Err(ParseJoinStringError::Fingerprint));
        assert_eq!(parse(&format!("rjt_abc.{}+1", &hex[2..])), Err(ParseJoinStringError::Fingerprint));
        let shown = format!("{:?}", parse(&format!("rjt_secret.{hex}")).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = parse(&text);
        }
    }
}
