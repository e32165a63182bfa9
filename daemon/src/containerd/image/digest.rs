//! SHA-256 digests, the only kind that Roost accepts, and chain ids.
//!
//! The *diff id* of a layer is the digest of its plain tar. The *chain id* of
//! a layer names it together with all layers below it: containerd's snapshots
//! go by it.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Digest as OciDigest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a digest.
const HEX_LEN: usize = 64;

/// A SHA-256 digest; as text `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text is no SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a digest that Roost accepts: use \"sha256:\" and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError {
    /// What was given, or its beginning.
    pub text: String,
}

impl ParseDigestError {
    /// Quotes no more than a digest and a few characters: it comes from
    /// outside.
    fn quoting(text: &str) -> Self {
        Self { text: text.chars().take(HEX_LEN + 16).collect() }
    }
}

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits alone.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(HEX_LEN), |mut hex, byte| {
            for nibble in [byte >> 4, byte & 0xf] {
                hex.push(char::from_digit(u32::from(nibble), 16).unwrap_or_default());
            }
            hex
        })
    }

    /// Reads the 64 hexadecimal digits alone.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let hex: &[u8; HEX_LEN] = hex.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let digest = text.strip_prefix("sha256:").and_then(Self::from_hex);
        digest.ok_or_else(|| ParseDigestError::quoting(text))
    }
}

impl TryFrom<&OciDigest> for Digest {
    type Error = ParseDigestError;

    fn try_from(digest: &OciDigest) -> Result<Self, ParseDigestError> {
        let sha256 = Some(digest).filter(|d| *d.algorithm() == DigestAlgorithm::Sha256);
        let parsed = sha256.and_then(|d| Self::from_hex(d.digest()));
        parsed.ok_or_else(|| ParseDigestError::quoting(digest.as_ref()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes the digest of what comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The chain id of each layer, lowest first: that of the lowest is its diff
/// id, each other is the digest of the one below, a space and its diff id.
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut below = None;
    diff_ids
        .iter()
        .map(|diff_id| {
            let chain_id = below.map_or(*diff_id, |below: Digest| Digest::of(format!("{below} {diff_id}").as_bytes()));
            below = Some(chain_id);
            chain_id
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(Hasher::default().finish().to_string(), empty);
    }

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        let hex = "0".repeat(64);
        assert!(format!("sha256:{hex}").parse::<Digest>().is_ok());
        for bad in [
            hex.clone(),
            format!("sha512:{hex}"),
            format!("sha256:{}", "0".repeat(63)),
            format!("sha256:{}", "0".repeat(65)),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}", "é".repeat(32)),
            format!("sha256:../{}", "0".repeat(61)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_ids_fold_from_the_lowest_layer_up() {
        let [a, b, c] = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        let abc = Digest::of(format!("{ab} {c}").as_bytes());
        assert_eq!(chain_ids(&[a, b, c]), [a, ab, abc]);
        assert!(chain_ids(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn digests_parse_back(bytes in any::<Vec<u8>>()) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn pieces_and_whole_have_one_digest(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let (head, tail) = bytes.split_at(at.index(bytes.len() + 1));
            let mut hasher = Hasher::default();
            hasher.update(head);
            hasher.update(tail);
            prop_assert_eq!(hasher.finish(), Digest::of(&bytes));
        }
    }
}
