//! Where containerd keeps images.

use std::path::PathBuf;

use containerd_client::services::v1::PluginsRequest;

use super::client::Client;
use super::error::Error;

/// Plugin type of snapshotters.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";
/// Plugin type of the content store.
const CONTENT: &str = "io.containerd.content.v1";

impl Client {
    /// Directories of the content store and of one snapshotter, as containerd
    /// sees them.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn image_roots(&self, snapshotter: &str) -> Result<Vec<PathBuf>, Error> {
        let request = self.request(PluginsRequest { filters: Vec::new() });
        let answer = self.introspection().plugins(request).await;
        let plugins = answer.map_err(Error::of("list plugins of", "containerd"))?.into_inner().plugins;
        let holds_images =
            plugins.into_iter().filter(|p| p.r#type == CONTENT || (p.r#type == SNAPSHOTTER && p.id == snapshotter));
        Ok(holds_images.filter_map(|mut plugin| plugin.exports.remove("root")).map(PathBuf::from).collect())
    }
}
