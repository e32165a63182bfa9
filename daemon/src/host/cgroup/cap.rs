//! The cap over all sandboxes of the node: limits of the cgroup that holds
//! them, so that all of them together leave the host its share.

use roost_proto::model::NodeCap;

use super::{Cgroups, Version, read_text};
use crate::host::Error;

impl Cgroups {
    /// Caps the parent of all sandboxes and shims. Memory in use above a
    /// lowered cap stays in use: the cap that is in force is then the old one.
    ///
    /// # Errors
    /// What the kernel refuses for another reason, or takes and does not
    /// enforce.
    pub fn set_cap(&mut self, cap: NodeCap) -> Result<NodeCap, Error> {
        self.cap = Some(cap);
        self.lower_quotas(cap.cpu_millis)?;
        self.set_quota(&self.parent, Some(cap.cpu_millis))?;
        self.set_pids(&self.parent, cap.pids)?;
        self.confirm_limits(&self.parent, Some(cap.cpu_millis), cap.pids)?;
        let refused = self.set_memory(&self.parent, cap.memory_bytes)?;
        let memory_bytes = match refused {
            None => cap.memory_bytes,
            Some(refused) => {
                tracing::warn!(%refused, "the cap over all sandboxes stays as it was: stop some, then restart roostd");
                self.memory_limit(&self.parent)?
            }
        };
        let in_force = NodeCap { memory_bytes, ..cap };
        self.cap = Some(in_force);
        Ok(in_force)
    }

    /// What is in force; none before [`Self::set_cap`].
    #[must_use]
    pub fn cap(&self) -> Option<NodeCap> {
        self.cap
    }

    /// v1 refuses a quota of the parent below that of a child. Each sandbox
    /// gets its own again when its driver adopts it.
    fn lower_quotas(&self, cap_millis: u32) -> Result<(), Error> {
        if self.version == Version::V2 {
            return Ok(());
        }
        for name in self.list() {
            let path = self.relative(&name);
            let quota = self.version.file("cpu", &path, "cpu.cfs_quota_us", "");
            // Gone since it was listed, or without a limit.
            let Ok(text) = read_text(&quota) else { continue };
            if text.trim() != "-1" {
                self.set_quota(&path, Some(cap_millis))?;
            }
        }
        Ok(())
    }
}
