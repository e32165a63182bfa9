//! The reserve of the disk: while it is touched, whoever writes most is
//! stopped. docs/adr/0014-the-disk-reserve.md says why, and why not otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use tokio::time::Instant;

use super::judge::{MIN_GROWTH_BYTES, biggest_writer};
use crate::host::{Error, blocking, tree};
use crate::sandbox::eviction::Eviction;
use crate::sandbox::{Manager, Node};

/// A measure may cost this part of one core at most.
const MEASURE_SHARE: u32 = 10;

/// Bytes on disk of every sandbox that runs.
type Sizes = HashMap<SandboxId, u64>;

/// Guards the reserve.
#[derive(Debug)]
pub(super) struct Reserve {
    node: Arc<Node>,
    manager: Manager,
    /// Sizes against which growth counts, what was free then, and when the
    /// next measure may begin.
    measured: Option<(Sizes, u64, Instant)>,
}

impl Reserve {
    pub(super) fn new(node: Arc<Node>, manager: Manager) -> Self {
        Self { node, manager, measured: None }
    }

    /// Takes sizes when the disk becomes short, and blames whoever grew since
    /// once the reserve is touched.
    pub(super) async fn look(&mut self, is_disk_short: bool, free_bytes: Option<u64>, reserve_bytes: u64) {
        let Some(free_bytes) = free_bytes else { return };
        if !is_disk_short {
            self.measured = None;
            return;
        }
        let Some((before, free_before, not_before)) = &self.measured else {
            self.measured = self.measure(free_bytes).await;
            return;
        };
        // Nobody can have grown by more than what went.
        let has_gone = free_before.saturating_sub(free_bytes) >= MIN_GROWTH_BYTES;
        if free_bytes >= reserve_bytes || !has_gone || Instant::now() < *not_before {
            return;
        }
        let before = before.clone();
        let Some((now, free_now, not_before)) = self.measure(free_bytes).await else { return };
        match biggest_writer(&before, &now) {
            Some((id, growth_bytes)) => {
                self.stop(&id, growth_bytes, free_bytes);
                // Its files stay: the others count from here.
                self.measured = Some((now, free_now, not_before));
            }
            None => {
                tracing::warn!(free_bytes, reserve_bytes, "the disk reserve is touched, and not by a sandbox");
                // Slow growth adds up: known sizes stay, new sandboxes join.
                let sizes = now.into_iter().chain(before).collect();
                self.measured = Some((sizes, free_now, not_before));
            }
        }
    }

    fn stop(&self, id: &SandboxId, growth_bytes: u64, free_bytes: u64) {
        let grown = match growth_bytes {
            u64::MAX => "its files lie too deep to be measured".to_owned(),
            bytes => format!("it wrote {bytes} bytes, more than any other,"),
        };
        let message = format!(
            "stopped: {grown} while the disk of the node ran full ({free_bytes} bytes are left); its files are kept: \
             `roost sandbox rm` frees them, `roost sandbox start` runs it again"
        );
        self.manager.evict(id, Eviction { reason: "disk-pressure", message });
    }

    async fn measure(&self, free_bytes: u64) -> Option<(Sizes, u64, Instant)> {
        let runs = |phase| matches!(phase, Phase::Ready | Phase::Starting);
        let views = self.manager.changed_since(0).into_iter().filter(|view| runs(view.observed.phase));
        let ids: Vec<SandboxId> = views.map(|view| view.desired.id.clone()).collect();
        let node = self.node.clone();
        let begun = Instant::now();
        let measured = blocking(move || {
            // A start that has not come so far holds nothing yet.
            let sized = ids.into_iter().map(|id| (size(&node, &id), id));
            Ok(sized.filter_map(|(size, id)| Some((id, size.ok()?))).collect())
        });
        match measured.await {
            Ok(sizes) => Some((sizes, free_bytes, Instant::now() + begun.elapsed() * MEASURE_SHARE)),
            Err(error) => {
                tracing::debug!(%error, "sandboxes were not measured");
                None
            }
        }
    }
}

fn size(node: &Node, id: &SandboxId) -> Result<u64, Error> {
    let dirs = node.layout.sandbox(id);
    // A flood of output is emptied, and until then it is on the disk.
    let logs = tree::disk_bytes(dirs.logs()).unwrap_or_default();
    if let Some(held) = node.storage.held(&dirs.bounded())? {
        return Ok(logs.saturating_add(held.disk_bytes));
    }
    let upper = dirs.upper(false);
    let named = tree::disk_bytes(&upper)?.saturating_add(logs);
    let process_ids = node.cgroups.process_ids(id.as_str())?;
    Ok(named.saturating_add(tree::unlinked_bytes(&process_ids, &upper)))
}
