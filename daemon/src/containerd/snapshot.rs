//! The unpacked layers of an image, as directories.
//!
//! One read-only view per image is kept in containerd for as long as the
//! image is used here; all sandboxes of the image share its directories and
//! thereby the page cache.

use std::collections::HashMap;
use std::path::PathBuf;

use containerd_client::services::v1::snapshots::{MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest};
use containerd_client::types::Mount;

use super::client::Client;
use super::error::{Error, Idempotent};

/// Label that keeps an object from containerd's garbage collection.
const GC_ROOT_LABEL: &str = "containerd.io/gc.root";

/// Key of the view of a chain of layers.
fn view_key(chain_id: &str) -> String {
    format!("roost-view-{}", chain_id.rsplit(':').next().unwrap_or(chain_id))
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
    fn a_view_that_is_no_directory_is_refused() {
        assert_eq!(layer_dirs(&[mount("ext4", "/dev/dm-1", &[])]), None);
        assert_eq!(layer_dirs(&[]), None);
    }
}
