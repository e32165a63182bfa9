//! Looks at the host. What cannot be read is absent from the facts: the rules
//! say what that means.

mod containerd;
mod devices;
mod kernel;
mod programs;
mod storage;

use std::path::{Path, PathBuf};

use super::facts::{CgroupFacts, HostFacts, KernelFacts, Port, Subject, Trial, Trials};
use crate::config::Config;
use crate::host::cgroup::Version;
use crate::host::{self, mount, socket, trial};
use crate::sandbox::failure::chain;

/// Everything about this host.
pub(super) async fn host(config: &Config, subject: Subject) -> HostFacts {
    let runtime = programs::runtime(&config.containerd.runtime_binary);
    let (mut programs, nftables, runtime) = tokio::join!(programs::all(), programs::nftables(), runtime);
    let installed = programs.remove("containerd").map(|program| program.version);
    let containerd = containerd::look(&config.containerd, installed).await;
    let kernel = kernel::look();
    let base = nearest(&subject.root);
    let trials = blocking_trials(&kernel, &base, &subject, config, nftables).await;
    HostFacts {
        trials,
        sysctls: kernel::sysctls(),
        nofile_hard: crate::host::limits::nofile_hard(),
        cgroup: cgroup(),
        containerd,
        runtime,
        programs,
        storage: storage::look(&base),
        memory: kernel::memory(),
        is_clock_synchronised: host::clock::is_synchronised().ok(),
        devices: devices::look(),
        security: kernel::security(),
        ports: ports(config, &subject),
        subordinate_ids: kernel::subordinate_ids(),
        kernel,
        subject,
    }
}

/// The nearest directory of a path that exists.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|dir| dir.is_dir()).map_or_else(|| "/".into(), Path::to_owned)
}

async fn blocking_trials(
    kernel: &KernelFacts,
    base: &Path,
    subject: &Subject,
    config: &Config,
    nftables: Trial,
) -> Trials {
    const NOT_ROOT: &str = "not root";
    if !kernel.is_root {
        let skipped = || Trial::Skipped(NOT_ROOT);
        return Trials {
            namespaces: skipped(),
            overlay: skipped(),
            idmapped_overlay: skipped(),
            cgroup: skipped(),
            propagation: skipped(),
            nftables,
        };
    }
    let (base, first_id, socket) = (base.to_owned(), subject.first_id, config.containerd.socket.clone());
    let work = move || {
        let mounts = trial::mounts(&base, first_id);
        let cgroup = of(trial::cgroup());
        Ok((mounts, cgroup, propagation(&base, &socket)))
    };
    let (mounts, cgroup, propagation) = match host::blocking(work).await {
        Ok(done) => done,
        Err(error) => (Err(error), Trial::Skipped("cut off"), Trial::Skipped("cut off")),
    };
    match mounts {
        Ok(mounts) => Trials {
            namespaces: of(mounts.namespaces),
            overlay: of(mounts.overlay),
            idmapped_overlay: mounts.idmapped_overlay.map_or(Trial::Skipped("namespaces or overlay do not work"), of),
            cgroup,
            propagation,
            nftables,
        },
        Err(error) => Trials {
            namespaces: Trial::Skipped("there is no directory to try it in"),
            overlay: Trial::Fails(chain(&error)),
            idmapped_overlay: Trial::Skipped("there is no directory to try it in"),
            cgroup,
            propagation,
            nftables,
        },
    }
}

fn of(result: Result<(), host::Error>) -> Trial {
    match result {
        Ok(()) => Trial::Works,
        Err(error) => Trial::Fails(chain(&error)),
    }
}

/// Whether mounts below `base` reach containerd: the daemon asks the same at
/// its start.
fn propagation(base: &Path, containerd: &Path) -> Trial {
    match mount::is_shared(base) {
        Ok(true) => Trial::Works,
        Ok(false) => match socket::server_pid(containerd).and_then(mount::same_mount_namespace) {
            Ok(true) => Trial::Works,
            Ok(false) => Trial::Fails("mounts are not passed on, and containerd lives in another namespace".into()),
            Err(_) => Trial::Skipped("containerd does not answer"),
        },
        Err(error) => Trial::Fails(chain(&error)),
    }
}

fn cgroup() -> CgroupFacts {
    const MOUNT: &str = "/sys/fs/cgroup";
    let version = Version::detect();
    let known = ["cpu", "memory", "pids", "cpuset", "io", "blkio", "devices", "freezer"];
    let controllers = match version {
        Version::V1 => known.iter().filter(|name| Path::new(MOUNT).join(name).is_dir()).map(|name| (*name).to_owned()),
        Version::V2 => {
            let read = |file: &str| std::fs::read_to_string(Path::new(MOUNT).join(file)).unwrap_or_default();
            let offered = read("cgroup.controllers");
            let words: Vec<String> = offered.split_whitespace().map(str::to_owned).collect();
            return CgroupFacts { version, controllers: words, has_swap_limit: has_swap_limit_v2() };
        }
    }
    .collect();
    let has_swap_limit = Path::new(MOUNT).join("memory/memory.memsw.limit_in_bytes").exists();
    CgroupFacts { version, controllers, has_swap_limit }
}

/// The root cgroup has no limits: its children tell.
fn has_swap_limit_v2() -> bool {
    let children = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut with_memory = children.filter(|child| child.path().join("memory.max").exists()).peekable();
    with_memory.peek().is_none() || with_memory.any(|child| child.path().join("memory.swap.max").exists())
}

/// The ports of the configuration, each tried by listening for a moment.
fn ports(config: &Config, subject: &Subject) -> Vec<Port> {
    let address = config.admin.listen;
    let is_free = if subject.is_running {
        Ok(())
    } else {
        std::net::TcpListener::bind(address).map(drop).map_err(|error| error.to_string())
    };
    vec![Port { field: "admin.listen", address, is_free }]
}
