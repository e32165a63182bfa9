//! Tells drivers whom the kernel killed for want of memory.
//!
//! A kill belongs to the sandbox whose id is in the path of the victim's
//! cgroup, and to nobody else: the log is one for the whole machine, and
//! whatever else it says is chosen by the processes.

use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{OomVictim, Part};

use crate::containerd::Role;
use crate::host::Error;
use crate::host::kernel_log::{KernelLog, OomKill};
use crate::sandbox::Manager;
use crate::sandbox::failure::chain;
use crate::sandbox::publisher::unix_ms;

/// Between two looks at the counters where the log cannot be read: they say
/// how many were killed, and not whom.
const COUNTERS_PERIOD: Duration = Duration::from_secs(10);

/// Follows the kernel's log for ever; without it, the counters.
pub async fn follow(manager: Manager) {
    let error = match KernelLog::open() {
        Ok(log) => read(log, &manager).await,
        Err(error) => error,
    };
    tracing::warn!(
        error = %chain(&error),
        "the kernel's log cannot be read: kills for want of memory are counted, their victims are not known"
    );
    loop {
        tokio::time::sleep(COUNTERS_PERIOD).await;
        manager.look_for_kills();
    }
}

async fn read(mut log: KernelLog, manager: &Manager) -> Error {
    loop {
        match log.next_kill().await {
            Ok(kill) => {
                if let Some((id, victim)) = attribute(kill) {
                    manager.memory_ran_out(&id, victim);
                }
            }
            Err(error) => return error,
        }
    }
}

/// Whose process it was: `…/<sandbox>/<role>` or below.
fn attribute(kill: OomKill) -> Option<(SandboxId, OomVictim)> {
    let parts: Vec<&str> = kill.cgroup.split('/').collect();
    let (id, role) = parts.windows(2).find_map(|pair| {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == pair[1])?;
        Some((pair[0].parse().ok()?, role))
    })?;
    let part = match role {
        Role::Display => Part::Display,
        Role::Workload => Part::Application,
    };
    Some((id, OomVictim { process: kill.process, pid: kill.pid, part, at_unix_ms: unix_ms() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributed(cgroup: &str) -> Option<(String, Part)> {
        let kill = OomKill { cgroup: cgroup.into(), process: "sbx-0123456789abcdef/workload".into(), pid: 1 };
        attribute(kill).map(|(id, victim)| (id.to_string(), victim.part))
    }

    #[test]
    fn a_kill_belongs_to_the_sandbox_of_its_cgroup() {
        let id = "sbx-0123456789abcdef";
        let expected = |part| Some((id.to_owned(), part));
        assert_eq!(attributed(&format!("/roost/{id}/workload")), expected(Part::Application));
        assert_eq!(attributed(&format!("/kubepods/pod1/roost/{id}/display")), expected(Part::Display));
        assert_eq!(attributed(&format!("/roost/{id}/workload/nested")), expected(Part::Application));
    }

    #[test]
    fn a_kill_elsewhere_is_nobodys() {
        for cgroup in ["/", "/system.slice/sshd.service", "/roost/sbx-0123456789abcdef", "/roost/shims", "/x/workload"]
        {
            assert_eq!(attributed(cgroup), None, "{cgroup}");
        }
    }
}
