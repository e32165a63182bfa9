//! What a sandbox is to be, fully resolved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::volume::check_mounts;
use super::{ClaimContract, FieldError, ImageRef, Lifetime, PullPolicy, Resources, Restart, Validate, VolumeMount};
use crate::id::TemplateName;

/// Smallest and largest screen edge, in pixels.
const EDGE_PX: std::ops::RangeInclusive<u32> = 64..=7680;
/// Most bytes of command and environment together, as JSON: a node keeps them
/// in a ledger record, of which it makes 64 KiB durable at most.
const MAX_COMMAND_AND_ENV_BYTES: usize = 48 << 10;
/// Longest stop grace, in milliseconds (10 minutes).
const MAX_STOP_GRACE_MS: u32 = 600_000;
/// Shortest and longest start, in milliseconds.
const START_TIMEOUT_MS: std::ops::RangeInclusive<u32> = 1_000..=600_000;
/// Variables that Roost sets itself.
const RESERVED_ENV: [&str; 2] = ["DISPLAY", "XAUTHORITY"];

/// What a sandbox is to be. Immutable for the life of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// Template it was made from; for people and metrics only.
    pub template: TemplateName,
    /// Workload image.
    pub image: ImageRef,
    /// When the node asks a registry for it.
    #[serde(default, skip_serializing_if = "PullPolicy::is_default")]
    pub pull_policy: PullPolicy,
    /// Program and arguments; empty = the image's own entry point.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment laid over the image's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; absent = the image's own.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// The screen.
    #[serde(default)]
    pub display: DisplaySpec,
    /// Who brings the window manager.
    #[serde(default)]
    pub window_manager: WindowManager,
    /// What must hold before Ready, beyond X, window manager and first frame.
    #[serde(default)]
    pub readiness: Readiness,
    /// Requests and limits.
    #[serde(default)]
    pub resources: Resources,
    /// How far the workload is fenced in.
    #[serde(default)]
    pub isolation: Isolation,
    /// Time between SIGTERM and SIGKILL on stop, in milliseconds.
    #[serde(default = "default_stop_grace_ms")]
    pub stop_grace_ms: u32,
    /// Time that a start may take until Ready, in milliseconds.
    #[serde(default = "default_start_timeout_ms")]
    pub start_timeout_ms: u32,
    /// What is made again when it ends by itself.
    #[serde(default, skip_serializing_if = "Restart::is_default")]
    pub restart: Restart,
    /// What a claim of such a sandbox does in the workload.
    #[serde(default, skip_serializing_if = "ClaimContract::is_default")]
    pub claim: ClaimContract,
    /// Volumes that it has from its start on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// When its time is over.
    #[serde(default, skip_serializing_if = "Lifetime::is_default")]
    pub lifetime: Lifetime,
}

/// Two seconds: a window manager ends at once, a browser needs a moment to
/// save its session.
pub(super) fn default_stop_grace_ms() -> u32 {
    2_000
}

/// Half a minute: two orders of magnitude above the usual start.
pub(super) fn default_start_timeout_ms() -> u32 {
    30_000
}

/// The screen of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DisplaySpec {
    /// Which display server draws it.
    pub kind: DisplayKind,
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
    /// Whether the X server offers GLX (software rendering, about 50 MiB more).
    pub glx: bool,
}

impl Default for DisplaySpec {
    /// 1280x800, the size that vision models are trained for; no GLX.
    fn default() -> Self {
        Self { kind: DisplayKind::Xvfb, width_px: 1280, height_px: 800, glx: false }
    }
}

/// Which display server draws the screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DisplayKind {
    /// Xvfb, pixels in a framebuffer file.
    #[default]
    Xvfb,
}

/// Who brings the window manager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WindowManager {
    /// Nobody: the screen is bare.
    None,
    /// The workload image starts one; Ready waits until it manages the screen.
    #[default]
    Image,
    /// Roost runs one beside the X server, for images that have none.
    Platform,
}

/// What must hold before Ready, beyond X, window manager and first frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Readiness {
    /// Nothing more.
    #[default]
    None,
    /// A mapped window whose title contains this text.
    WindowTitle(String),
}

/// How far the workload is fenced in, beyond what every sandbox gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Isolation {
    /// Whether the workload may make user namespaces of its own, as a
    /// browser's own sandbox does.
    pub nested_user_namespaces: bool,
}

/// Whether `name` can stand left of `=` in an environment.
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Checks an environment that a user gives.
pub(super) fn check_env(env: &BTreeMap<String, String>, path: &str, errors: &mut Vec<FieldError>) {
    for (name, value) in env {
        let field = || format!("{path}env.{name}");
        if !is_env_name(name) {
            errors.push(FieldError::new(field(), "a variable name must not be empty or contain \"=\" or NUL"));
        }
        if value.contains('\0') {
            errors.push(FieldError::new(field(), "a value must not contain NUL"));
        }
        if RESERVED_ENV.contains(&name.as_str()) {
            errors.push(FieldError::new(field(), "is set by Roost: remove it"));
        }
    }
}

impl Validate for SandboxSpec {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        let field = |name: &str| format!("{path}{name}");
        check_env(&self.env, path, errors);
        if self.command.first().is_some_and(String::is_empty) || self.command.iter().any(|a| a.contains('\0')) {
            errors.push(FieldError::new(field("command"), "must begin with a program and hold no NUL"));
        }
        let bytes = serde_json::to_string(&(&self.command, &self.env)).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_COMMAND_AND_ENV_BYTES {
            let problem =
                format!("with env it takes {bytes} bytes as JSON: keep both below {MAX_COMMAND_AND_ENV_BYTES}");
            errors.push(FieldError::new(field("command"), problem));
        }
        if self.working_dir.as_ref().is_some_and(|d| !d.starts_with('/') || d.contains('\0')) {
            errors.push(FieldError::new(field("working_dir"), "must be an absolute path"));
        }
        self.display.check(&field("display."), errors);
        self.resources.check(&field("resources."), errors);
        if let Readiness::WindowTitle(title) = &self.readiness
            && title.is_empty()
        {
            errors.push(FieldError::new(
                field("readiness.window_title"),
                "must not be empty: leave readiness out instead",
            ));
        }
        check_times(self.stop_grace_ms, self.start_timeout_ms, path, errors);
        self.restart.check(&field("restart."), errors);
        self.claim.check(&field("claim."), errors);
        check_mounts(&self.volumes, path, errors);
        self.lifetime.check(&field("lifetime."), errors);
    }
}

/// Checks the two times that template and spec share.
pub(super) fn check_times(stop_grace_ms: u32, start_timeout_ms: u32, path: &str, errors: &mut Vec<FieldError>) {
    if stop_grace_ms > MAX_STOP_GRACE_MS {
        let problem = format!("{stop_grace_ms} is too long: use at most {MAX_STOP_GRACE_MS}");
        errors.push(FieldError::new(format!("{path}stop_grace_ms"), problem));
    }
    if !START_TIMEOUT_MS.contains(&start_timeout_ms) {
        let (low, high) = (START_TIMEOUT_MS.start(), START_TIMEOUT_MS.end());
        let problem = format!("{start_timeout_ms} is out of range: use {low} to {high}");
        errors.push(FieldError::new(format!("{path}start_timeout_ms"), problem));
    }
}

impl Validate for DisplaySpec {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        for (name, value) in [("width_px", self.width_px), ("height_px", self.height_px)] {
            if !EDGE_PX.contains(&value) {
                let problem = format!("{value} is out of range: use {} to {}", EDGE_PX.start(), EDGE_PX.end());
                errors.push(FieldError::new(format!("{path}{name}"), problem));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        serde_json::from_str(r#"{"template":"desktop","image":"roost/desktop"}"#).unwrap()
    }

    fn fields(spec: &SandboxSpec) -> Vec<String> {
        spec.validate().err().unwrap_or_default().into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn a_spec_of_template_and_image_is_complete() {
        assert_eq!(spec().validate(), Ok(()));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let json = r#"{"template":"a","image":"b","privileged":true}"#;
        let error = serde_json::from_str::<SandboxSpec>(json).unwrap_err();
        assert!(error.to_string().contains("privileged"), "{error}");
    }

    #[test]
    fn the_variables_that_roost_sets_cannot_be_given() {
        let mut spec = spec();
        spec.env.insert("DISPLAY".into(), ":9".into());
        assert_eq!(fields(&spec), ["env.DISPLAY"]);
    }

    #[test]
    fn what_escapes_to_more_than_a_ledger_record_is_refused() {
        let mut spec = spec();
        spec.env.insert("A".into(), "x".repeat(40 << 10));
        assert_eq!(spec.validate(), Ok(()));
        spec.env.insert("A".into(), "\u{1}".repeat(10 << 10));
        assert_eq!(fields(&spec), ["command"]);
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let mut spec = spec();
        spec.display.width_px = 1;
        spec.working_dir = Some("relative".into());
        spec.stop_grace_ms = u32::MAX;
        assert_eq!(fields(&spec), ["working_dir", "display.width_px", "stop_grace_ms"]);
    }
}
