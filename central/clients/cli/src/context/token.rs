//! API tokens, kept out of every message.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ContextError;

/// Longest token that is accepted, in bytes: far above what central makes.
const MAX_LEN: usize = 4096;

/// An API token. `Debug` and `Display` never show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Token(String);

impl Token {
    /// The secret itself, for the request header.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// Parses what a file, a variable or standard input held.
    ///
    /// # Errors
    /// Empty, too long, or with characters that no header can carry; `origin`
    /// names the place, the text itself is not shown.
    pub(crate) fn parse(text: &str, origin: &str) -> Result<Self, ContextError> {
        Self::try_from(text.trim().to_owned())
            .map_err(|problem| ContextError::Value { origin: origin.into(), problem: problem.into() })
    }

    /// Reads a token from a file.
    ///
    /// # Errors
    /// An unreadable file, and what [`Token::parse`] refuses.
    pub(crate) fn from_file(path: &Path) -> Result<Self, ContextError> {
        let read = fs::read_to_string(path);
        let text = read.map_err(|source| ContextError::File { operation: "read", path: path.into(), source })?;
        Self::parse(&text, &path.display().to_string())
    }
}

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match text {
            text if text.is_empty() => Err("the token is empty"),
            text if text.len() > MAX_LEN => Err("the token is longer than 4096 bytes: is this the right file?"),
            text if !text.bytes().all(|b| b.is_ascii_graphic()) => {
                Err("the token holds spaces, line breaks or characters outside ASCII: is this the right file?")
            }
            text => Ok(Self(text)),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_shows_itself() {
        let token = Token::parse("hunter2\n", "test").unwrap();
        assert_eq!(token.secret(), "hunter2");
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn a_refused_token_is_not_quoted_in_the_error() {
        let error = Token::parse("two words", "ROOST_TOKEN").unwrap_err().to_string();
        assert!(error.starts_with("ROOST_TOKEN: ") && !error.contains("two words"), "{error}");
        assert!(Token::parse(" \n", "x").is_err());
    }
}
