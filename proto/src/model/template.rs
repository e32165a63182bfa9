//! Templates (how to make a sandbox) and profiles (what it may use).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::{check_env, check_times, default_start_timeout_ms, default_stop_grace_ms};
use super::{
    ClaimContract, DisplaySpec, FieldError, ImageRef, Isolation, Lifetime, LifetimeChange, PullPolicy, Readiness,
    Resources, Restart, SandboxSpec, Validate, WindowManager,
};
use crate::id::{ProfileName, TemplateName};

/// How to make a sandbox: image, display, application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its name, unique in the tenant.
    pub name: TemplateName,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Workload image.
    pub image: ImageRef,
    /// When a node asks a registry for it.
    #[serde(default, skip_serializing_if = "PullPolicy::is_default")]
    pub pull_policy: PullPolicy,
    /// Profile that is used when the caller names none.
    pub profile: ProfileName,
    /// Program and arguments; empty = the image's own entry point.
    #[serde(default)]
    pub command: Vec<String>,
    /// Working directory; absent = the image's own.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Who brings the window manager.
    #[serde(default)]
    pub window_manager: WindowManager,
    /// Time between SIGTERM and SIGKILL on stop, in milliseconds.
    #[serde(default = "default_stop_grace_ms")]
    pub stop_grace_ms: u32,
    /// Time that a start may take until Ready, in milliseconds.
    #[serde(default = "default_start_timeout_ms")]
    pub start_timeout_ms: u32,
    /// Environment laid over the image's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The screen.
    #[serde(default)]
    pub display: DisplaySpec,
    /// What must hold before Ready, beyond X, window manager and first frame.
    #[serde(default)]
    pub readiness: Readiness,
    /// What is made again when it ends by itself.
    #[serde(default, skip_serializing_if = "Restart::is_default")]
    pub restart: Restart,
    /// What a claim of such a sandbox does in the workload.
    #[serde(default, skip_serializing_if = "ClaimContract::is_default")]
    pub claim: ClaimContract,
    /// Laid over the profile's lifetime.
    #[serde(default, skip_serializing_if = "LifetimeChange::is_nothing")]
    pub lifetime: LifetimeChange,
}

/// What a sandbox may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, unique in the tenant.
    pub name: ProfileName,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Requests and limits.
    #[serde(default)]
    pub resources: Resources,
    /// How far the workload is fenced in.
    #[serde(default)]
    pub isolation: Isolation,
    /// When its time is over.
    #[serde(default, skip_serializing_if = "Lifetime::is_default")]
    pub lifetime: Lifetime,
}

impl Validate for Template {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        check_env(&self.env, path, errors);
        self.display.check(&format!("{path}display."), errors);
        check_times(self.stop_grace_ms, self.start_timeout_ms, path, errors);
        self.restart.check(&format!("{path}restart."), errors);
        self.claim.check(&format!("{path}claim."), errors);
        self.lifetime.check(&format!("{path}lifetime."), errors);
    }
}

impl Validate for Profile {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        self.resources.check(&format!("{path}resources."), errors);
        self.lifetime.check(&format!("{path}lifetime."), errors);
    }
}

/// Lays a profile and the caller's environment over a template.
///
/// The caller's variables win over the template's.
#[must_use]
pub fn resolve(template: &Template, profile: &Profile, env: &BTreeMap<String, String>) -> SandboxSpec {
    let mut all_env = template.env.clone();
    all_env.extend(env.clone());
    SandboxSpec {
        template: template.name.clone(),
        image: template.image.clone(),
        pull_policy: template.pull_policy,
        command: template.command.clone(),
        env: all_env,
        working_dir: template.working_dir.clone(),
        display: template.display,
        window_manager: template.window_manager,
        readiness: template.readiness.clone(),
        resources: profile.resources.clone(),
        isolation: profile.isolation,
        stop_grace_ms: template.stop_grace_ms,
        start_timeout_ms: template.start_timeout_ms,
        restart: template.restart,
        claim: template.claim,
        volumes: Vec::new(),
        lifetime: template.lifetime.over(&profile.lifetime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_environment_wins_over_the_templates() {
        let template: Template =
            serde_json::from_str(r#"{"name":"t","image":"i","profile":"p","env":{"A":"template","B":"template"}}"#)
                .unwrap();
        let profile: Profile = serde_json::from_str(r#"{"name":"p"}"#).unwrap();
        let spec = resolve(&template, &profile, &BTreeMap::from([("A".into(), "caller".into())]));
        assert_eq!(spec.env["A"], "caller");
        assert_eq!(spec.env["B"], "template");
    }
}
