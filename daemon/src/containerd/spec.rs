//! The OCI runtime spec of a container of a sandbox.
//!
//! Nothing is left to a runtime's defaults: capabilities, system calls,
//! devices, masked paths and namespaces are all written out.

use std::path::PathBuf;

use roost_proto::id::SandboxId;
use serde_json::{Value, json};

use super::seccomp;
use crate::host::limits::NOFILE_LIMITS;
use crate::host::namespaces::{IDS_PER_SANDBOX, Kind, pin};

/// Capabilities inside the sandbox's user namespace for a workload that runs
/// as its root: what installing packages and serving ports takes. They mean
/// nothing outside, and nothing to a workload that is not root.
const CAPABILITIES: [&str; 10] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// Files of `/proc` and `/sys` that tell about the host, hidden.
const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Files of `/proc` that reach into the host's kernel, read-only.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Character devices that a container may use: null, zero, full, random,
/// urandom, tty, ptmx, and pseudo terminals (major 136).
const DEVICES: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];
/// Which of the two containers of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Roost's own: the X server.
    Display,
    /// The user's image.
    Workload,
}

impl Role {
    /// Both, in the order of their start.
    pub const ALL: [Self; 2] = [Self::Display, Self::Workload];

    /// Its name in ids, paths and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Display => "display",
            Self::Workload => "workload",
        }
    }

    /// What the kernel kills first when the sandbox runs out of memory: the
    /// workload's processes, long before its X server.
    pub(super) fn oom_score_adj(self) -> i32 {
        match self {
            // As low as a program of the workload can bring itself where the
            // runtime lacks CAP_SYS_RESOURCE, and never below the host's own.
            Self::Display => 0,
            Self::Workload => 500,
        }
    }
}

/// Who a program runs as, in ids inside the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

impl User {
    fn to_json(&self) -> Value {
        json!({ "uid": self.uid, "gid": self.gid, "additionalGids": self.groups })
    }
}

/// A host path that a container sees.
#[derive(Debug, Clone)]
pub struct BindMount {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: &'static str,
    /// Whether it can be written.
    pub writable: bool,
}

/// A program in a container.
#[derive(Debug, Clone)]
pub struct Program {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// Whether it has a terminal.
    pub terminal: bool,
}

impl Program {
    /// Reads the program out of the JSON of an OCI spec.
    pub(super) fn from_spec(json: &[u8]) -> Option<Self> {
        let spec: oci_spec::runtime::Spec = serde_json::from_slice(json).ok()?;
        let process = spec.process().as_ref()?;
        let user = process.user();
        Some(Self {
            args: process.args().clone().unwrap_or_default(),
            env: process.env().clone().unwrap_or_default(),
            cwd: process.cwd().display().to_string(),
            user: User { uid: user.uid(), gid: user.gid(), groups: user.additional_gids().clone().unwrap_or_default() },
            terminal: process.terminal().unwrap_or_default(),
        })
    }
}

/// All that makes a container of a sandbox.
#[derive(Debug)]
pub struct ContainerSpec<'a> {
    /// Whose container.
    pub sandbox_id: &'a SandboxId,
    /// Which of the two.
    pub role: Role,
    /// What it runs.
    pub program: Program,
    /// Its mounted root file system on the host.
    pub rootfs: PathBuf,
    /// Where the sandbox's namespaces are pinned.
    pub namespaces: PathBuf,
    /// What id 0 inside is outside.
    pub first_id: u32,
    /// Its cgroup, as [`crate::host::cgroup::Cgroups::path`] gives it.
    pub cgroup_path: String,
    /// Host paths that it sees.
    pub binds: Vec<BindMount>,
    /// Whether it may make user namespaces of its own.
    pub nested_user_namespaces: bool,
}

impl ContainerSpec<'_> {
    /// The spec as JSON, OCI runtime spec 1.0.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mapping = json!([{ "containerID": 0, "hostID": self.first_id, "size": IDS_PER_SANDBOX }]);
        json!({
            "ociVersion": "1.0.2",
            "process": self.program.to_json(self.role),
            "root": { "path": self.rootfs, "readonly": self.role == Role::Display },
            "mounts": self.mounts(),
            "annotations": { "io.containerd.runc.v2.group": self.sandbox_id },
            "linux": {
                "uidMappings": mapping,
                "gidMappings": mapping,
                "namespaces": self.namespaces(),
                "cgroupsPath": self.cgroup_path,
                "resources": { "devices": device_rules() },
                "seccomp": seccomp::profile(self.nested_user_namespaces),
                "maskedPaths": MASKED_PATHS,
                "readonlyPaths": READONLY_PATHS,
            },
        })
    }

    /// Shared: user, IPC, UTS. Own: PID, mount, cgroup. The workload has the
    /// sandbox's network; the display gets an empty one, so that nothing
    /// reaches the X server but its socket file.
    fn namespaces(&self) -> Value {
        let joined = |name: &str, kind: Kind| json!({ "type": name, "path": pin(&self.namespaces, kind) });
        let network = match self.role {
            Role::Display => json!({ "type": "network" }),
            Role::Workload => joined("network", Kind::Net),
        };
        json!([
            joined("user", Kind::User),
            joined("ipc", Kind::Ipc),
            joined("uts", Kind::Uts),
            network,
            { "type": "pid" },
            { "type": "mount" },
            { "type": "cgroup" },
        ])
    }

    fn mounts(&self) -> Vec<Value> {
        let special = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
        let mut mounts = vec![
            special("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            special("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
            special("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            special("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ];
        match self.role {
            Role::Display => mounts.push(special("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777", "size=16m"])),
            Role::Workload => mounts.push(special("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])),
        }
        mounts.extend(self.binds.iter().map(|bind| {
            let mode = if bind.writable { "rw" } else { "ro" };
            let options = json!(["rbind", "rprivate", "nosuid", "nodev", mode]);
            json!({ "destination": bind.target, "type": "bind", "source": bind.source, "options": options })
        }));
        mounts
    }
}

impl Program {
    /// The `process` part of a spec, and the whole of an exec.
    #[must_use]
    pub fn to_json(&self, role: Role) -> Value {
        let capabilities: &[&str] = match role {
            Role::Display => &[],
            Role::Workload => &CAPABILITIES,
        };
        let nofile = NOFILE_LIMITS.map(|(soft, hard)| json!({ "type": "RLIMIT_NOFILE", "soft": soft, "hard": hard }));
        json!({
            "terminal": self.terminal,
            "user": self.user.to_json(),
            "args": self.args,
            "env": self.env,
            "cwd": self.cwd,
            "noNewPrivileges": true,
            "oomScoreAdj": role.oom_score_adj(),
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
                "inheritable": [],
                "ambient": [],
            },
            "rlimits": nofile.into_iter().collect::<Vec<_>>(),
        })
    }
}

/// Denies every device, then allows the harmless ones.
fn device_rules() -> Vec<Value> {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(DEVICES.map(|(major, minor)| {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rule
    }));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(role: Role) -> oci_spec::runtime::Spec {
        let id = SandboxId::random();
        let program = Program {
            args: vec!["/bin/true".into()],
            env: vec!["A=b".into()],
            cwd: "/".into(),
            user: User { uid: 1000, gid: 1000, groups: vec![] },
            terminal: false,
        };
        let spec = ContainerSpec {
            sandbox_id: &id,
            role,
            program,
            rootfs: "/r".into(),
            namespaces: "/ns".into(),
            first_id: 1 << 20,
            cgroup_path: "/roost/x".into(),
            binds: vec![],
            nested_user_namespaces: false,
        };
        serde_json::from_value(spec.to_json()).unwrap()
    }

    #[test]
    fn the_spec_is_one_that_the_oci_types_accept() {
        for role in Role::ALL {
            let spec = spec(role);
            let linux = spec.linux().as_ref().unwrap();
            assert!(linux.seccomp().is_some());
            assert_eq!(linux.namespaces().as_ref().unwrap().len(), 7);
        }
    }

    #[test]
    fn no_capability_is_inheritable_or_ambient() {
        for role in Role::ALL {
            let spec = spec(role);
            let capabilities = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
            assert_eq!(capabilities.inheritable().as_ref().unwrap().len(), 0);
            assert_eq!(capabilities.ambient().as_ref().unwrap().len(), 0);
        }
    }

    #[test]
    fn devices_are_denied_before_any_is_allowed() {
        let rules = device_rules();
        assert_eq!(rules[0], json!({ "allow": false, "access": "rwm" }));
        assert!(rules[1..].iter().all(|r| r["type"] == "c"));
    }
}
