//! Bearer secrets: shown once, stored only as their SHA-256.
//!
//! 256 random bits need no slow hash: guessing one is out of reach whatever
//! the speed of the hash.

use std::fmt;

use rand::RngExt;
use sha2::{Digest, Sha256};

/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// A secret in clear; never logged, never stored.
pub struct Secret(String);

/// SHA-256 of a secret, in lower-case hex: what the store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretHash(String);

impl Secret {
    /// Makes a new secret, `{prefix}_` and 64 hex digits.
    #[must_use]
    pub fn random(prefix: &str) -> Self {
        let bytes: [u8; SECRET_BYTES] = rand::rng().random();
        Self(format!("{prefix}_{}", hex(&bytes)))
    }

    /// The text to hand to its owner, once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the store keeps of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl SecretHash {
    /// Hashes a secret that somebody presented.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(sha256_hex(secret.as_bytes()))
    }

    /// The hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of `bytes` in lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_and_its_prefix() {
        let secret = Secret::random("rat");
        assert_eq!(secret.reveal().len(), "rat_".len() + 64);
        assert_ne!(secret.reveal(), Secret::random("rat").reveal());
    }

    #[test]
    fn debug_output_does_not_show_a_secret() {
        let secret = Secret::random("rat");
        assert!(!format!("{secret:?}").contains(secret.reveal()));
    }

    #[test]
    fn a_hash_is_that_of_the_whole_text() {
        assert_eq!(SecretHash::of("abc").as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
