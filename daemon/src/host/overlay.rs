//! Root file systems: image layers under the ids of one sandbox.
//!
//! Nothing is copied and nothing is chowned: each layer is cloned with the id
//! mapping of the sandbox's user namespace, and overlayfs lies over the clones.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{Error, files, mount as mounts};

/// Longest option text that `mount(2)` takes: one page less its NUL.
const MAX_OPTIONS_LEN: usize = 4095;

/// Where the writable side of a root file system lies.
#[derive(Debug, Clone)]
pub struct Upper {
    /// Directory of the changed files; its owner becomes the owner of `/`.
    pub upper: PathBuf,
    /// Directory that overlayfs works in, on the same file system.
    pub work: PathBuf,
}

/// Mounts a writable root file system on `target`.
///
/// `layers` come topmost first; `staging` is an existing private directory
/// that is empty again afterwards.
///
/// # Errors
/// What the kernel refuses; nothing stays mounted then.
pub fn mount_writable(
    target: &Path,
    layers: &[PathBuf],
    upper: &Upper,
    staging: &Path,
    user_namespace: BorrowedFd<'_>,
) -> Result<(), Error> {
    with_mapped_layers(layers, staging, user_namespace, |mapped| {
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            mapped.join(":"),
            path_text(&upper.upper)?,
            path_text(&upper.work)?
        );
        mount_overlay(target, &options)
    })
}

/// Mounts a read-only root file system on `target`; see [`mount_writable`].
///
/// # Errors
/// What the kernel refuses; nothing stays mounted then.
pub fn mount_readonly(
    target: &Path,
    layers: &[PathBuf],
    staging: &Path,
    user_namespace: BorrowedFd<'_>,
) -> Result<(), Error> {
    if let [only] = layers {
        return mounts::attach_idmapped(only, target, user_namespace);
    }
    with_mapped_layers(layers, staging, user_namespace, |mapped| {
        mount_overlay(target, &format!("lowerdir={}", mapped.join(":")))
    })
}

/// Attaches the mapped clones below `staging` while `work` runs. Overlayfs
/// takes clones of its own, so they can go right after.
fn with_mapped_layers(
    layers: &[PathBuf],
    staging: &Path,
    user_namespace: BorrowedFd<'_>,
    work: impl FnOnce(&[String]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut points = Vec::with_capacity(layers.len());
    let result = attach_layers(layers, staging, user_namespace, &mut points).and_then(|texts| work(&texts));
    for point in &points {
        mounts::unmount(point)?;
        files::remove_dir(point)?;
    }
    result
}

fn attach_layers(
    layers: &[PathBuf],
    staging: &Path,
    user_namespace: BorrowedFd<'_>,
    points: &mut Vec<PathBuf>,
) -> Result<Vec<String>, Error> {
    let mut texts = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        let point = staging.join(index.to_string());
        files::create_dir(&point, 0o700)?;
        points.push(point.clone());
        mounts::attach_idmapped(layer, &point, user_namespace)?;
        texts.push(path_text(&point)?);
    }
    Ok(texts)
}

/// A path as an overlayfs option; its separators cannot stand in it.
fn path_text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().filter(|t| !t.contains([':', ',', '\\']));
    text.map(str::to_owned)
        .ok_or_else(|| Error::Unfit(format!("the path {} holds one of : , \\ : choose another root", path.display())))
}

fn mount_overlay(target: &Path, options: &str) -> Result<(), Error> {
    if options.len() > MAX_OPTIONS_LEN {
        return Err(Error::Unfit(format!(
            "the image has too many layers for one overlay mount ({} option bytes of {MAX_OPTIONS_LEN}): choose a shorter root or squash the image",
            options.len()
        )));
    }
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options))
        .map_err(|e| Error::path("mount overlay on", target, e))
}
