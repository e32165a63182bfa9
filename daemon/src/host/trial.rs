//! Trying what sandboxes need, without leaving anything behind.
//!
//! A trial runs on a thread in a mount namespace of its own: whatever it
//! mounts is gone with the thread, even when the process is killed. Its files
//! lie in one temporary directory.

#![allow(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use roost_proto::model::Resources;

use super::cgroup::Cgroups;
use super::{Error, files, mount as mounts, namespaces, overlay};

/// How the trials that need mounts went.
#[derive(Debug)]
pub struct MountTrials {
    /// User, network, IPC and UTS namespaces of a sandbox.
    pub namespaces: Result<(), Error>,
    /// A plain overlay mount.
    pub overlay: Result<(), Error>,
    /// An overlay over an id-mapped layer, written to by a mapped id; absent
    /// if one of the others failed.
    pub idmapped_overlay: Option<Result<(), Error>>,
}

/// Tries namespaces and overlays in a temporary directory in `base`, which
/// must exist. `first_id` is what id 0 inside is outside.
///
/// # Errors
/// When there cannot be such a directory or a mount namespace.
pub fn mounts(base: &Path, first_id: u32) -> Result<MountTrials, Error> {
    files::require_traversable(base)?;
    let dir = tempfile::Builder::new().prefix(".roost-doctor-").tempdir_in(base);
    let dir = dir.map_err(|e| Error::path("make a temporary directory in", base, e))?;
    files::set_mode(dir.path(), 0o711)?;
    let result = std::thread::scope(|scope| scope.spawn(|| on_own_thread(dir.path(), first_id)).join());
    result.unwrap_or_else(|_| Err(Error::Unfit("the trial of mounts panicked".into())))
}

fn on_own_thread(dir: &Path, first_id: u32) -> Result<MountTrials, Error> {
    // A namespace of this thread alone; it ends with the thread.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::call("make a mount namespace", e))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|e| Error::call("make the mounts of the trial private", e))?;
    let pins = dir.join("ns");
    let namespaces = namespaces::create(&pins, first_id, "roost-doctor");
    let overlay = plain_overlay(dir);
    let idmapped_overlay = (namespaces.is_ok() && overlay.is_ok()).then(|| mapped_overlay(dir, &pins, first_id));
    if namespaces.is_ok() {
        namespaces::remove(&pins)?;
    }
    Ok(MountTrials { namespaces, overlay, idmapped_overlay })
}

/// The directories of one overlay.
struct Dirs {
    lower: PathBuf,
    upper: overlay::Upper,
    staging: PathBuf,
    merged: PathBuf,
}

impl Dirs {
    /// Makes them, with one directory and file in the lower layer.
    fn create(dir: &Path, name: &str, owner: u32) -> Result<Self, Error> {
        let base = dir.join(name);
        files::create_dir(&base, 0o711)?;
        let under = |name: &str| -> Result<PathBuf, Error> {
            let path = base.join(name);
            files::create_dir(&path, 0o755)?;
            Ok(path)
        };
        let lower = under("lower")?;
        files::create_dir(&lower.join("etc"), 0o755)?;
        files::write(&lower.join("etc/file"), b"lower", 0o644)?;
        let upper = overlay::Upper { upper: under("upper")?, work: under("work")? };
        files::chown(&upper.upper, owner, owner)?;
        Ok(Self { lower, upper, staging: under("staging")?, merged: under("merged")? })
    }
}

fn plain_overlay(dir: &Path) -> Result<(), Error> {
    let dirs = Dirs::create(dir, "plain", 0)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        dirs.lower.display(),
        dirs.upper.upper.display(),
        dirs.upper.work.display()
    );
    mount(Some("overlay"), &dirs.merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|e| Error::path("mount overlay on", &dirs.merged, e))?;
    mounts::unmount(&dirs.merged)
}

fn mapped_overlay(dir: &Path, pins: &Path, first_id: u32) -> Result<(), Error> {
    let dirs = Dirs::create(dir, "mapped", first_id)?;
    let user = namespaces::open_user(pins)?;
    let layers = std::slice::from_ref(&dirs.lower);
    overlay::mount_writable(&dirs.merged, layers, &dirs.upper, &dirs.staging, std::os::fd::AsFd::as_fd(&user))?;
    let result = write_as(first_id, &dirs.merged.join("etc/file"));
    mounts::unmount(&dirs.merged)?;
    result
}

/// Changes a file of the layer, as the root of the sandbox would.
fn write_as(first_id: u32, path: &Path) -> Result<(), Error> {
    let owner = std::fs::metadata(path).map_err(|e| Error::path("look at", path, e))?.uid();
    if owner != first_id {
        return Err(Error::Unfit(format!("files of the id-mapped layer belong to {owner} instead of {first_id}")));
    }
    set_file_ids(first_id);
    let written = std::fs::write(path, b"changed").map_err(|e| Error::path("write", path, e));
    set_file_ids(0);
    written
}

/// Makes file accesses of this thread those of an id; with an id that is not
/// 0 the kernel drops the capabilities that would pass every check.
fn set_file_ids(id: u32) {
    // SAFETY: plain system calls without memory; they concern this thread
    // only. They have no errors: the write afterwards shows what came of it.
    unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
    }
}

/// Makes a cgroup with limits and removes it again.
///
/// # Errors
/// What the kernel refuses.
pub fn cgroup() -> Result<(), Error> {
    let cgroups = Cgroups::new(&format!("roost-doctor-{}", std::process::id()));
    let resources = Resources::default();
    let made = cgroups.create("trial", &resources);
    cgroups.remove("trial")?;
    cgroups.remove_parent()?;
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_works_here_and_leaves_no_mount_and_no_file() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        files::set_mode(root.path(), 0o711).unwrap();
        let trials = mounts(root.path(), 1_000_000).unwrap();
        trials.namespaces.unwrap();
        trials.overlay.unwrap();
        trials.idmapped_overlay.unwrap().unwrap();
        assert_eq!(mounts::mounts_under(root.path()).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_trial_on_a_file_system_without_room_for_overlays_fails_by_name() {
        // proc takes no directories at all.
        let error = mounts(Path::new("/proc/sys"), 1_000_000).unwrap_err();
        assert!(error.to_string().contains("/proc/sys"), "{error}");
    }

    #[test]
    fn the_trial_of_cgroups_leaves_none() {
        cgroup().unwrap();
        assert_eq!(Cgroups::new(&format!("roost-doctor-{}", std::process::id())).list(), Vec::<String>::new());
    }
}
