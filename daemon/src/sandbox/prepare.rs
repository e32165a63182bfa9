//! The host side of a start: directories, namespaces, cgroup, mounts.
//! Blocking; each function takes about a millisecond.

use std::path::{Path, PathBuf};

use roost_proto::id::SandboxId;
use roost_proto::model::{Resources, SandboxSpec};

use super::claim::ClaimDir;
use super::layout::SandboxDirs;
use crate::containerd::Role;
use crate::host::cgroup::Cgroups;
use crate::host::mount::{Tmpfs, mount_tmpfs, unmount};
use crate::host::overlay::{Upper, mount_readonly, mount_writable};
use crate::host::{Error, fault, files, namespaces};
use crate::storage::Storage;

/// Bytes of the framebuffer's tmpfs above the pixels: the file's header.
const FRAMEBUFFER_SLACK_BYTES: u64 = 1 << 20;
/// Bytes of one pixel in the framebuffer.
const PIXEL_BYTES: u64 = 4;

/// What the host side needs to know, owned: it moves to a blocking thread.
#[derive(Debug, Clone)]
pub struct HostPlan {
    /// Whose.
    pub id: SandboxId,
    /// Where.
    pub dirs: SandboxDirs,
    /// What id 0 inside is outside.
    pub first_id: u32,
    /// User of both containers, inside.
    pub uid: u32,
    /// Group of both containers, inside.
    pub gid: u32,
    /// The screen.
    pub spec: SandboxSpec,
    /// Limits and the size of `/dev/shm`.
    pub resources: Resources,
    /// Layers of the display image, topmost first.
    pub display_layers: Vec<PathBuf>,
    /// Layers of the workload image, topmost first.
    pub workload_layers: Vec<PathBuf>,
    /// Holds what is written, where that is limited.
    pub storage: Storage,
}

impl HostPlan {
    /// Ids of both containers' user, as the host counts.
    fn owner(&self) -> (u32, u32) {
        (self.first_id + self.uid, self.first_id + self.gid)
    }
}

/// Makes the sandbox's directory and its pinned namespaces.
///
/// # Errors
/// What the host refuses.
pub fn make_namespaces(plan: &HostPlan) -> Result<(), Error> {
    files::create_dir(plan.dirs.dir(), 0o711)?;
    files::create_dir(plan.dirs.logs(), 0o700)?;
    namespaces::create(&plan.dirs.namespaces(), plan.first_id, plan.id.as_str())
}

/// Makes the cgroup, the tmpfs mounts, the small files and both root file
/// systems. A disk limit adds some 20 ms where it needs a file system.
///
/// # Errors
/// What the host refuses; the caller tears down.
pub fn make_rootfs(plan: &HostPlan, cgroups: &Cgroups) -> Result<(), Error> {
    cgroups.create(plan.id.as_str(), &plan.resources)?;
    fault::point("create.cgroup")?;
    make_shared_dirs(plan)?;
    fault::point("create.shared")?;
    write_etc(plan)?;
    mount_root_file_systems(plan)
}

fn make_shared_dirs(plan: &HostPlan) -> Result<(), Error> {
    let (uid, gid) = plan.owner();
    let dirs = &plan.dirs;
    files::create_owned_dir(&dirs.x11(), 0o755, uid, gid)?;
    files::create_owned_dir(&dirs.display(), 0o711, uid, gid)?;
    files::create_dir(&dirs.framebuffer(), 0o700)?;
    let pixels = u64::from(plan.spec.display.width_px) * u64::from(plan.spec.display.height_px);
    let size_bytes = pixels * PIXEL_BYTES + FRAMEBUFFER_SLACK_BYTES;
    mount_tmpfs(&dirs.framebuffer(), Tmpfs { size_bytes, mode: 0o700, uid, gid })?;
    ClaimDir::new(&dirs.claim(), (uid, gid)).create()?;
    renew_shm(&dirs.shm(), plan.resources.shm_bytes, plan.first_id)
}

/// Puts an empty `/dev/shm` of `size_bytes` in the place of one that may be
/// there: nothing may hold it any more.
///
/// # Errors
/// What the host refuses.
pub fn renew_shm(shm: &Path, size_bytes: u64, first_id: u32) -> Result<(), Error> {
    unmount(shm)?;
    files::create_dir(shm, 0o700)?;
    mount_tmpfs(shm, Tmpfs { size_bytes, mode: 0o1777, uid: first_id, gid: first_id })
}

/// The sandbox has no network yet: names resolve by `hosts` alone.
fn write_etc(plan: &HostPlan) -> Result<(), Error> {
    let etc = plan.dirs.etc();
    files::create_dir(&etc, 0o711)?;
    let hosts = format!("127.0.0.1 localhost {}\n::1 localhost\n", plan.id);
    files::write(&etc.join("hosts"), hosts.as_bytes(), 0o644)?;
    files::write(&etc.join("hostname"), format!("{}\n", plan.id).as_bytes(), 0o644)?;
    files::write(&etc.join("resolv.conf"), b"", 0o644)
}

fn mount_root_file_systems(plan: &HostPlan) -> Result<(), Error> {
    use std::os::fd::AsFd;
    let dirs = &plan.dirs;
    let user_namespace = namespaces::open_user(&dirs.namespaces())?;
    let (display, workload) = (dirs.rootfs(Role::Display), dirs.rootfs(Role::Workload));
    files::create_dir(&dirs.dir().join("rootfs"), 0o711)?;
    let upper = open_changes(plan)?;
    fault::point("create.storage")?;
    for dir in [&display, &workload, &upper.work, &dirs.stage()] {
        files::create_dir(dir, 0o711)?;
    }
    // The owner of the upper directory becomes the owner of the workload's `/`.
    files::create_owned_dir(&upper.upper, 0o755, plan.first_id, plan.first_id)?;
    mount_readonly(&display, &plan.display_layers, &dirs.stage(), user_namespace.as_fd())?;
    fault::point("create.layers")?;
    mount_writable(&workload, &plan.workload_layers, &upper, &dirs.stage(), user_namespace.as_fd())
}

/// Where the workload's changes go. The first id of a sandbox is a project
/// that no other sandbox of the machine has.
fn open_changes(plan: &HostPlan) -> Result<Upper, Error> {
    let limit_bytes = plan.resources.disk_limit_bytes;
    let is_bounded = limit_bytes > 0;
    if is_bounded {
        plan.storage.open(&plan.dirs.bounded(), plan.first_id, limit_bytes)?;
    }
    Ok(Upper { upper: plan.dirs.upper(is_bounded), work: plan.dirs.work(is_bounded) })
}
