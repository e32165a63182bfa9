//! How long a sandbox lives, and what becomes of it then.

use serde::{Deserialize, Serialize};

use super::{FieldError, Validate};

/// Shortest time to live, in milliseconds: what ends before it is Ready helps
/// nobody.
const MIN_LIFE_MS: u64 = 1_000;
/// Shortest idle timeout, in milliseconds: a node looks every ten seconds at
/// most whether somebody uses a sandbox.
const MIN_IDLE_MS: u64 = 10_000;
/// Longest time of any kind, in milliseconds (ten years).
const MAX_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// Most CPU that idleness can be measured with, in thousandths of a core.
const MAX_CPU_MILLIS: u32 = 1_000_000;

/// What becomes of a sandbox whose time is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExpiryAction {
    /// Its processes end, its files stay.
    #[default]
    Stop,
    /// Its processes stand still and keep their memory.
    Pause,
    /// It goes with everything it holds.
    Delete,
}

impl ExpiryAction {
    /// Its name in JSON and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Delete => "delete",
        }
    }
}

impl std::fmt::Display for ExpiryAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ExpiryReason {
    /// The longest life that the profile allows.
    #[serde(rename = "expired-lifetime")]
    Lifetime,
    /// Its time to live.
    #[serde(rename = "expired-ttl")]
    Ttl,
    /// The time for which nobody may leave it unused.
    #[serde(rename = "expired-idle")]
    Idle,
}

impl ExpiryReason {
    /// The stable word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lifetime => "expired-lifetime",
            Self::Ttl => "expired-ttl",
            Self::Idle => "expired-idle",
        }
    }

    /// Whether a stable word is one of these.
    #[must_use]
    pub fn is_named(word: &str) -> bool {
        [Self::Lifetime, Self::Ttl, Self::Idle].iter().any(|reason| reason.as_str() == word)
    }
}

impl std::fmt::Display for ExpiryReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How long a sandbox lives; 0 = without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Lifetime {
    /// Deleted so long after its creation or, if it was claimed, its claim, in
    /// milliseconds. Time in which it is stopped does not count.
    pub ttl_ms: u64,
    /// Deleted so long after its creation or claim, stopped or not, in
    /// milliseconds. Nothing lengthens it.
    pub max_ms: u64,
    /// How long it may go unused, in milliseconds: no input, no viewer, no
    /// program started from outside, little CPU.
    pub idle_timeout_ms: u64,
    /// What becomes of it when nobody used it for so long.
    pub idle_action: ExpiryAction,
    /// CPU from which on it counts as used, in thousandths of a core.
    pub idle_cpu_millis: u32,
}

impl Default for Lifetime {
    /// Without end. A twentieth of a core is above what a desktop with a clock
    /// and a blinking cursor takes, and below a page that plays a video.
    fn default() -> Self {
        Self { ttl_ms: 0, max_ms: 0, idle_timeout_ms: 0, idle_action: ExpiryAction::Stop, idle_cpu_millis: 50 }
    }
}

impl Lifetime {
    /// Whether nothing is said: left out of what is stored and shown.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it ever ends.
    #[must_use]
    pub fn is_endless(&self) -> bool {
        self.ttl_ms == 0 && self.max_ms == 0 && self.idle_timeout_ms == 0
    }
}

impl Validate for Lifetime {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        let mut require = |value: u64, low: u64, field: &str| {
            if value != 0 && !(low..=MAX_MS).contains(&value) {
                let problem = format!("{value} is out of range: use 0 (without end), or {low} to {MAX_MS}");
                errors.push(FieldError::new(format!("{path}{field}"), problem));
            }
        };
        require(self.ttl_ms, MIN_LIFE_MS, "ttl_ms");
        require(self.max_ms, MIN_LIFE_MS, "max_ms");
        require(self.idle_timeout_ms, MIN_IDLE_MS, "idle_timeout_ms");
        if !(1..=MAX_CPU_MILLIS).contains(&self.idle_cpu_millis) {
            let problem = format!("{} is out of range: use 1 to {MAX_CPU_MILLIS}", self.idle_cpu_millis);
            errors.push(FieldError::new(format!("{path}idle_cpu_millis"), problem));
        }
    }
}

/// New values for some of a lifetime; absent ones stay as they are. The longest
/// life is the profile's alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LifetimeChange {
    /// Time to live, in milliseconds, from the moment at which it is set; 0 =
    /// without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// How long it may go unused, in milliseconds; 0 = without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// What becomes of it when nobody used it for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_action: Option<ExpiryAction>,
    /// CPU from which on it counts as used, in thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_cpu_millis: Option<u32>,
}

impl LifetimeChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What `held` becomes.
    #[must_use]
    pub fn over(&self, held: &Lifetime) -> Lifetime {
        Lifetime {
            ttl_ms: self.ttl_ms.unwrap_or(held.ttl_ms),
            max_ms: held.max_ms,
            idle_timeout_ms: self.idle_timeout_ms.unwrap_or(held.idle_timeout_ms),
            idle_action: self.idle_action.unwrap_or(held.idle_action),
            idle_cpu_millis: self.idle_cpu_millis.unwrap_or(held.idle_cpu_millis),
        }
    }

    /// What `held` becomes, if that keeps the rules.
    ///
    /// # Errors
    /// A change of nothing, and every rule that the result breaks.
    pub fn apply(&self, held: &Lifetime) -> Result<Lifetime, Vec<FieldError>> {
        if self.is_nothing() {
            return Err(vec![FieldError::new("lifetime", "must change at least one time")]);
        }
        let changed = self.over(held);
        let mut errors = Vec::new();
        changed.check("lifetime.", &mut errors);
        if errors.is_empty() { Ok(changed) } else { Err(errors) }
    }
}

impl Validate for LifetimeChange {
    fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        self.over(&Lifetime::default()).check(path, errors);
    }
}

/// The next time that will be over, if nobody changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Ends {
    /// Unix time, in milliseconds, by the clock of the node: for people. The
    /// node itself counts the time that it was up.
    pub at_unix_ms: u64,
    /// Which time.
    pub reason: ExpiryReason,
    /// What becomes of it then.
    pub action: ExpiryAction,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_never_the_longest_life() {
        let held = Lifetime { ttl_ms: 5_000, max_ms: 9_000, ..Lifetime::default() };
        let change = LifetimeChange { idle_timeout_ms: Some(20_000), ..LifetimeChange::default() };
        assert_eq!(change.apply(&held), Ok(Lifetime { idle_timeout_ms: 20_000, ..held }));
        assert_eq!(LifetimeChange::default().apply(&held).unwrap_err()[0].field, "lifetime");
        serde_json::from_str::<LifetimeChange>(r#"{"max_ms":1}"#).unwrap_err();
    }

    #[test]
    fn times_that_a_node_cannot_keep_are_named() {
        let wrong =
            Lifetime { ttl_ms: 1, max_ms: u64::MAX, idle_timeout_ms: 9_999, idle_cpu_millis: 0, ..Lifetime::default() };
        let fields: Vec<String> = wrong.validate().unwrap_err().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["ttl_ms", "max_ms", "idle_timeout_ms", "idle_cpu_millis"]);
        assert_eq!(Lifetime::default().validate(), Ok(()));
    }

    #[test]
    fn reasons_have_stable_words() {
        for reason in [ExpiryReason::Lifetime, ExpiryReason::Ttl, ExpiryReason::Idle] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert!(ExpiryReason::is_named(reason.as_str()));
        }
        assert!(!ExpiryReason::is_named("workload-exited"));
    }
}
