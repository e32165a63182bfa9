//! Claims as people send them to central, and what comes back.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Binding, FieldError, LifetimeChange, ResourcesChange, Sandbox, ScreenSize, Validate, VolumeMount};
use crate::id::{ClaimId, PoolName, SandboxName};

/// Most bytes that files and secrets of one claim may take: half of the
/// largest message to a node.
const CONTENT_MAX_BYTES: usize = 2 << 20;
/// Most files of one claim.
const FILES_MAX: usize = 256;

/// Bytes that stand in JSON as base64, and in no log.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = Byte))]
#[serde(try_from = "String", into = "String")]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

/// The text is no base64. It may be a secret, and is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no base64: encode the bytes with the standard alphabet and padding")]
pub struct ParseContentError;

impl TryFrom<String> for Content {
    type Error = ParseContentError;

    fn try_from(text: String) -> Result<Self, ParseContentError> {
        STANDARD.decode(text).map(Self).map_err(|_| ParseContentError)
    }
}

impl From<Content> for String {
    fn from(content: Content) -> Self {
        STANDARD.encode(content.0)
    }
}

/// A file that a claim brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClaimFile {
    /// Absolute path inside.
    pub path: String,
    /// What is in it, as base64.
    pub content: Content,
    /// Permission bits in octal, e.g. "0644"; absent = 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl ClaimFile {
    /// The permission bits; 0 = those that a file has by default.
    ///
    /// # Errors
    /// What they must be.
    pub fn mode_bits(&self) -> Result<u32, &'static str> {
        let Some(mode) = &self.mode else { return Ok(0) };
        let bits = u32::from_str_radix(mode, 8).ok().filter(|bits| (1..=0o777).contains(bits));
        bits.ok_or("must be permission bits in octal, e.g. \"0644\"")
    }
}

/// The body of `POST /api/v1/claims`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateClaim {
    /// Pool that a desktop is taken from.
    pub pool: PoolName,
    /// Name that the sandbox gets, unique in the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SandboxName>,
    /// Variables for the hook of the entry point.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets by name, each a file in the claim's directory; base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Content>,
    /// What the sandbox is told about who has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identity: BTreeMap<String, String>,
    /// Host name inside; absent = it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Size of the screen, at most the template's; absent = it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<ScreenSize>,
    /// Files, written with the rights of the workload's user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ClaimFile>,
    /// Requests and limits in place of the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesChange>,
    /// Volumes of the tenant, attached to the desktop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// Laid over the pool's lifetime.
    #[serde(default, skip_serializing_if = "LifetimeChange::is_nothing")]
    pub lifetime: LifetimeChange,
}

impl CreateClaim {
    /// The part that nodes keep.
    #[must_use]
    pub fn binding(&self, claim_id: ClaimId) -> Binding {
        Binding {
            claim_id,
            env: self.env.clone(),
            secrets: self.secrets.keys().cloned().collect(),
            identity: self.identity.clone(),
            hostname: self.hostname.clone(),
            screen: self.screen,
            volumes: self.volumes.clone(),
        }
    }

    /// The same without values of secrets and content of files: what tells one
    /// request from another, and may be kept.
    #[must_use]
    pub fn without_content(&self) -> Self {
        let mut shape = self.clone();
        shape.secrets.values_mut().for_each(|content| content.0.clear());
        shape.files.iter_mut().for_each(|file| file.content.0.clear());
        shape
    }
}

impl Validate for CreateClaim {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        self.binding(ClaimId::random()).check(path, errors);
        self.lifetime.check(&format!("{path}lifetime."), errors);
        for (index, file) in self.files.iter().enumerate() {
            if let Err(problem) = file.mode_bits() {
                errors.push(FieldError::new(format!("{path}files[{index}].mode"), problem));
            }
            let climbs = file.path.split('/').any(|part| part == "..");
            if !file.path.starts_with('/') || file.path.ends_with('/') || climbs || file.path.contains('\0') {
                let problem = "must be the absolute path of a file, without \"..\"";
                errors.push(FieldError::new(format!("{path}files[{index}].path"), problem));
            }
        }
        let bytes: usize = self.secrets.values().chain(self.files.iter().map(|f| &f.content)).map(|c| c.0.len()).sum();
        if bytes > CONTENT_MAX_BYTES || self.files.len() > FILES_MAX {
            let problem = format!(
                "with secrets they take {bytes} bytes: at most {CONTENT_MAX_BYTES} in {FILES_MAX} files are taken"
            );
            errors.push(FieldError::new(format!("{path}files"), problem));
        }
    }
}

/// One part of a binding, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BindStep {
    /// "ledger", "files", "limits", "display", "hook".
    pub name: String,
    /// Time that it took, in microseconds.
    pub duration_us: u64,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Claimed {
    /// Which claim.
    pub claim_id: ClaimId,
    /// What it got.
    pub sandbox: Sandbox,
    /// Exit status of the hook; absent without a hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_exit_code: Option<i32>,
    /// Parts of the binding on the node, in their order.
    pub steps: Vec<BindStep>,
    /// True if no desktop was ready and this one was started for the claim.
    pub cold: bool,
    /// Why it was cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_base64_and_is_not_shown() {
        let claim: CreateClaim = serde_json::from_str(
            r#"{"pool":"p","secrets":{"key":"aHVzaCE="},"files":[{"path":"/a","content":"aGk="}]}"#,
        )
        .unwrap();
        assert_eq!(claim.secrets["key"].0, b"hush!");
        assert!(!format!("{claim:?}").contains("hush"), "{claim:?}");
        assert_eq!(serde_json::to_string(&claim.files[0]).unwrap(), r#"{"path":"/a","content":"aGk="}"#);
        assert_eq!(claim.binding(ClaimId::random()).secrets.into_iter().collect::<Vec<_>>(), ["key"]);
        let broken = serde_json::from_str::<CreateClaim>(r#"{"pool":"p","secrets":{"key":"%s3cret"}}"#).unwrap_err();
        assert!(!broken.to_string().contains("s3cret"), "{broken}");
    }

    #[test]
    fn what_is_kept_of_a_claim_holds_no_content() {
        let claim: CreateClaim = serde_json::from_str(
            r#"{"pool":"p","secrets":{"key":"aHVzaCE="},"files":[{"path":"/a","content":"aGk="}]}"#,
        )
        .unwrap();
        let kept = serde_json::to_string(&claim.without_content()).unwrap();
        assert!(kept.contains("/a") && !kept.contains("aHVzaCE") && !kept.contains("aGk"), "{kept}");
    }

    #[test]
    fn every_wrong_file_is_named_by_its_place() {
        let json = r#"{"pool":"p","files":[{"path":"a","content":""},{"path":"/b","content":"","mode":"9"},{"path":"/a/../b","content":""}]}"#;
        let claim: CreateClaim = serde_json::from_str(json).unwrap();
        let fields: Vec<_> = claim.validate().unwrap_err().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["files[0].path", "files[1].mode", "files[2].path"]);
    }
}
