//! Every rule over a host that is good, with one thing changed at a time.

use std::collections::BTreeMap;

use super::super::facts::*;
use super::*;
use crate::host::cgroup::Version;

/// A host on which nothing is to be mended, for 1 000 sandboxes.
pub(in crate::doctor) fn good_host() -> HostFacts {
    let program = |version: &str| Program { path: "/usr/sbin/x".into(), version: version.into() };
    HostFacts {
        subject: Subject {
            sandboxes: 1000,
            root: "/var/lib/roost".into(),
            reserved_disk_bytes: 2 << 30,
            first_id: 1 << 20,
            is_running: false,
        },
        kernel: KernelFacts {
            hostname: "n1".into(),
            release: "6.1.0-18-amd64".into(),
            architecture: "x86_64".into(),
            command_line: "quiet".into(),
            is_root: true,
            has_psi: true,
        },
        trials: Trials {
            namespaces: Trial::Works,
            overlay: Trial::Works,
            idmapped_overlay: Trial::Works,
            cgroup: Trial::Works,
            propagation: Trial::Works,
            nftables: Trial::Works,
        },
        sysctls: BTreeMap::from(SYSCTLS.map(|name| (name, if name.contains("apparmor") { 0 } else { 10_000_000 }))),
        nofile_hard: 1 << 20,
        cgroup: CgroupFacts {
            version: Version::V2,
            controllers: ["cpuset", "cpu", "io", "memory", "pids"].map(String::from).to_vec(),
            has_swap_limit: true,
        },
        containerd: ContainerdFacts {
            socket: "/run/containerd/containerd.sock".into(),
            answered: Some("1.6.20~ds1".into()),
            installed: Some("1.6.20~ds1".into()),
            has_shim: true,
            snapshotter: "overlayfs".into(),
            snapshotter_state: Some(Ok(())),
        },
        runtime: RuntimeFacts { binary: "runc".into(), kind: "runc".into(), program: Some(program("1.1.5")) },
        programs: BTreeMap::from([("runc", program("1.1.5")), ("nft", program("v1.0.6")), ("mkfs.ext4", program(""))]),
        storage: StorageFacts {
            path: "/var/lib".into(),
            kind: "ext4".into(),
            options: vec!["rw".into()],
            has_project_quota: Some(true),
            free_bytes: 100 << 30,
            size_bytes: 200 << 30,
            free_inodes: 5_000_000,
            inodes: 10_000_000,
        },
        memory: MemoryFacts { total_bytes: 64 << 30, swap_bytes: 0 },
        is_clock_synchronised: Some(true),
        devices: DeviceFacts { has_kvm: true, has_loop: true, has_kernel_log: true, ..DeviceFacts::default() },
        security: SecurityFacts { has_seccomp: true, has_apparmor: true, is_selinux_enforcing: false },
        ports: vec![Port { field: "admin.listen", address: ([127, 0, 0, 1], 7703).into(), is_free: Ok(()) }],
        subordinate_ids: vec![IdRange { file: "/etc/subuid", owner: "anna".into(), first: 100_000, count: 65_536 }],
    }
}

#[test]
fn a_good_host_has_nothing_to_mend_and_no_advice() {
    for check in checks(&good_host()) {
        assert_eq!((check.verdict, check.advice.as_str()), (Verdict::Ok, ""), "{check:?}");
        assert!(!check.found.is_empty() && !check.found.contains('\n'), "{check:?}");
    }
}

/// One thing that is wrong, which check says so, how badly, and a word of its
/// advice.
type Case = (fn(&mut HostFacts), &'static str, Verdict, &'static str);

#[test]
fn each_fault_is_found_by_one_check_which_says_what_to_change() {
    let cases: [Case; 43] = [
        (|f| f.kernel.release = "5.15.0-91-generic".into(), "kernel", Verdict::Fail, "5.19"),
        (|f| f.kernel.release = "strange".into(), "kernel", Verdict::Warn, "5.19"),
        (|f| f.kernel.is_root = false, "root", Verdict::Fail, "sudo"),
        (|f| f.trials.namespaces = Trial::Fails("EPERM".into()), "namespaces", Verdict::Fail, "user namespaces"),
        (|f| set(f, "user.max_user_namespaces", 10), "namespaces", Verdict::Warn, "sysctl -w user.max_user_namespaces"),
        (|f| set(f, "kernel.unprivileged_userns_clone", 0), "namespaces", Verdict::Warn, "userns_clone=1"),
        (|f| set(f, "kernel.apparmor_restrict_unprivileged_userns", 1), "namespaces", Verdict::Warn, "userns=0"),
        (|f| f.trials.overlay = Trial::Fails("ENODEV".into()), "overlay", Verdict::Fail, "modprobe overlay"),
        (|f| f.trials.idmapped_overlay = Trial::Fails("EINVAL".into()), "idmapped-overlay", Verdict::Fail, "ext4"),
        (|f| f.security.has_seccomp = false, "seccomp", Verdict::Fail, "CONFIG_SECCOMP_FILTER"),
        (|f| f.security.is_selinux_enforcing = true, "security-modules", Verdict::Warn, "ausearch"),
        (|f| f.devices.has_kernel_log = false, "kernel-log", Verdict::Warn, "/dev/kmsg"),
        (|f| f.is_clock_synchronised = Some(false), "time", Verdict::Warn, "chrony"),
        (|f| f.is_clock_synchronised = None, "time", Verdict::Warn, "timedatectl"),
        (|f| f.cgroup.controllers.retain(|c| c != "memory"), "controllers", Verdict::Fail, "+memory"),
        (no_memory_v1, "controllers", Verdict::Fail, "cgroup_disable=memory"),
        (|f| f.trials.cgroup = Trial::Fails("EROFS".into()), "limits", Verdict::Fail, "privileged"),
        (|f| f.kernel.has_psi = false, "pressure", Verdict::Warn, "psi=1"),
        (uncounted_swap, "swap", Verdict::Warn, "swapaccount=1"),
        (|f| f.containerd.answered = None, "containerd", Verdict::Warn, "systemctl"),
        (no_containerd, "containerd", Verdict::Fail, "apt-get install containerd"),
        (|f| f.containerd.answered = Some("1.5.9".into()), "containerd", Verdict::Fail, "1.6"),
        (|f| f.containerd.has_shim = false, "containerd", Verdict::Fail, "shim"),
        (|f| f.containerd.snapshotter_state = Some(Err("no such".into())), "snapshotter", Verdict::Fail, "ctr plugins"),
        (|f| f.runtime.program = None, "oci-runtime", Verdict::Fail, "apt-get install runc"),
        (no_crun, "oci-runtime", Verdict::Fail, "apt-get install crun"),
        (old_runc, "oci-runtime", Verdict::Fail, "1.1"),
        (crun_on_v1, "oci-runtime", Verdict::Fail, "runtime_binary = \"runc\""),
        (|f| f.runtime.kind = "youki".into(), "oci-runtime", Verdict::Warn, "runtime_binary"),
        (|f| f.trials.propagation = Trial::Fails("no".into()), "mounts", Verdict::Fail, "--make-rshared"),
        (|f| f.storage.kind = "tmpfs".into(), "file-system", Verdict::Warn, "reboot"),
        (|f| f.storage.options = vec!["ro".into()], "file-system", Verdict::Fail, "writable"),
        (|f| f.storage.free_bytes = 1 << 30, "space", Verdict::Fail, "reserved.disk_bytes"),
        (|f| f.storage.free_bytes = 5 << 30, "space", Verdict::Warn, "10 GiB"),
        (|f| f.storage.free_inodes = 1000, "space", Verdict::Warn, "inodes"),
        (no_quota, "quota", Verdict::Warn, "prjquota"),
        (|f| set(f, "fs.nr_open", 1024), "open-files", Verdict::Fail, "fs.nr_open=524288"),
        (|f| f.nofile_hard = 1024, "open-files", Verdict::Warn, "LimitNOFILE"),
        (|f| set(f, "kernel.pid_max", 32_768), "processes", Verdict::Warn, "kernel.pid_max=68096"),
        (|f| set(f, "fs.inotify.max_user_instances", 128), "keys-and-inotify", Verdict::Warn, "instances=2128"),
        (|f| f.subject.first_id = 65_536, "ids", Verdict::Warn, "sandboxes.first_id"),
        (|f| f.subject.first_id = u32::MAX - 65_536, "ids", Verdict::Fail, "sandboxes.max"),
        (|f| f.ports[0].is_free = Err("Address in use".into()), "ports", Verdict::Fail, "ss -ltnp"),
    ];
    for (break_it, name, verdict, word) in cases {
        let mut facts = good_host();
        break_it(&mut facts);
        let bad: Vec<_> = checks(&facts).into_iter().filter(|check| check.verdict != Verdict::Ok).collect();
        let found = bad.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name} not in {bad:?}"));
        assert_eq!(bad.len(), 1, "{bad:?}");
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.advice.contains(word), "{name}: {word:?} is not in {found:?}");
    }
}

fn set(facts: &mut HostFacts, name: &'static str, value: u64) {
    facts.sysctls.insert(name, value);
}

fn no_memory_v1(facts: &mut HostFacts) {
    facts.cgroup.version = Version::V1;
    facts.cgroup.controllers.retain(|name| name != "memory");
    facts.kernel.command_line = "quiet cgroup_disable=memory".into();
}

fn uncounted_swap(facts: &mut HostFacts) {
    facts.memory.swap_bytes = 1 << 30;
    facts.cgroup.has_swap_limit = false;
}

fn no_containerd(facts: &mut HostFacts) {
    facts.containerd.answered = None;
    facts.containerd.installed = None;
}

fn old_runc(facts: &mut HostFacts) {
    facts.runtime.program = Some(Program { path: "/x".into(), version: "1.0.2".into() });
}

fn no_crun(facts: &mut HostFacts) {
    facts.runtime = RuntimeFacts { binary: "crun".into(), ..RuntimeFacts::default() };
}

fn crun_on_v1(facts: &mut HostFacts) {
    crun(facts);
    facts.cgroup.version = Version::V1;
}

fn crun(facts: &mut HostFacts) {
    let program = Program { path: "/usr/bin/crun".into(), version: "1.8.1".into() };
    facts.runtime = RuntimeFacts { binary: "crun".into(), kind: "crun".into(), program: Some(program) };
}

#[test]
fn a_node_with_crun_needs_no_runc() {
    let mut facts = good_host();
    facts.programs.remove("runc");
    crun(&mut facts);
    assert!(checks(&facts).iter().all(|check| check.verdict == Verdict::Ok), "{:?}", checks(&facts));
}

fn no_quota(facts: &mut HostFacts) {
    facts.storage.has_project_quota = Some(false);
    facts.devices.has_loop = false;
}

#[test]
fn a_gpu_is_no_must_but_half_of_one_is_told() {
    let gpu = |facts: &HostFacts| checks(facts).into_iter().find(|check| check.name == "gpu").unwrap();
    let mut facts = good_host();
    assert_eq!((gpu(&facts).verdict, gpu(&facts).found.as_str()), (Verdict::Ok, "none"));
    facts.devices.nvidia_cards = 2;
    assert!(gpu(&facts).verdict == Verdict::Warn && gpu(&facts).advice.contains("driver"));
    facts.devices.nvml = Nvml::Broken("driver and library differ".into());
    assert!(gpu(&facts).advice.contains("one version"));
    let card = Gpu { name: "NVIDIA H200".into(), memory_bytes: 141 << 30, is_mig_enabled: Some(false) };
    facts.devices.nvml = Nvml::Present { driver: "570.1".into(), gpus: vec![card] };
    assert!(gpu(&facts).verdict == Verdict::Warn && gpu(&facts).found.contains("no /dev/nvidia0"));
    facts.devices.nvidia_device_files = 1;
    assert_eq!(gpu(&facts).found, "NVIDIA H200 141.0 GiB, driver 570.1");
}

#[test]
fn a_running_daemon_holds_its_own_port() {
    let mut facts = good_host();
    facts.subject.is_running = true;
    facts.ports[0].is_free = Err("Address in use".into());
    let ports = checks(&facts).into_iter().find(|check| check.name == "ports").unwrap();
    assert!(ports.verdict == Verdict::Ok && ports.found.contains("held by this roostd"), "{ports:?}");
}

#[test]
fn on_v1_shims_take_no_inotify_instances() {
    let mut facts = good_host();
    facts.cgroup.version = Version::V1;
    set(&mut facts, "fs.inotify.max_user_instances", 128);
    assert!(checks(&facts).iter().all(|check| check.verdict == Verdict::Ok));
}

#[test]
fn names_of_checks_are_unique_and_grouped() {
    let mut names: Vec<_> = RULES.iter().map(|(_, name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
    let mut areas: Vec<_> = RULES.iter().map(|(area, _, _)| area).collect();
    areas.dedup();
    assert_eq!(areas, [&"kernel", &"cgroup", &"runtime", &"storage", &"limits", &"network", &"devices"]);
}
