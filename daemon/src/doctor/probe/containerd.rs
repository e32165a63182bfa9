//! containerd: whether it answers, and with what.

use std::time::Duration;

use super::super::facts::ContainerdFacts;
use super::programs;
use crate::config::ContainerdConfig;
use crate::containerd::Client;
use crate::containerd::plugin::SnapshotterState;
use crate::sandbox::failure::chain;

/// Longest time for an answer: a running containerd takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// `installed` is the version of the installed program.
pub(super) async fn look(config: &ContainerdConfig, installed: Option<String>) -> ContainerdFacts {
    let mut facts = ContainerdFacts {
        socket: config.socket.clone(),
        installed,
        has_shim: programs::find("containerd-shim-runc-v2").is_some(),
        snapshotter: config.snapshotter.clone(),
        ..ContainerdFacts::default()
    };
    let Ok(client) = Client::connect(&config.socket, &config.namespace) else { return facts };
    let client = client.with_timeout(TIMEOUT);
    if let Ok(version) = client.version().await {
        facts.answered = Some(version.version);
        facts.snapshotter_state = Some(match client.snapshotter_state(&config.snapshotter).await {
            Ok(SnapshotterState::Works) => Ok(()),
            Ok(SnapshotterState::Unknown) => Err("containerd has none of that name".into()),
            Ok(SnapshotterState::Broken(problem)) => Err(problem),
            Err(error) => Err(chain(&error)),
        });
    }
    facts
}
