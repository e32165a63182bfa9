//! What is wished for a sandbox: run, stop, stand still, go.

use roost_proto::id::TenantId;
use roost_proto::model::{Phase, RunState, Sandbox};

use super::sandbox::{self, Replay, keep_answer, replay};
use super::{Transaction, node};
use crate::store::{Change, Created, Intent, NewWish, SandboxKey, SetRunStateError};

/// What the intent makes of run state, restarts and standing still; none =
/// nothing to change.
fn wanted(sandbox: &Sandbox, intent: Intent) -> Result<Option<(RunState, u64, bool)>, SetRunStateError> {
    let (now, restarts, phase) = (sandbox.run_state, sandbox.restart_count, sandbox.observed.phase);
    let runs = now == RunState::Running;
    let new = match intent {
        // Also where a stop of it is not carried out yet: node and central may
        // see both wishes as one.
        Intent::Start if phase == Phase::Failed => Some((RunState::Running, restarts + 1, false)),
        Intent::Start if !runs => Some((RunState::Running, restarts, false)),
        // A newer generation alone: what waits for a restart does not wait longer, and what an idle timeout ended
        // is begun again.
        Intent::Start
            if sandbox.paused
                || matches!(phase, Phase::Stopped | Phase::Paused)
                || sandbox.observed.next_restart_at_unix_ms.is_some() =>
        {
            Some((RunState::Running, restarts, false))
        }
        Intent::Stop if now != RunState::Stopped => Some((RunState::Stopped, restarts, false)),
        Intent::Restart => Some((RunState::Running, restarts + 1, false)),
        Intent::Delete => Some((RunState::Deleted, restarts, false)),
        Intent::Pause if !runs || matches!(phase, Phase::Failed | Phase::Stopped) => {
            return Err(SetRunStateError::NotRunning);
        }
        Intent::Pause if !sandbox.paused && phase != Phase::Paused => Some((RunState::Running, restarts, true)),
        Intent::Resume if runs && (sandbox.paused || phase == Phase::Paused) => {
            Some((RunState::Running, restarts, false))
        }
        Intent::Start | Intent::Stop | Intent::Pause | Intent::Resume => None,
    };
    Ok(new)
}

pub(super) fn set(
    tx: &dyn Transaction,
    tenant: &TenantId,
    key: &SandboxKey,
    new: &NewWish,
    changes: &mut Vec<Change>,
) -> Result<Created, SetRunStateError> {
    if let Some((key, request)) = &new.idempotency {
        match replay(tx, tenant, key, request)? {
            Replay::New => {}
            Replay::Answer(sandbox) => return Ok(Created { sandbox: *sandbox, replayed: true }),
            Replay::Reused => return Err(SetRunStateError::KeyReused),
        }
    }
    let sandbox = change(tx, tenant, key, new.intent, changes)?;
    if let Some(idempotency) = &new.idempotency {
        keep_answer(tx, &sandbox, idempotency, new.now_unix_ms)?;
    }
    Ok(Created { sandbox, replayed: false })
}

fn change(
    tx: &dyn Transaction,
    tenant: &TenantId,
    key: &SandboxKey,
    intent: Intent,
    changes: &mut Vec<Change>,
) -> Result<Sandbox, SetRunStateError> {
    let mut sandbox = sandbox::find(tx, tenant, key)?.ok_or(SetRunStateError::NotFound)?;
    if sandbox.run_state == RunState::Deleted {
        return if intent == Intent::Delete { Ok(sandbox) } else { Err(SetRunStateError::Deleting) };
    }
    let Some((run_state, restart_count, paused)) = wanted(&sandbox, intent)? else { return Ok(sandbox) };
    let node_generation = node::bump(tx, &sandbox.node_id)?;
    sandbox.run_state = run_state;
    sandbox.restart_count = restart_count;
    sandbox.paused = paused;
    sandbox.generation += 1;
    if run_state == RunState::Deleted {
        sandbox.observed.phase = Phase::Deleting;
        sandbox.observed.stage = None;
    }
    sandbox::keep_wish(tx, &sandbox, node_generation)?;
    changes.push(Change::Desired { node_id: sandbox.node_id.clone(), generation: node_generation });
    changes.push(Change::Sandbox(Box::new(sandbox.clone())));
    Ok(sandbox)
}
