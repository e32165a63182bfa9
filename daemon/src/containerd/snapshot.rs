//! The unpacked layers of an image, as directories.
//!
//! One read-only view per image is kept in containerd for as long as the
//! image is used here; all sandboxes of the image share its directories and
//! thereby the page cache.

use std::collections::HashMap;
use std::path::PathBuf;

use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::snapshots::{
    ListSnapshotsRequest, MountsRequest, RemoveSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};
use containerd_client::types::Mount;

use super::client::Client;
use super::error::{Error, Idempotent};
use crate::host;

/// Label that keeps an object from containerd's garbage collection.
const GC_ROOT_LABEL: &str = "containerd.io/gc.root";

/// Beginning of the keys of views.
const VIEW: &str = "roost-view-";

/// Key of the view of a chain of layers.
fn view_key(chain_id: &str) -> String {
    format!("{VIEW}{}", chain_id.rsplit(':').next().unwrap_or(chain_id))
}

/// The file system that holds snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Its size, in bytes, without what only root may use.
    pub size_bytes: u64,
    /// Free bytes that programs may still use.
    pub available_bytes: u64,
}

impl DiskUsage {
    /// How full it is, rounded up, in percent.
    #[must_use]
    pub fn used_percent(&self) -> u8 {
        let used = u128::from(self.size_bytes.saturating_sub(self.available_bytes));
        let percent = (used * 100).div_ceil(u128::from(self.size_bytes.max(1)));
        u8::try_from(percent).unwrap_or(100)
    }
}

impl Client {
    /// Directories of an unpacked chain of layers, topmost first. They stay
    /// until [`Client::remove_view`].
    ///
    /// # Errors
    /// That the chain is not unpacked, that the snapshotter gives something
    /// else than directories, or that containerd is unavailable.
    pub async fn ensure_view(&self, snapshotter: &str, chain_id: &str) -> Result<Vec<PathBuf>, Error> {
        let key = view_key(chain_id);
        let message = ViewSnapshotRequest {
            snapshotter: snapshotter.into(),
            key: key.clone(),
            parent: chain_id.into(),
            labels: HashMap::from([(GC_ROOT_LABEL.to_owned(), "roost".to_owned())]),
        };
        let view = self.snapshots().view(self.request(message)).await;
        let mounts = match view.map_err(Error::of("view snapshot", chain_id)) {
            Ok(answer) => answer.into_inner().mounts,
            Err(error) if error.is_already_exists() => {
                let message = MountsRequest { snapshotter: snapshotter.into(), key: key.clone() };
                let answer = self.snapshots().mounts(self.request(message)).await;
                answer.map_err(Error::of("get mounts of snapshot", key.clone()))?.into_inner().mounts
            }
            Err(error) => return Err(error),
        };
        let answer = Error::Answer { operation: "get mounts of snapshot", object: key, missing: "layer directories" };
        layer_dirs(&mounts).ok_or(answer)
    }

    /// Chains that have a view.
    ///
    /// # Errors
    /// That containerd is unavailable.
    pub async fn list_views(&self, snapshotter: &str) -> Result<Vec<String>, Error> {
        let filters = vec![format!("name~=^{VIEW}")];
        let message = ListSnapshotsRequest { snapshotter: snapshotter.into(), filters };
        let failed = |status| Error::from_status("list snapshots", snapshotter, status);
        let mut pages = self.snapshots().list(self.request(message)).await.map_err(failed)?.into_inner();
        let mut chains = Vec::new();
        while let Some(page) = pages.message().await.map_err(failed)? {
            let views =
                page.info.into_iter().filter_map(|info| Some(format!("sha256:{}", info.name.strip_prefix(VIEW)?)));
            chains.extend(views);
        }
        Ok(chains)
    }

    /// Bytes and inodes' worth of a committed snapshot without those below it.
    ///
    /// # Errors
    /// That it is gone or containerd unavailable.
    pub async fn snapshot_bytes(&self, snapshotter: &str, key: &str) -> Result<u64, Error> {
        let message = UsageRequest { snapshotter: snapshotter.into(), key: key.into() };
        let answer = self.snapshots().usage(self.request(message)).await;
        Ok(u64::try_from(answer.map_err(Error::of("measure snapshot", key))?.into_inner().size).unwrap_or_default())
    }

    /// The file system that holds the snapshots; none if containerd does not
    /// say where it is, or it is not seen from here.
    ///
    /// # Errors
    /// That containerd is unavailable.
    pub async fn disk_usage(&self, snapshotter: &str) -> Result<Option<DiskUsage>, Error> {
        let filters = vec![format!("type==io.containerd.snapshotter.v1,id=={snapshotter}")];
        let answer = self.introspection().plugins(self.request(PluginsRequest { filters })).await;
        let plugins = answer.map_err(Error::of("look up snapshotter", snapshotter))?.into_inner().plugins;
        let root = plugins.into_iter().find_map(|mut plugin| plugin.exports.remove("root"));
        Ok(root
            // Not seen from here: containerd may live in another mount namespace.
            .and_then(|root| host::disk::space(root.as_ref()).ok())
            // Blocks that only root may use count as neither used nor free.
            .map(|space| DiskUsage {
                size_bytes: space.used_bytes.saturating_add(space.free_bytes),
                available_bytes: space.free_bytes,
            }))
    }

    /// Lets go of the view of a chain; none is success.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn remove_view(&self, snapshotter: &str, chain_id: &str) -> Result<(), Error> {
        let message = RemoveSnapshotRequest { snapshotter: snapshotter.into(), key: view_key(chain_id) };
        self.snapshots().remove(self.request(message)).await.map_err(Error::of("remove view of", chain_id)).or_gone()
    }
}

/// Layer directories of a read-only view: one bind mount for a single layer,
/// an overlay of lower directories for more.
fn layer_dirs(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let [mount] = mounts else { return None };
    match mount.r#type.as_str() {
        "bind" => Some(vec![PathBuf::from(&mount.source)]),
        "overlay" => {
            let lower = mount.options.iter().find_map(|o| o.strip_prefix("lowerdir="))?;
            Some(lower.split(':').map(PathBuf::from).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.into(),
            source: source.into(),
            options: options.iter().map(ToString::to_string).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn both_shapes_of_a_view_give_directories() {
        assert_eq!(layer_dirs(&[mount("bind", "/s/1/fs", &["ro"])]), Some(vec!["/s/1/fs".into()]));
        let two = mount("overlay", "overlay", &["index=off", "lowerdir=/s/2/fs:/s/1/fs"]);
        assert_eq!(layer_dirs(&[two]), Some(vec!["/s/2/fs".into(), "/s/1/fs".into()]));
    }

    #[test]
    fn a_disk_is_as_full_as_programs_find_it() {
        let percent = |available_bytes| DiskUsage { size_bytes: 1000, available_bytes }.used_percent();
        assert_eq!((percent(1000), percent(999), percent(0)), (0, 1, 100));
    }

    #[test]
    fn a_view_that_is_no_directory_is_refused() {
        assert_eq!(layer_dirs(&[mount("ext4", "/dev/dm-1", &[])]), None);
        assert_eq!(layer_dirs(&[]), None);
    }
}
