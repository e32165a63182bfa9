//! What people ask when something is wrong: the fitness of a host, the last
//! starts of a node, and the parts of a support bundle.

use serde::{Deserialize, Serialize};

use super::StageTiming;
use crate::id::{SandboxId, SandboxName, TemplateName};

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Sandboxes run, with less than there could be.
    Warn,
    /// Sandboxes do not run, or not safely.
    Fail,
}

impl Verdict {
    /// The word as JSON and tables show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// Group of checks, e.g. `kernel`.
    pub area: String,
    /// Stable word, e.g. `idmapped-overlay`.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What there is, as one line.
    pub found: String,
    /// What to change, command or file; empty when all is well.
    #[serde(default)]
    pub advice: String,
}

/// Whether a host is fit for sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostReport {
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// Version of the roostd that looked.
    pub daemon_version: String,
    /// How many sandboxes the limits were judged for.
    pub sandboxes: u32,
    /// In the order in which people read them.
    pub checks: Vec<Check>,
}

impl HostReport {
    /// The worst verdict of all.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// How many checks came out like this.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }
}

/// One start that came to an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartRecord {
    /// Whose.
    pub sandbox_id: SandboxId,
    /// Name for people.
    #[serde(default)]
    pub name: Option<SandboxName>,
    /// Template it was made from.
    pub template: TemplateName,
    /// Unix time of its end, in milliseconds.
    pub ended_at_unix_ms: u64,
    /// Why it failed, a stable word; absent when it ended in Ready.
    #[serde(default)]
    pub failure: Option<String>,
    /// Its stages, in order.
    pub stages: Vec<StageTiming>,
}

impl StartRecord {
    /// From the acceptance to the end of the last stage, in microseconds.
    #[must_use]
    pub fn total_us(&self) -> u64 {
        self.stages.iter().map(|stage| stage.begin_us.saturating_add(stage.duration_us)).max().unwrap_or(0)
    }
}

/// Something that is not in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeftOut {
    /// What, e.g. `values of environment variables`.
    pub what: String,
    /// Why, and where to find it when it is needed.
    pub why: String,
}

/// One part of a support bundle on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SupportPart {
    /// First: how many files follow.
    Begin {
        /// Number of files.
        files: u32,
    },
    /// A piece of a text file; pieces of one path follow each other.
    Chunk {
        /// Path below the sender's directory in the bundle.
        path: String,
        /// At most 256 KiB.
        text: String,
    },
    /// Something that is not there.
    LeftOut(LeftOut),
}
