//! Where the daemon's files lie. Pure.
//!
//! ```text
//! <root>/ledger/                      what is durable
//! <root>/logs/<id>/{display,workload}.log
//! <root>/sandboxes/<id>/
//!     ns/{user,net,ipc,uts}           pinned namespaces
//!     display/{displayfd,xauth,fb/}   the display container's /run/roost
//!     x11/X<n>                        the X socket, both containers' /tmp/.X11-unix
//!     shm/                            the workload's /dev/shm
//!     claim/                          the workload's /run/roost/claim, a tmpfs
//!     etc/{hosts,hostname,resolv.conf}
//!     rootfs/{display,workload}/      mounted root file systems
//!     upper/ work/                    what the workload changed, without a disk limit
//!     disk/{upper,work}/ disk.img     the same with one
//!     stage/                          empty, for mounting
//! <root>/volumes/                     see `crate::volume`
//! ```

use std::path::{Path, PathBuf};

use roost_proto::id::SandboxId;

use crate::containerd::Role;
use crate::storage::Place;
use crate::volume::VolumesDir;

/// The daemon's root directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// The directories of one sandbox.
#[derive(Debug, Clone)]
pub struct SandboxDirs {
    dir: PathBuf,
    logs: PathBuf,
}

impl Layout {
    /// Files below `root`, an absolute path.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The root itself; all mounts lie below it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The ledger's directory.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// The parent of all sandboxes' directories.
    #[must_use]
    pub fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// The parent of all sandboxes' logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Where uploads wait for their import.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Empty file systems, to be copied.
    #[must_use]
    pub fn blanks(&self) -> PathBuf {
        self.root.join("blanks")
    }

    /// Where volumes are saved, unless the operator says otherwise.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The parent of all volumes.
    #[must_use]
    pub fn volumes(&self) -> VolumesDir {
        VolumesDir::new(self.root.join("volumes"))
    }

    /// The directories of one sandbox.
    #[must_use]
    pub fn sandbox(&self, id: &SandboxId) -> SandboxDirs {
        SandboxDirs { dir: self.sandboxes().join(id.as_str()), logs: self.logs().join(id.as_str()) }
    }
}

impl SandboxDirs {
    /// The sandbox's own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its logs.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Output of one container.
    #[must_use]
    pub fn log(&self, role: Role) -> PathBuf {
        self.logs.join(format!("{}.log", role.as_str()))
    }

    /// Pinned namespaces.
    #[must_use]
    pub fn namespaces(&self) -> PathBuf {
        self.dir.join("ns")
    }

    /// The display container's `/run/roost`.
    #[must_use]
    pub fn display(&self) -> PathBuf {
        self.dir.join("display")
    }

    /// The framebuffer's tmpfs.
    #[must_use]
    pub fn framebuffer(&self) -> PathBuf {
        self.display().join("fb")
    }

    /// The X authority file.
    #[must_use]
    pub fn xauth(&self) -> PathBuf {
        self.display().join("xauth")
    }

    /// The FIFO on which the X server tells its display number.
    #[must_use]
    pub fn display_fd(&self) -> PathBuf {
        self.display().join("displayfd")
    }

    /// The directory of the X socket.
    #[must_use]
    pub fn x11(&self) -> PathBuf {
        self.dir.join("x11")
    }

    /// The X socket.
    #[must_use]
    pub fn x11_socket(&self, display_number: u32) -> PathBuf {
        self.x11().join(format!("X{display_number}"))
    }

    /// The workload's `/dev/shm`.
    #[must_use]
    pub fn shm(&self) -> PathBuf {
        self.dir.join("shm")
    }

    /// The directory of its claim, a tmpfs.
    #[must_use]
    pub fn claim(&self) -> PathBuf {
        self.dir.join("claim")
    }

    /// Files for the workload's `/etc`.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// The mounted root file system of one container.
    #[must_use]
    pub fn rootfs(&self, role: Role) -> PathBuf {
        self.dir.join("rootfs").join(role.as_str())
    }

    /// What holds the changes of a workload with a disk limit.
    #[must_use]
    pub fn bounded(&self) -> Place {
        Place { dir: self.dir.join("disk"), image: self.dir.join("disk.img") }
    }

    fn changes(&self, is_bounded: bool) -> PathBuf {
        if is_bounded { self.bounded().dir } else { self.dir.clone() }
    }

    /// What the workload changed, in the bounded place or beside it.
    #[must_use]
    pub fn upper(&self, is_bounded: bool) -> PathBuf {
        self.changes(is_bounded).join("upper")
    }

    /// Overlayfs works here.
    #[must_use]
    pub fn work(&self, is_bounded: bool) -> PathBuf {
        self.changes(is_bounded).join("work")
    }

    /// Empty, for mounting.
    #[must_use]
    pub fn stage(&self) -> PathBuf {
        self.dir.join("stage")
    }
}
