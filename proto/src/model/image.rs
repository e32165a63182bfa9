//! Image references and what a node holds of images.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest reference that is accepted, in bytes.
const MAX_LEN: usize = 255;

/// An image reference: `[host[:port]/]path[:tag][@sha256:digest]`.
///
/// A reference without tag and digest means the tag `latest`, so that two
/// spellings of one image are one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef(String);

/// The text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not an image reference: use lower-case path components, then \":tag\" or \"@sha256:digest\", e.g. \"roost/desktop:latest\""
)]
pub struct ParseImageRefError {
    /// What was given.
    pub text: String,
}

impl ImageRef {
    /// Roost's own image for display containers.
    #[must_use]
    pub fn display_default() -> Self {
        Self("roost/display:latest".into())
    }

    /// Roost's own image for display containers with GLX.
    #[must_use]
    pub fn display_glx_default() -> Self {
        Self("roost/display-glx:latest".into())
    }

    /// The normalised text, always with tag or digest.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host of the registry, with its port if it names one. None for names
    /// that only nodes know, such as `roost/desktop:latest`: a first
    /// component is a host if and only if it has a dot or a colon, or is
    /// `localhost`, and a path follows.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        let (first, _) = self.0.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }

    /// The path without registry, tag and digest, e.g. `team/desktop`.
    #[must_use]
    pub fn repository(&self) -> &str {
        let name = self.0.split_once('@').map_or(self.0.as_str(), |(name, _)| name);
        let path = self.registry().map_or(name, |host| &name[host.len() + 1..]);
        let slash = path.rfind('/').map_or(0, |at| at + 1);
        path[slash..].find(':').map_or(path, |colon| &path[..slash + colon])
    }

    /// The tag, if it names one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        let name = self.0.split_once('@').map_or(self.0.as_str(), |(name, _)| name);
        let last = name.rfind('/').map_or(name, |at| &name[at + 1..]);
        last.split_once(':').map(|(_, tag)| tag)
    }

    /// The digest that it is pinned to, `sha256:…`, if it names one.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, digest)| digest)
    }
}

fn is_component(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|&b| inner(b));
    let bytes = text.as_bytes();
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|&b| inner(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(n, p)| (n, Some(p)));
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok());
    port_ok && name.split('.').all(is_component)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

impl FromStr for ImageRef {
    type Err = ParseImageRefError;

    fn from_str(text: &str) -> Result<Self, ParseImageRefError> {
        let error = || ParseImageRefError { text: text.into() };
        let (rest, digest) = text.split_once('@').map_or((text, None), |(r, d)| (r, Some(d)));
        // A colon before the last slash belongs to the host's port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match rest[slash..].split_once(':') {
            Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
            None => (rest, None),
        };
        let mut parts = path.split('/');
        let first = parts.next().unwrap_or_default();
        let has_path = path.contains('/');
        let first_ok = is_component(first) || (has_path && is_host(first));
        let ok = text.len() <= MAX_LEN
            && first_ok
            && parts.all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !ok {
            return Err(error());
        }
        Ok(Self(if tag.is_none() && digest.is_none() { format!("{text}:latest") } else { text.into() }))
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ParseImageRefError;
    fn try_from(text: String) -> Result<Self, ParseImageRefError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(value: ImageRef) -> String {
        value.0
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image that a node holds, unpacked and ready for a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageInfo {
    /// Its name on the node.
    pub reference: ImageRef,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// Compressed size of config and layers, in bytes.
    pub size_bytes: u64,
    /// Unix time of its import or pull, in milliseconds.
    pub imported_at_unix_ms: u64,
    /// Size of all unpacked layers on the disk, in bytes; 0 = not known.
    /// Layers that images share count for each.
    #[serde(default)]
    pub unpacked_bytes: u64,
    /// Whether it is kept from garbage collection and pruning.
    #[serde(default)]
    pub pinned: bool,
    /// Sandboxes of the node that are made from it, running or not.
    #[serde(default)]
    pub in_use_by: u32,
    /// Unix time of its last start, or of its import when it was never used,
    /// in milliseconds; 0 = not known.
    #[serde(default)]
    pub last_used_at_unix_ms: u64,
    /// E.g. `linux/amd64`; empty = not known.
    #[serde(default)]
    pub platform: String,
}

impl ImageInfo {
    /// An image of which only this is known.
    #[must_use]
    pub fn new(reference: ImageRef, digest: String, size_bytes: u64, imported_at_unix_ms: u64) -> Self {
        Self {
            reference,
            digest,
            size_bytes,
            imported_at_unix_ms,
            unpacked_bytes: 0,
            pinned: false,
            in_use_by: 0,
            last_used_at_unix_ms: 0,
            platform: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised_to_one_key() {
        let short: ImageRef = "roost/desktop".parse().unwrap();
        assert_eq!(short.as_str(), "roost/desktop:latest");
        assert_eq!(short, "roost/desktop:latest".parse().unwrap());
    }

    #[test]
    fn what_registries_accept_is_accepted() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for good in ["busybox", "registry.local:5000/team/app:v1.2", "localhost:5000/a", "a/b/c:T_1.x-y", &digest] {
            assert!(good.parse::<ImageRef>().is_ok(), "{good}");
        }
    }

    #[test]
    fn the_parts_of_a_reference_are_told_apart() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let parts = |text: &str| {
            let reference: ImageRef = text.parse().unwrap();
            let owned = |part: Option<&str>| part.map(str::to_owned);
            let parts = (owned(reference.registry()), reference.repository().to_owned());
            (parts, owned(reference.tag()), owned(reference.digest()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("roost/desktop"), ((None, "roost/desktop".into()), some("latest"), None));
        assert_eq!(
            parts("registry.local:5000/team/app:v1"),
            ((some("registry.local:5000"), "team/app".into()), some("v1"), None)
        );
        assert_eq!(parts("localhost/a"), ((some("localhost"), "a".into()), some("latest"), None));
        assert_eq!(
            parts(&format!("r.example/a/b@{digest}")),
            ((some("r.example"), "a/b".into()), None, Some(digest.clone()))
        );
        assert_eq!(
            parts(&format!("r.example/b:1@{digest}")),
            ((some("r.example"), "b".into()), some("1"), Some(digest.clone()))
        );
    }

    #[test]
    fn hostile_references_are_refused() {
        for bad in ["", "A/b", "../x", "a//b", "a:", "a@sha256:00", "a b", "a/../b", "-a", "a:tag:tag", "/a", "a/"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}
