//! Claims: what a desktop that is Ready already is given, without a restart.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::spec::check_env;
use super::volume::check_mounts;
use super::{FieldError, Validate, VolumeMount};
use crate::id::ClaimId;

/// How long the hook's answer may be waited for, in milliseconds.
const HOOK_TIMEOUT_MS: std::ops::RangeInclusive<u32> = 10..=600_000;
/// Longest host name that the kernel takes.
const MAX_HOSTNAME_BYTES: usize = 63;
/// Most secrets of one claim.
const MAX_SECRETS: usize = 128;
/// Most bytes of a file name, as the kernel has it.
const MAX_FILE_NAME_BYTES: usize = 255;
/// Variables and identity of a claim together, as JSON: they are part of the
/// ledger's record, beside command and environment.
const MAX_BINDING_BYTES: usize = 12 << 10;
/// Shortest edge of a screen, in pixels.
const MIN_EDGE_PX: u32 = 64;

/// What a claim does in the workload beyond laying out its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ClaimContract {
    /// Whether the entry point waits for the claim and answers with an exit
    /// status, which the claim waits for.
    pub hook: bool,
    /// How long the claim waits for that answer, in milliseconds.
    pub hook_timeout_ms: u32,
}

impl Default for ClaimContract {
    fn default() -> Self {
        Self { hook: false, hook_timeout_ms: 10_000 }
    }
}

impl ClaimContract {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Validate for ClaimContract {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        if !HOOK_TIMEOUT_MS.contains(&self.hook_timeout_ms) {
            let (low, high) = (HOOK_TIMEOUT_MS.start(), HOOK_TIMEOUT_MS.end());
            let problem = format!("{} is out of range: use {low} to {high}", self.hook_timeout_ms);
            errors.push(FieldError::new(format!("{path}hook_timeout_ms"), problem));
        }
    }
}

/// Size of a screen in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ScreenSize {
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
}

/// What a claim gives to a sandbox, and is kept of it. Values of secrets and
/// the content of files are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The same claim again is the same binding.
    pub claim_id: ClaimId,
    /// Variables for the entry point's hook.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of the secrets, each a file in the claim's directory.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// What the sandbox is told about who has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identity: BTreeMap<String, String>,
    /// Host name inside; absent means that it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Size of the screen; absent means that it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<ScreenSize>,
    /// Volumes of whoever claims, attached to what runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
}

impl Binding {
    /// A binding that changes nothing but the owner.
    #[must_use]
    pub fn new(claim_id: ClaimId) -> Self {
        Self {
            claim_id,
            env: BTreeMap::new(),
            secrets: BTreeSet::new(),
            identity: BTreeMap::new(),
            hostname: None,
            screen: None,
            volumes: Vec::new(),
        }
    }
}

/// A name that can stand alone as a file in a directory.
fn is_file_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= MAX_FILE_NAME_BYTES && !name.starts_with('.') && name.bytes().all(is_plain)
}

fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.iter().all(|b| b.is_some_and(u8::is_ascii_alphanumeric))
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    name.len() <= MAX_HOSTNAME_BYTES && name.split('.').all(is_label)
}

impl Validate for Binding {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        let field = |name: &str| format!("{path}{name}");
        check_env(&self.env, path, errors);
        for name in self.env.keys().filter(|name| !is_shell_name(name)) {
            let problem = "a shell cannot read this name: use letters, digits and _, not beginning with a digit";
            errors.push(FieldError::new(field(&format!("env.{name}")), problem));
        }
        if self.secrets.len() > MAX_SECRETS {
            errors.push(FieldError::new(field("secrets"), format!("at most {MAX_SECRETS} are taken")));
        }
        for name in self.secrets.iter().filter(|name| !is_file_name(name)) {
            let problem = "is a file name: use letters, digits, \".\", \"_\" and \"-\", not beginning with a dot";
            errors.push(FieldError::new(field(&format!("secrets.{name}")), problem));
        }
        for (name, value) in &self.identity {
            if name.is_empty() || value.contains('\0') || name.contains('\0') {
                errors.push(FieldError::new(field(&format!("identity.{name}")), "must have a name and hold no NUL"));
            }
        }
        if self.hostname.as_ref().is_some_and(|name| !is_hostname(name)) {
            let problem = "is no host name: use at most 63 of a-z, 0-9, \"-\" and \".\"";
            errors.push(FieldError::new(field("hostname"), problem));
        }
        if self.screen.is_some_and(|s| s.width_px < MIN_EDGE_PX || s.height_px < MIN_EDGE_PX) {
            errors.push(FieldError::new(field("screen"), format!("an edge must have at least {MIN_EDGE_PX} pixels")));
        }
        check_mounts(&self.volumes, path, errors);
        let bytes = serde_json::to_string(self).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_BINDING_BYTES {
            let problem = format!(
                "with identity it takes {bytes} bytes as JSON: keep both below {MAX_BINDING_BYTES}, and bring more as files"
            );
            errors.push(FieldError::new(field("env"), problem));
        }
    }
}

/// Whether `. ./env` in a shell can set such a variable.
fn is_shell_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What came of a binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BindingState {
    /// The claim that it answers.
    pub claim_id: ClaimId,
    /// True once everything is in place.
    pub bound: bool,
    /// Exit status of the hook; absent without a hook.
    #[serde(default)]
    pub hook_exit_code: Option<i32>,
    /// Unix time at which it was bound, in milliseconds; 0 before.
    #[serde(default)]
    pub bound_at_unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(edit: impl FnOnce(&mut Binding)) -> Vec<String> {
        let mut binding = Binding::new(ClaimId::random());
        edit(&mut binding);
        binding.validate().err().unwrap_or_default().into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn a_secret_cannot_be_named_out_of_its_directory() {
        for name in ["../x", "a/b", "", ".", "..", ".hidden", "a\0b", "é"] {
            let fields = binding(|b| assert!(b.secrets.insert(name.into())));
            assert_eq!(fields, [format!("secrets.{name}")]);
        }
        assert!(binding(|b| b.secrets.extend(["api_key".into(), "id.pem".into()])).is_empty());
    }

    #[test]
    fn a_variable_that_a_shell_cannot_read_is_refused() {
        assert_eq!(binding(|b| drop(b.env.insert("A-B".into(), "1".into()))), ["env.A-B"]);
        assert_eq!(binding(|b| drop(b.env.insert("1A".into(), "1".into()))), ["env.1A"]);
        assert_eq!(binding(|b| drop(b.env.insert("DISPLAY".into(), ":1".into()))), ["env.DISPLAY"]);
        assert!(binding(|b| drop(b.env.insert("_A1".into(), "\n'\"$".into()))).is_empty());
    }

    #[test]
    fn host_names_and_screens_are_checked_and_the_whole_is_bounded() {
        assert_eq!(binding(|b| b.hostname = Some("-a".into())), ["hostname"]);
        assert_eq!(binding(|b| b.hostname = Some("a..b".into())), ["hostname"]);
        assert!(binding(|b| b.hostname = Some("desk-1.lab".into())).is_empty());
        assert_eq!(binding(|b| b.screen = Some(ScreenSize { width_px: 8, height_px: 600 })), ["screen"]);
        assert_eq!(binding(|b| drop(b.env.insert("A".into(), "x".repeat(MAX_BINDING_BYTES)))), ["env"]);
    }
}
