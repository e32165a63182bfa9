//! Plugins of containerd: whether a snapshotter is there and works.

use containerd_client::services::v1::PluginsRequest;

use super::client::Client;
use super::error::Error;

/// How a snapshotter of a running containerd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotterState {
    /// It works.
    Works,
    /// containerd has none of that name.
    Unknown,
    /// It is there and could not start; the text says why.
    Broken(String),
}

impl Client {
    /// Asks for a snapshotter by its name, e.g. `overlayfs`.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn snapshotter_state(&self, name: &str) -> Result<SnapshotterState, Error> {
        let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
        let answer = self.introspection().plugins(self.request(PluginsRequest { filters })).await;
        let plugins = answer.map_err(Error::of("list plugins", "containerd"))?.into_inner().plugins;
        Ok(match plugins.into_iter().find(|plugin| plugin.id == name) {
            None => SnapshotterState::Unknown,
            Some(plugin) => match plugin.init_err {
                Some(error) => SnapshotterState::Broken(error.message),
                None => SnapshotterState::Works,
            },
        })
    }
}
