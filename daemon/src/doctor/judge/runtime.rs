//! Rules about containerd, runtimes, network and devices.

use super::super::facts::{HostFacts, Nvml, Trial};
use super::{Finding, gib, version};
use crate::host::cgroup::Version;

/// Oldest containerd that is tested.
const MIN_CONTAINERD: (u32, u32) = (1, 6);
/// Oldest runc with what the specs of sandboxes use.
const MIN_RUNC: (u32, u32) = (1, 1);

pub(super) fn containerd(facts: &HostFacts) -> Finding {
    let containerd = &facts.containerd;
    let is_old = |text: &str| version(text).is_some_and(|known| known < MIN_CONTAINERD);
    let socket = containerd.socket.display();
    match (&containerd.answered, &containerd.installed) {
        (Some(answered), _) if is_old(answered) => {
            Finding::fail(answered.clone(), "install containerd 1.6 or newer (apt-get install containerd)")
        }
        (Some(answered), _) if !containerd.has_shim => Finding::fail(
            format!("{answered}, and no containerd-shim-runc-v2 in the path"),
            "install containerd's shim beside it: it comes with the package containerd",
        ),
        (Some(answered), _) => Finding::ok(format!("{answered} at {socket}")),
        (None, Some(installed)) if is_old(installed) => {
            Finding::fail(installed.clone(), "install containerd 1.6 or newer (apt-get install containerd)")
        }
        (None, Some(installed)) => Finding::warn(
            format!("{installed} is installed, nothing answers at {socket}"),
            "systemctl enable --now containerd, or set containerd.socket in roostd.toml",
        ),
        (None, None) => Finding::fail(
            format!("not installed, nothing answers at {socket}"),
            "apt-get install containerd, or set containerd.socket in roostd.toml",
        ),
    }
}

pub(super) fn snapshotter(facts: &HostFacts) -> Finding {
    let containerd = &facts.containerd;
    let name = &containerd.snapshotter;
    match &containerd.snapshotter_state {
        Some(Ok(())) => Finding::ok(name.clone()),
        Some(Err(problem)) => Finding::fail(
            format!("{name}: {problem}"),
            "see `ctr plugins ls`; containerd's root must lie on ext4, xfs or btrfs",
        ),
        None => Finding::ok(format!("{name}, not asked: containerd does not answer")),
    }
}

/// The runtime that the configuration names, and no other, must be there.
pub(super) fn oci_runtime(facts: &HostFacts) -> Finding {
    const CHOOSE: &str = "set containerd.runtime_binary in roostd.toml to \"runc\" or \"crun\"";
    let runtime = &facts.runtime;
    let Some(program) = &runtime.program else {
        let advice = match runtime.binary.as_str() {
            name @ ("runc" | "crun") => format!("apt-get install {name}"),
            _ => format!("{CHOOSE}, or to the path of one"),
        };
        return Finding::fail(format!("{} is not installed", runtime.binary), advice);
    };
    let found = format!("{} {} at {}", runtime.kind, program.version, program.path.display());
    match runtime.kind.as_str() {
        "runc" if version(&program.version).is_some_and(|known| known < MIN_RUNC) => {
            Finding::fail(found, "install runc 1.1 or newer (apt-get install runc)")
        }
        "crun" if facts.cgroup.version == Version::V1 => Finding::fail(
            format!("{found}: it needs a host with cgroup v2 alone"),
            "set containerd.runtime_binary = \"runc\" in roostd.toml, or boot with systemd.unified_cgroup_hierarchy=1",
        ),
        "runc" | "crun" => Finding::ok(found),
        _ => Finding::warn(
            format!("{} says to be neither runc nor crun", program.path.display()),
            format!("{CHOOSE}: no other is tested"),
        ),
    }
}

pub(super) fn other_runtimes(facts: &HostFacts) -> Finding {
    let others = [("runc", "runc"), ("crun", "crun"), ("runsc", "gVisor"), ("kata-runtime", "Kata")];
    let found: Vec<_> = others
        .iter()
        .filter(|(program, _)| *program != facts.runtime.kind)
        .filter_map(|(program, name)| Some(format!("{name} {}", facts.programs.get(program)?.version)))
        .collect();
    Finding::ok(if found.is_empty() { "none (none is needed)".into() } else { found.join(", ") })
}

pub(super) fn propagation(facts: &HostFacts) -> Finding {
    match &facts.trials.propagation {
        Trial::Works => Finding::ok("those of the daemon reach containerd"),
        Trial::Skipped(why) => Finding::ok(format!("not tried: {why}")),
        Trial::Fails(error) => {
            let at = facts.storage.path.display();
            Finding::fail(
                error.clone(),
                format!("mount --make-rshared {at} (in a pod: mountPropagation: Bidirectional)"),
            )
        }
    }
}

pub(super) fn ports(facts: &HostFacts) -> Finding {
    let shown: Vec<_> = facts.ports.iter().map(|port| format!("{} {}", port.field, port.address)).collect();
    if facts.subject.is_running {
        return Finding::ok(format!("{}: held by this roostd", shown.join(", ")));
    }
    match facts.ports.iter().find_map(|port| Some((port, port.is_free.as_ref().err()?))) {
        Some((port, error)) => Finding::fail(
            format!("{} {}: {error}", port.field, port.address),
            format!(
                "ss -ltnp 'sport = :{}' tells who has it: a roostd with another configuration is asked by \
                 roost doctor --node-socket PATH; or set another {} in roostd.toml",
                port.address.port(),
                port.field
            ),
        ),
        None => Finding::ok(format!("{} is free", shown.join(", "))),
    }
}

pub(super) fn nftables(facts: &HostFacts) -> Finding {
    match &facts.trials.nftables {
        Trial::Works => {
            let version = facts.programs.get("nft").map(|nft| nft.version.clone()).unwrap_or_default();
            Finding::ok(version)
        }
        Trial::Skipped(_) => Finding::warn(
            "nft is not installed",
            "apt-get install nftables: the firewall of sandboxes, once they have networks",
        ),
        Trial::Fails(error) => {
            Finding::warn(error.clone(), "modprobe nf_tables: the firewall of sandboxes, once they have networks")
        }
    }
}

pub(super) fn kvm(facts: &HostFacts) -> Finding {
    Finding::ok(if facts.devices.has_kvm { "/dev/kvm" } else { "none (only virtual machines need it)" })
}

pub(super) fn gpu(facts: &HostFacts) -> Finding {
    let devices = &facts.devices;
    match &devices.nvml {
        Nvml::Present { gpus, .. } if gpus.is_empty() => Finding::ok("the driver knows of no GPU"),
        Nvml::Present { driver, gpus } => {
            let list: Vec<_> = gpus.iter().map(|gpu| format!("{} {}", gpu.name, gib(gpu.memory_bytes))).collect();
            if devices.nvidia_device_files == 0 {
                return Finding::warn(
                    format!("{}, and no /dev/nvidia0", list.join(", ")),
                    "nvidia-modprobe -u -c=0, or start nvidia-persistenced: sandboxes are given the device files",
                );
            }
            Finding::ok(format!("{}, driver {driver}", list.join(", ")))
        }
        Nvml::Broken(error) => Finding::warn(
            format!("NVML: {error}"),
            "see `nvidia-smi`: driver and library must be of one version; reboot after an upgrade",
        ),
        Nvml::Absent if devices.nvidia_cards > 0 => Finding::warn(
            format!(
                "{} without driver",
                if devices.nvidia_cards == 1 { "1 card".into() } else { format!("{} cards", devices.nvidia_cards) }
            ),
            "install the NVIDIA driver with its libnvidia-ml.so.1 (apt-get install nvidia-driver), if GPUs are wanted",
        ),
        Nvml::Absent => Finding::ok("none"),
    }
}
