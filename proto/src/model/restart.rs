//! What is done when a part of a sandbox ends by itself, and what is told of
//! such an end.

use serde::{Deserialize, Serialize};

use super::{FieldError, Validate};

/// Shortest wait before a part is made again, in milliseconds: a crash loop
/// must not keep a node busy.
const MIN_BACKOFF_MS: u32 = 100;
/// Longest wait, in milliseconds (one hour).
const MAX_BACKOFF_MS: u32 = 3_600_000;

/// Whether a part that ended by itself is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It is not: the sandbox is Failed.
    Never,
    /// It is, unless it ended with exit code 0.
    OnFailure,
    /// It is, whatever its exit code.
    Always,
}

/// What is made again when it ends by itself, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    /// The image's program: its container is made again, the display stays.
    pub application: RestartPolicy,
    /// The window manager: alone with `window_manager = "platform"`, with its
    /// container where the image brings it.
    pub window_manager: RestartPolicy,
    /// The X server: its clients end with it, so everything is made again.
    pub display: RestartPolicy,
    /// Wait before the first restart, in milliseconds; doubles with each
    /// further one.
    pub backoff_ms: u32,
    /// Longest wait, in milliseconds. Up to a fifth is added to each wait, so
    /// that what failed together does not come back together.
    pub max_backoff_ms: u32,
    /// Time in Ready after which an end counts as the first again, in
    /// milliseconds.
    pub stable_ms: u32,
}

impl Default for Restart {
    /// A program with effects is not run twice unasked, and an X server's end
    /// is the end of the program; a window manager has no state to lose.
    fn default() -> Self {
        Self {
            application: RestartPolicy::Never,
            window_manager: RestartPolicy::OnFailure,
            display: RestartPolicy::Never,
            backoff_ms: 200,
            max_backoff_ms: 30_000,
            stable_ms: 60_000,
        }
    }
}

impl Restart {
    /// Whether nothing is said: left out of what is stored and shown.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The policy for one part.
    #[must_use]
    pub fn policy(&self, part: Part) -> RestartPolicy {
        match part {
            Part::Application => self.application,
            Part::WindowManager => self.window_manager,
            Part::Display => self.display,
        }
    }
}

impl Validate for Restart {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        let mut require = |value: u32, low: u32, field: &str| {
            if !(low..=MAX_BACKOFF_MS).contains(&value) {
                let problem = format!("{value} is out of range: use {low} to {MAX_BACKOFF_MS}");
                errors.push(FieldError::new(format!("{path}{field}"), problem));
            }
        };
        require(self.backoff_ms, MIN_BACKOFF_MS, "backoff_ms");
        require(self.max_backoff_ms, self.backoff_ms.clamp(MIN_BACKOFF_MS, MAX_BACKOFF_MS), "max_backoff_ms");
        require(self.stable_ms, 0, "stable_ms");
    }
}

/// A part of a sandbox that has a restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The image's program, with all that runs in its container.
    Application,
    /// The window manager.
    WindowManager,
    /// The X server.
    Display,
}

impl Part {
    /// Its name in JSON and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::WindowManager => "window-manager",
            Self::Display => "display",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The last end that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LastEnd {
    /// What ended.
    pub part: Part,
    /// Stable word for why, e.g. `out-of-memory`.
    pub reason: String,
    /// Its exit code, 128 + signal when killed; absent when it is not known.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Unix time at which the node saw it, in milliseconds.
    pub at_unix_ms: u64,
}

/// Processes that the kernel killed for want of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OutOfMemory {
    /// How many, in the life of the sandbox.
    pub kills: u64,
    /// The last of them; absent when the kernel's log cannot be read.
    #[serde(default)]
    pub last: Option<OomVictim>,
}

/// A process that the kernel killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OomVictim {
    /// Its name as the kernel has it, at most 15 bytes; the process chose it.
    pub process: String,
    /// Its process id on the host.
    pub pid: u32,
    /// The part whose container it ran in.
    pub part: Part,
    /// Unix time at which the node read of it, in milliseconds.
    pub at_unix_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_runs_no_program_twice() {
        let restart = Restart::default();
        assert_eq!(restart.validate(), Ok(()));
        assert_eq!(restart.policy(Part::Application), RestartPolicy::Never);
        assert_eq!(restart.policy(Part::Display), RestartPolicy::Never);
    }

    #[test]
    fn a_wait_that_would_spin_or_shrink_is_refused() {
        let restart = Restart { backoff_ms: 1, max_backoff_ms: 0, ..Restart::default() };
        let fields: Vec<String> = restart.validate().unwrap_err().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["backoff_ms", "max_backoff_ms"]);
    }

    #[test]
    fn a_template_says_only_what_it_wants_otherwise() {
        let restart: Restart = serde_json::from_str(r#"{"application":"always"}"#).unwrap();
        assert_eq!(restart, Restart { application: RestartPolicy::Always, ..Restart::default() });
        serde_json::from_str::<Restart>(r#"{"application":"sometimes"}"#).unwrap_err();
    }
}
