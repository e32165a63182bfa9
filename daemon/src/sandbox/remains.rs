//! What a containerd that was killed forgets: a shim that it had started and
//! not yet noted, and runc's state of a container that nobody deletes. Both
//! are in the way of the next start, and nobody else removes them.

use std::path::{Path, PathBuf};

use roost_proto::id::SandboxId;

use super::Node;
use crate::containerd::{ContainerId, Role};
use crate::host::{Error, files, pids};

/// What the kernel calls a shim: its first 15 bytes.
const SHIM: &str = "containerd-shim";

/// What may be left of one sandbox.
#[derive(Debug)]
pub(super) struct Remains {
    /// Its containers' names, as they stand in the command lines of shims.
    containers: Vec<String>,
    namespace: String,
    /// runc's state of this node's containers.
    state: PathBuf,
}

impl Remains {
    pub(super) fn of(node: &Node, id: &SandboxId) -> Self {
        let namespace = node.client.namespace().to_owned();
        Self {
            containers: Role::ALL.map(|role| ContainerId::new(id, role).to_string()).into(),
            state: Path::new(&node.runtime.runc_root).join(&namespace),
            namespace,
        }
    }

    /// Kills shims of the sandbox: whoever calls knows of no task of it. All
    /// processes are looked at, since one that was cut off early is in no
    /// cgroup of ours yet: 10 ms with a thousand desktops.
    pub(super) fn kill_shims(&self) -> Result<(), Error> {
        for pid in pids::named(SHIM)? {
            if self.is_own_shim(&pids::command_line(pid)) {
                tracing::warn!(%pid, containers = ?self.containers, "a shim that containerd does not know is killed");
                pids::kill(pid)?;
            }
        }
        Ok(())
    }

    /// Whether a command line is that of a shim of the sandbox.
    fn is_own_shim(&self, line: &[String]) -> bool {
        let after = |name: &str| line.iter().skip_while(|word| *word != name).nth(1);
        let is_own = after("-id").is_some_and(|id| self.containers.contains(id));
        is_own && after("-namespace") == Some(&self.namespace)
    }

    /// Removes runc's state; no process of the sandbox is left.
    pub(super) fn remove_state(&self) -> Result<(), Error> {
        self.containers.iter().try_for_each(|container| files::remove_tree(&self.state.join(container)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shim_of_the_sandbox_and_the_namespace_is_its_own() {
        let id = SandboxId::random();
        let remains = Remains {
            containers: vec![format!("{id}-display"), format!("{id}-workload")],
            namespace: "roost".into(),
            state: PathBuf::new(),
        };
        let is_own = |line: &str| remains.is_own_shim(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let shim = "/usr/bin/containerd-shim-runc-v2 -namespace";
        assert!(is_own(&format!("{shim} roost -id {id}-display -address /c.sock")));
        assert!(!is_own(&format!("{shim} other -id {id}-display -address /c.sock")));
        assert!(!is_own(&format!("{shim} roost -id {}-display -address /c.sock", SandboxId::random())));
        assert!(!is_own(&format!("/usr/bin/vim {id}-display")));
    }
}
