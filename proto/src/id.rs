//! Typed ids and names.
//!
//! An id is made by Roost: a prefix that tells the kind and sixteen random
//! base-32 characters (80 bits). A name is chosen by people: a DNS label.
//! Both are lower case, so that they can stand in paths, cgroups, containerd
//! ids, URLs and host names unchanged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Crockford's base-32 digits in lower case: no i, l, o, u to misread.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Random characters of an id.
const ID_LEN: usize = 16;
/// Longest DNS label.
const NAME_MAX_LEN: usize = 63;

/// Why a text is no id or no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The prefix of another kind, or none.
    #[error("\"{text}\" is not a {kind} id: it must begin with \"{prefix}-\"")]
    Prefix {
        /// What was given.
        text: String,
        /// The kind that was expected.
        kind: &'static str,
        /// The prefix of that kind.
        prefix: &'static str,
    },
    /// Right prefix, wrong rest.
    #[error("\"{text}\" is not a {kind} id: after \"-\" it needs 16 of the characters 0-9a-z without i, l, o, u")]
    Body {
        /// What was given.
        text: String,
        /// The kind that was expected.
        kind: &'static str,
    },
    /// Not a DNS label.
    #[error("\"{text}\" is not a {kind}: use 1-63 of a-z, 0-9 and \"-\", beginning and ending with a letter or digit")]
    Name {
        /// What was given.
        text: String,
        /// The kind that was expected.
        kind: &'static str,
    },
}

fn random_body() -> String {
    use rand::RngExt;
    let mut rng = rand::rng();
    (0..ID_LEN).map(|_| char::from(DIGITS[rng.random_range(0..DIGITS.len())])).collect()
}

fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|&b| inner(b)) && bytes.last().is_some_and(|&b| inner(b));
    ends && bytes.len() <= NAME_MAX_LEN && bytes.iter().all(|&b| inner(b) || b == b'-')
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
    };
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        text_type!($name);
        impl $name {
            /// Makes a new random id.
            #[must_use]
            pub fn random() -> Self {
                Self(format!("{}-{}", $prefix, random_body()))
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let body = text.strip_prefix(concat!($prefix, "-")).ok_or_else(|| {
                    ParseIdError::Prefix { text: text.into(), kind: $kind, prefix: $prefix }
                })?;
                if body.len() == ID_LEN && body.bytes().all(|b| DIGITS.contains(&b)) {
                    Ok(Self(text.into()))
                } else {
                    Err(ParseIdError::Body { text: text.into(), kind: $kind })
                }
            }
        }
    )*};
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        text_type!($name);
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if is_dns_label(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(ParseIdError::Name { text: text.into(), kind: $kind })
                }
            }
        }
    )*};
}

ids! {
    /// One API token (not its secret).
    ApiTokenId, "tok", "token";
    /// One claim: what binds a desktop of a pool to somebody.
    ClaimId, "clm", "claim";
    /// One saved state of a volume.
    CheckpointId, "ckp", "checkpoint";
    /// One join token (not its secret).
    JoinTokenId, "join", "join token";
    /// One node, from its enrolment on.
    NodeId, "node", "node";
    /// One sandbox, on whatever node.
    SandboxId, "sbx", "sandbox";
    /// One tunnel of a node's connection.
    TunnelId, "tun", "tunnel";
}

names! {
    /// Name of a pool on a node.
    PoolName, "pool name";
    /// Name of a profile.
    ProfileName, "profile name";
    /// Name that people give a sandbox, unique in its tenant.
    SandboxName, "sandbox name";
    /// Name of a template.
    TemplateName, "template name";
    /// Name of a tenant, which is its id.
    TenantId, "tenant name";
    /// Name of a volume, unique in its tenant on a node.
    VolumeName, "volume name";
}

impl TenantId {
    /// The tenant of sandboxes that are made on a node, without central.
    #[must_use]
    pub fn local() -> Self {
        Self("local".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn random_ids_parse_back() {
        let id = SandboxId::random();
        assert_eq!(id.as_str().parse::<SandboxId>(), Ok(id));
    }

    #[test]
    fn an_id_of_another_kind_is_refused_by_name() {
        let error = NodeId::random().as_str().parse::<SandboxId>().unwrap_err();
        assert!(error.to_string().contains("must begin with \"sbx-\""), "{error}");
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "desktop", "my-box-2", &"x".repeat(63)] {
            assert!(good.parse::<TemplateName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", &"x".repeat(64), "å"] {
            assert!(bad.parse::<TemplateName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_that_parses_can_leave_a_directory(text in ".*") {
            if let Ok(id) = text.parse::<SandboxId>() {
                prop_assert!(!id.as_str().contains(['/', '.', '\0']));
            }
        }
    }
}
