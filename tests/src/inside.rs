//! The processes of a sandbox, as the host sees them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roost_proto::id::SandboxId;

use crate::{Result, TestNode};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Its id on the host.
    pub pid: i32,
    /// Its name, at most 15 bytes.
    pub name: String,
}

/// Processes of one container, `display` or `workload`, oldest first.
#[must_use]
pub fn processes(node: &TestNode, id: &SandboxId, role: &str) -> Vec<Inside> {
    let parent = node.cgroup_parent();
    let v1 = format!("/sys/fs/cgroup/pids/{parent}/{id}/{role}/cgroup.procs");
    let v2 = format!("/sys/fs/cgroup/{parent}/{id}/{role}/cgroup.procs");
    let text = std::fs::read_to_string(v1).or_else(|_| std::fs::read_to_string(v2)).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Inside { pid, name: name.trim_end().to_owned() })
    })
    .collect()
}

/// The process of a container with this name.
///
/// # Errors
/// When there is none, or more than one.
pub fn process(node: &TestNode, id: &SandboxId, role: &str, name: &str) -> Result<i32> {
    let all = processes(node, id, role);
    match all.iter().filter(|process| process.name == name).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.pid),
        _ => Err(format!("not one {name} in the {role} of {id}: {all:?}").into()),
    }
}

/// Kills a process (SIGKILL).
///
/// # Errors
/// When it is gone.
pub fn murder(pid: i32) -> Result<()> {
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}
