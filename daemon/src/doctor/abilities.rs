//! What a node can and cannot do, from the same facts. Pure.

use roost_proto::model::{Ability, ImageInfo, ImageRef};

use super::facts::{HostFacts, Nvml, Trial};
use super::judge::version;
use crate::host::cgroup::Version;
use crate::storage::Kind;

fn usable(name: impl Into<String>, detail: impl Into<String>) -> Ability {
    Ability { name: name.into(), is_usable: true, reason: String::new(), detail: detail.into() }
}

fn not(name: impl Into<String>, reason: impl Into<String>, detail: impl Into<String>) -> Ability {
    Ability { name: name.into(), is_usable: false, reason: reason.into(), detail: detail.into() }
}

/// Usable if there is nothing against it.
fn unless(name: &str, against: Option<impl Into<String>>, detail: impl Into<String>) -> Ability {
    match against {
        Some(reason) => not(name, reason, detail),
        None => usable(name, detail),
    }
}

/// Everything that does not depend on images.
#[must_use]
pub fn of_host(facts: &HostFacts) -> Vec<Ability> {
    let mut all = runtimes(facts);
    all.push(snapshotter(facts));
    all.push(trial("namespaces", &facts.trials.namespaces, "user, net, ipc, uts"));
    all.push(trial("idmapped-overlay", &facts.trials.idmapped_overlay, ""));
    all.push(trial("cgroup-limits", &facts.trials.cgroup, facts.cgroup.version.as_str()));
    let no_swap_limit = (!facts.cgroup.has_swap_limit).then_some("the kernel does not count swap for cgroups");
    all.push(unless("swap-limit", no_swap_limit, ""));
    all.push(unless("pressure", (!facts.kernel.has_psi).then_some("boot with psi=1"), "PSI"));
    all.push(quota(facts));
    let no_log = (!facts.devices.has_kernel_log).then_some("/dev/kmsg cannot be read");
    all.push(unless("oom-victims", no_log, "from the kernel log"));
    all.push(trial("nftables", &facts.trials.nftables, &program(facts, "nft")));
    all.push(unless("kvm", (!facts.devices.has_kvm).then_some("there is no /dev/kvm"), ""));
    all.extend(gpus(facts));
    all
}

/// The display kinds, which depend on the images that the node holds.
#[must_use]
pub fn of_displays(images: &[ImageInfo], plain: &ImageRef, glx: &ImageRef) -> Vec<Ability> {
    let kind = |name: &str, image: &ImageRef, detail: &str| {
        let is_here = images.iter().any(|held| held.reference == *image);
        if is_here { usable(name, detail) } else { not(name, format!("needs the image {image}"), "") }
    };
    vec![kind("display/xvfb", plain, ""), kind("display/xvfb-glx", glx, "OpenGL in software")]
}

fn program(facts: &HostFacts, name: &str) -> String {
    facts.programs.get(name).map(|program| program.version.clone()).unwrap_or_default()
}

fn trial(name: &str, trial: &Trial, detail: &str) -> Ability {
    match trial {
        Trial::Works => usable(name, detail),
        Trial::Fails(error) => not(name, error.clone(), detail),
        Trial::Skipped(why) => not(name, format!("not tried: {why}"), detail),
    }
}

fn runtimes(facts: &HostFacts) -> Vec<Ability> {
    const MISSING: &str = "not installed";
    // The one shim calls either of them.
    let no_shim = (!facts.containerd.has_shim).then_some("containerd-shim-runc-v2 is not installed");
    let runc = match facts.programs.get("runc") {
        None => Some(MISSING),
        Some(runc) if version(&runc.version).is_some_and(|known| known < (1, 1)) => Some("older than 1.1"),
        Some(_) => no_shim,
    };
    let crun = match facts.programs.get("crun") {
        None => Some(MISSING),
        Some(_) if facts.cgroup.version == Version::V1 => Some("needs cgroup v2"),
        Some(_) => no_shim,
    };
    // Installed or not: what is missing is on our side.
    let other = |program: &str| match facts.programs.get(program) {
        None => Some(MISSING),
        Some(_) => Some("this roostd starts sandboxes with runc or crun"),
    };
    vec![
        unless("runtime/runc", runc, program(facts, "runc")),
        unless("runtime/crun", crun, program(facts, "crun")),
        unless("runtime/gvisor", other("runsc"), program(facts, "runsc")),
        unless("runtime/kata", other("kata-runtime"), program(facts, "kata-runtime")),
    ]
}

fn snapshotter(facts: &HostFacts) -> Ability {
    let name = format!("snapshotter/{}", facts.containerd.snapshotter);
    match &facts.containerd.snapshotter_state {
        Some(Ok(())) => usable(name, ""),
        Some(Err(problem)) => not(name, problem.clone(), ""),
        None => not(name, "containerd does not answer", ""),
    }
}

/// By what the daemon enforces disk limits; `host`: the abilities of the host.
#[must_use]
pub fn disk_limit(kind: Kind, host: &[Ability]) -> Ability {
    let quota = host.iter().find(|ability| ability.name == "quota");
    let against = quota.filter(|quota| kind == Kind::Loop && !quota.is_usable).map(|quota| quota.reason.clone());
    unless("disk-limit", against, kind.as_str())
}

fn quota(facts: &HostFacts) -> Ability {
    if facts.storage.has_project_quota == Some(true) {
        return usable("quota", format!("{} project quota", facts.storage.kind));
    }
    let against = match (facts.devices.has_loop, facts.programs.contains_key("mkfs.ext4")) {
        (false, _) => Some("neither project quota nor loop devices"),
        (true, false) => Some("no project quota, and mkfs.ext4 is not installed: apt-get install e2fsprogs"),
        (true, true) => None,
    };
    unless("quota", against, "loop-mounted file systems")
}

fn gpus(facts: &HostFacts) -> Vec<Ability> {
    match &facts.devices.nvml {
        Nvml::Absent => vec![not("gpu", "none: libnvidia-ml.so.1 is not installed", "")],
        Nvml::Broken(error) => vec![not("gpu", error.clone(), "")],
        Nvml::Present { gpus, .. } if gpus.is_empty() => vec![not("gpu", "none: the driver knows of no GPU", "")],
        Nvml::Present { driver, gpus } => gpus
            .iter()
            .enumerate()
            .map(|(index, gpu)| {
                let mig = match gpu.is_mig_enabled {
                    Some(true) => ", MIG on",
                    Some(false) => ", MIG off",
                    None => "",
                };
                let detail = format!("{}, {} MiB{mig}, driver {driver}", gpu.name, gpu.memory_bytes >> 20);
                not(format!("gpu/{index}"), "this roostd gives no GPU to sandboxes yet", detail)
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::good_host;
    use super::*;
    use crate::doctor::facts::{Gpu, Program};

    fn find(all: &[Ability], name: &str) -> Ability {
        all.iter().find(|ability| ability.name == name).unwrap_or_else(|| panic!("no {name}")).clone()
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let mut facts = good_host();
        facts.programs.insert("crun", Program { path: "/usr/bin/crun".into(), version: "1.8.1".into() });
        facts.cgroup.version = Version::V1;
        facts.trials.nftables = Trial::Skipped("nft is not installed");
        let all = of_host(&facts);
        assert_eq!(find(&all, "runtime/runc"), usable("runtime/runc", "1.1.5"));
        assert_eq!(find(&all, "runtime/crun"), not("runtime/crun", "needs cgroup v2", "1.8.1"));
        assert_eq!(find(&all, "runtime/kata"), not("runtime/kata", "not installed", ""));
        assert_eq!(find(&all, "nftables").reason, "not tried: nft is not installed");
        assert!(all.iter().all(|ability| ability.is_usable == ability.reason.is_empty()), "{all:?}");
    }

    #[test]
    fn project_quota_is_what_the_kernel_says_and_not_what_the_mount_says() {
        let mut facts = good_host();
        assert_eq!(find(&of_host(&facts), "quota"), usable("quota", "ext4 project quota"));
        facts.storage.options.push("prjquota".into());
        for unsaid in [Some(false), None] {
            facts.storage.has_project_quota = unsaid;
            assert_eq!(find(&of_host(&facts), "quota"), usable("quota", "loop-mounted file systems"));
        }
        facts.devices.has_loop = false;
        assert!(!find(&of_host(&facts), "quota").is_usable);
    }

    #[test]
    fn a_disk_limit_needs_quota_or_what_makes_loop_file_systems() {
        let mut facts = good_host();
        let of = |facts: &HostFacts, kind| disk_limit(kind, &of_host(facts));
        assert_eq!(of(&facts, Kind::ProjectQuota), usable("disk-limit", "project-quota"));
        facts.storage.has_project_quota = Some(false);
        let program = facts.programs.remove("mkfs.ext4").unwrap();
        assert!(of(&facts, Kind::Loop).reason.contains("e2fsprogs"));
        facts.programs.insert("mkfs.ext4", program);
        assert_eq!(of(&facts, Kind::Loop), usable("disk-limit", "loop"));
        facts.devices.has_loop = false;
        assert!(!of(&facts, Kind::Loop).is_usable);
    }

    #[test]
    fn a_host_without_the_library_has_no_gpu_and_others_list_theirs() {
        let mut facts = good_host();
        assert!(find(&of_host(&facts), "gpu").reason.starts_with("none"));
        let gpu = Gpu { name: "NVIDIA H200".into(), memory_bytes: 143_771 << 20, is_mig_enabled: Some(false) };
        facts.devices.nvml = Nvml::Present { driver: "570.1".into(), gpus: vec![gpu] };
        assert_eq!(find(&of_host(&facts), "gpu/0").detail, "NVIDIA H200, 143771 MiB, MIG off, driver 570.1");
    }

    #[test]
    fn a_display_kind_needs_its_image() {
        let image = serde_json::json!({
            "reference": ImageRef::display_default(), "digest": "", "size_bytes": 0, "imported_at_unix_ms": 0
        });
        let image: ImageInfo = serde_json::from_value(image).unwrap();
        let all = of_displays(&[image], &ImageRef::display_default(), &ImageRef::display_glx_default());
        assert_eq!(all.iter().map(|a| a.is_usable).collect::<Vec<_>>(), [true, false]);
        assert_eq!(all[1].reason, "needs the image roost/display-glx:latest");
    }
}
