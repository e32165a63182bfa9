//! Whether a host is fit for sandboxes, and what a node can and cannot do.
//!
//! [`probe`] looks and tries; it needs neither a daemon nor central, changes
//! nothing that lasts, and clears away what it made. [`judge`] is pure: from
//! facts follow verdicts with the command or file that mends them.
//! [`abilities`] tells the same facts as the status of a node. [`print`]
//! writes a report for people.

pub mod abilities;
pub mod facts;
pub mod judge;
pub mod print;
pub mod probe;

use roost_proto::model::HostReport;

use crate::config::Config;
use facts::{HostFacts, Subject};

/// Looks at the host and judges it for `sandboxes` at once.
///
/// `is_running` says whether the caller is the daemon of this configuration:
/// then its own ports and files are not in the way. Takes up to some seconds,
/// when programs or containerd are slow to answer.
pub async fn examine(config: &Config, sandboxes: u32, is_running: bool) -> HostReport {
    report(&look(config, sandboxes, is_running).await)
}

/// The facts of the host.
pub async fn look(config: &Config, sandboxes: u32, is_running: bool) -> HostFacts {
    let subject = Subject {
        sandboxes,
        root: config.root.clone(),
        reserved_disk_bytes: config.reserved.disk_bytes,
        first_id: config.sandboxes.first_id,
        is_running,
    };
    probe::host(config, subject).await
}

/// Judges the facts.
#[must_use]
pub fn report(facts: &HostFacts) -> HostReport {
    HostReport {
        hostname: facts.kernel.hostname.clone(),
        kernel: facts.kernel.release.clone(),
        daemon_version: env!("CARGO_PKG_VERSION").into(),
        sandboxes: facts.subject.sandboxes,
        checks: judge::checks(facts),
    }
}

/// How many sandboxes a configuration asks for.
#[must_use]
pub fn configured_sandboxes(config: &Config) -> u32 {
    u32::try_from(config.sandboxes.max).unwrap_or(u32::MAX)
}
