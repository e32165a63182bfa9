//! Every change of the sandboxes, level-triggered: a slow reader skips states
//! in between and never misses the last one. Nothing is queued per reader.

use std::sync::Arc;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use tonic::Status;

use super::convert;
use super::sandbox::Sandboxes;
use super::service::Answers;
use super::status::{invalid, shutting_down};
use crate::sandbox::{RequestError, View};

/// All sandboxes, or only the one that `id` names; that stream ends once it
/// is gone.
pub(super) fn sandboxes(
    sandboxes: Arc<dyn Sandboxes>,
    id: &str,
) -> Result<Answers<roost_proto::node::Sandbox>, Status> {
    if id.is_empty() {
        return Ok(all(sandboxes));
    }
    let id = convert::sandbox_id(id).map_err(invalid)?;
    if sandboxes.get(&id).is_none() {
        return Err(RequestError::NotFound(id).into());
    }
    Ok(one(sandboxes, id))
}

fn all(sandboxes: Arc<dyn Sandboxes>) -> Answers<roost_proto::node::Sandbox> {
    Box::pin(async_stream::stream! {
        let mut changes = sandboxes.subscribe();
        let mut seen = 0;
        loop {
            // Marked as seen before the look, so that a change during the look
            // wakes the wait below.
            changes.mark_unchanged();
            for View { change, desired, observed } in sandboxes.changed_since(seen) {
                seen = seen.max(change);
                yield Ok(convert::sandbox(View { change, desired, observed }));
            }
            if changes.changed().await.is_err() {
                yield Err(shutting_down());
                return;
            }
        }
    })
}

fn one(sandboxes: Arc<dyn Sandboxes>, id: SandboxId) -> Answers<roost_proto::node::Sandbox> {
    Box::pin(async_stream::stream! {
        let mut changes = sandboxes.subscribe();
        let mut seen = None;
        loop {
            changes.mark_unchanged();
            let Some(view) = sandboxes.get(&id) else { return };
            let is_gone = view.observed.phase == Phase::Gone;
            if seen != Some(view.change) {
                seen = Some(view.change);
                yield Ok(convert::sandbox(view));
            }
            if is_gone {
                return;
            }
            if changes.changed().await.is_err() {
                yield Err(shutting_down());
                return;
            }
        }
    })
}
