//! What was found on a host: plain data, judged elsewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::host::cgroup::Version;

/// How something that was tried went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// It works.
    Works,
    /// It does not; the text says what the kernel said.
    Fails(String),
    /// It could not be tried; the text says why.
    Skipped(&'static str),
}

/// What the host is asked to carry.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Most sandboxes at once.
    pub sandboxes: u32,
    /// Root directory of the daemon.
    pub root: PathBuf,
    /// Disk that must stay free, in bytes.
    pub reserved_disk_bytes: u64,
    /// First id of the sandboxes' ranges.
    pub first_id: u32,
    /// Whether the one who asks is the daemon that runs on this root.
    pub is_running: bool,
}

/// Everything that was found.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// What it is for.
    pub subject: Subject,
    /// The kernel and what it was started with.
    pub kernel: KernelFacts,
    /// What was tried.
    pub trials: Trials,
    /// Numbers below `/proc/sys`, by their names with dots; absent ones are
    /// not there.
    pub sysctls: BTreeMap<&'static str, u64>,
    /// Hard limit of open files of this process.
    pub nofile_hard: u64,
    /// Controllers.
    pub cgroup: CgroupFacts,
    /// containerd and its shim.
    pub containerd: ContainerdFacts,
    /// The OCI runtime of the configuration.
    pub runtime: RuntimeFacts,
    /// Other programs that are there, by name.
    pub programs: BTreeMap<&'static str, Program>,
    /// The file system of the root.
    pub storage: StorageFacts,
    /// Memory and swap.
    pub memory: MemoryFacts,
    /// Whether the kernel's clock is disciplined; absent = it does not say.
    pub is_clock_synchronised: Option<bool>,
    /// Devices.
    pub devices: DeviceFacts,
    /// Linux security modules and filters.
    pub security: SecurityFacts,
    /// Addresses that the daemon listens at.
    pub ports: Vec<Port>,
    /// Ranges of subordinate ids that users of the host own.
    pub subordinate_ids: Vec<IdRange>,
}

/// The kernel.
#[derive(Debug, Clone, Default)]
pub struct KernelFacts {
    /// Host name.
    pub hostname: String,
    /// Release, e.g. `6.1.0-18-amd64`.
    pub release: String,
    /// E.g. `x86_64`.
    pub architecture: String,
    /// What it was started with.
    pub command_line: String,
    /// Whether this process is root.
    pub is_root: bool,
    /// Whether pressure stall information can be read.
    pub has_psi: bool,
}

/// What was tried in a temporary directory below the root.
#[derive(Debug, Clone)]
pub struct Trials {
    /// User, network, IPC and UTS namespaces of a sandbox.
    pub namespaces: Trial,
    /// A plain overlay mount.
    pub overlay: Trial,
    /// An overlay over an id-mapped layer, written to by a mapped id.
    pub idmapped_overlay: Trial,
    /// A cgroup with limits.
    pub cgroup: Trial,
    /// Mounts below the root reach containerd.
    pub propagation: Trial,
    /// The packet filter.
    pub nftables: Trial,
}

/// Cgroup controllers.
#[derive(Debug, Clone)]
pub struct CgroupFacts {
    /// Which interface carries them.
    pub version: Version,
    /// Controllers that are mounted (v1) or offered to children (v2).
    pub controllers: Vec<String>,
    /// Whether a limit can hold swap, too.
    pub has_swap_limit: bool,
}

/// containerd.
#[derive(Debug, Clone, Default)]
pub struct ContainerdFacts {
    /// Its socket.
    pub socket: PathBuf,
    /// The version that the running one reports; absent = it does not answer.
    pub answered: Option<String>,
    /// The version of the installed program.
    pub installed: Option<String>,
    /// Whether the shim for runc is in the path.
    pub has_shim: bool,
    /// Snapshotter in the configuration.
    pub snapshotter: String,
    /// Whether the running containerd offers that snapshotter, and what it
    /// says if not; absent = it was not asked.
    pub snapshotter_state: Option<Result<(), String>>,
}

/// The OCI runtime that starts sandboxes.
#[derive(Debug, Clone, Default)]
pub struct RuntimeFacts {
    /// As configured: a name or an absolute path.
    pub binary: String,
    /// What it calls itself, e.g. `crun`; empty if it does not say.
    pub kind: String,
    /// The program; absent = not there.
    pub program: Option<Program>,
}

/// An installed program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of its version; may be empty.
    pub version: String,
}

/// The file system of the root.
#[derive(Debug, Clone, Default)]
pub struct StorageFacts {
    /// The nearest directory of the root that exists.
    pub path: PathBuf,
    /// E.g. `ext4`.
    pub kind: String,
    /// Mount options, e.g. `rw`.
    pub options: Vec<String>,
    /// Whether the kernel enforces project quotas; absent = it does not say.
    pub has_project_quota: Option<bool>,
    /// Free bytes, as a process without privileges may use them.
    pub free_bytes: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Free inodes; 0 of 0 where the file system does not count them.
    pub free_inodes: u64,
    /// Inodes in all.
    pub inodes: u64,
}

/// Memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryFacts {
    /// Of the machine, in bytes.
    pub total_bytes: u64,
    /// Swap, in bytes.
    pub swap_bytes: u64,
}

/// Devices.
#[derive(Debug, Clone, Default)]
pub struct DeviceFacts {
    /// Whether `/dev/kvm` can be opened.
    pub has_kvm: bool,
    /// Whether loop devices can be made.
    pub has_loop: bool,
    /// Whether the kernel log can be read.
    pub has_kernel_log: bool,
    /// NVIDIA hardware on the PCI bus.
    pub nvidia_cards: u32,
    /// Device files `/dev/nvidia0` and so on.
    pub nvidia_device_files: u32,
    /// What NVML says.
    pub nvml: Nvml,
}

/// What NVIDIA's management library says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Nvml {
    /// The library is not installed: there is no GPU as far as Roost goes.
    #[default]
    Absent,
    /// It is there and does not work.
    Broken(String),
    /// It works.
    Present {
        /// Version of the driver.
        driver: String,
        /// In the driver's order.
        gpus: Vec<Gpu>,
    },
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// E.g. `NVIDIA H200`.
    pub name: String,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Whether it is divided by MIG; absent where it cannot be.
    pub is_mig_enabled: Option<bool>,
}

/// Linux security modules and filters.
#[derive(Debug, Clone, Default)]
pub struct SecurityFacts {
    /// Whether system calls can be filtered.
    pub has_seccomp: bool,
    /// Whether AppArmor is on.
    pub has_apparmor: bool,
    /// Whether SELinux enforces.
    pub is_selinux_enforcing: bool,
}

/// An address that the daemon listens at.
#[derive(Debug, Clone)]
pub struct Port {
    /// The field of the configuration.
    pub field: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Whether it can be listened at, and what the system says if not.
    pub is_free: Result<(), String>,
}

/// A range of subordinate ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdRange {
    /// File that grants it.
    pub file: &'static str,
    /// Who owns it.
    pub owner: String,
    /// First id.
    pub first: u64,
    /// How many.
    pub count: u64,
}
