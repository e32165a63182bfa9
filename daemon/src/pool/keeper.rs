//! Keeps every pool as filled as its policy says.

use std::collections::HashMap;
use std::time::Duration;

use roost_proto::id::{PoolName, SandboxId};
use roost_proto::model::{Phase, RunState, SandboxSpec};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Pools;
use super::policy::{Counts, Decision, decide};
use crate::sandbox::{Manager, Origin, View};

/// Between two looks without news: demand fades with time.
const PERIOD: Duration = Duration::from_secs(1);
/// Shortest time between two looks: a burst of claims is one piece of news.
const PAUSE: Duration = Duration::from_millis(5);
/// Without a claim for so long, a burst of them is over.
const QUIET: Duration = Duration::from_millis(100);
/// Longest time that one start waits for that.
const CLAIMS_FIRST: Duration = Duration::from_millis(500);

/// A desktop that nobody has claimed.
#[derive(Debug, Clone)]
pub(super) struct Member {
    id: SandboxId,
    phase: Phase,
    /// Set while it is Ready.
    pub(super) ready_at_unix_ms: Option<u64>,
    message: Option<String>,
    spec: SandboxSpec,
}

/// What every pool has, by name.
pub(super) fn members(manager: &Manager) -> HashMap<PoolName, Vec<Member>> {
    let mut members: HashMap<PoolName, Vec<Member>> = HashMap::new();
    let is_member = |view: &View| view.desired.origin == Origin::Pool && view.desired.run_state == RunState::Running;
    for view in manager.changed_since(0).into_iter().filter(is_member) {
        let Some(pool) = view.desired.pool.clone() else { continue };
        let observed = view.observed;
        let is_ready = observed.phase == Phase::Ready;
        members.entry(pool).or_default().push(Member {
            id: view.desired.id.clone(),
            phase: observed.phase,
            ready_at_unix_ms: observed.ready_at_unix_ms.filter(|_| is_ready),
            message: observed.message,
            spec: view.desired.spec.clone(),
        });
    }
    members
}

/// How they stand against what the pool is to be.
pub(super) fn count(members: &[Member], spec: &SandboxSpec) -> Counts {
    let mut counts = Counts::default();
    for member in members {
        match member.phase {
            Phase::Ready if member.spec == *spec => counts.ready += 1,
            Phase::Ready => counts.outdated += 1,
            Phase::Pending | Phase::Starting if member.spec == *spec => counts.starting += 1,
            _ => {}
        }
    }
    counts
}

/// Keeps all pools until the daemon shuts down.
pub(super) async fn keep(pools: Pools, shutdown: CancellationToken) {
    let (mut changes, mut table) = (pools.changes.subscribe(), pools.manager.subscribe());
    loop {
        changes.mark_unchanged();
        table.mark_unchanged();
        look(&pools).await;
        // Cancel-safe: what changes meanwhile stays marked in the channels.
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = changes.changed() => {}
            _ = table.changed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(pools: &Pools) {
    let mut members = members(&pools.manager);
    let specs: Vec<_> = pools.lock().values().map(|entry| entry.spec.clone()).collect();
    for spec in specs {
        let of_it = members.remove(&spec.name).unwrap_or_default();
        let (failed, of_it): (Vec<_>, Vec<_>) =
            of_it.into_iter().partition(|m| !matches!(m.phase, Phase::Ready | Phase::Pending | Phase::Starting));
        // Starts of an older spec lead nowhere.
        let (stale, of_it): (Vec<_>, Vec<_>) =
            of_it.into_iter().partition(|m| m.phase != Phase::Ready && m.spec != spec.spec);
        let now = Instant::now();
        let counts = count(&of_it, &spec.spec);
        let decision = {
            let mut entries = pools.lock();
            let Some(entry) = entries.get_mut(&spec.name) else { continue };
            for member in failed.iter().filter(|member| member.spec == spec.spec) {
                entry.failed(member.message.clone().unwrap_or_else(|| "it ended".into()), now);
            }
            if counts.ready > 0 && failed.is_empty() && entry.problem.as_ref().is_some_and(|p| p.until <= now) {
                entry.problem = None;
            }
            let expected = entry.demand.expected(Duration::from_millis(spec.demand_window_ms.into()), now.into_std());
            let decision = decide(&spec, counts, expected);
            let waits = entry.problem.as_ref().is_some_and(|problem| problem.until > now);
            Decision { start: if waits { 0 } else { decision.start }, ..decision }
        };
        drop_members(&pools.manager, failed.iter().chain(&stale)).await;
        let outdated = of_it.iter().filter(|m| m.phase == Phase::Ready && m.spec != spec.spec);
        drop_members(&pools.manager, outdated.take(decision.drop_outdated as usize)).await;
        let surplus = of_it.iter().filter(|m| m.phase == Phase::Ready && m.spec == spec.spec);
        drop_members(&pools.manager, surplus.take(decision.drop_ready as usize)).await;
        for _ in 0..decision.start {
            claims_first(pools).await;
            if let Err(error) = pools.manager.create_pooled(spec.name.clone(), spec.spec.clone()).await {
                let message = error.to_string();
                tracing::warn!(pool = %spec.name, error = message, "pool cannot be filled");
                if let Some(entry) = pools.lock().get_mut(&spec.name) {
                    entry.failed(message, Instant::now());
                }
                break;
            }
        }
    }
    // Of pools that are no more.
    drop_members(&pools.manager, members.values().flatten()).await;
}

/// Waits until a burst of claims is over, so that a start takes no CPU from
/// them. Claims that never end do not stop the pool.
async fn claims_first(pools: &Pools) {
    let mut claims = pools.claims.subscribe();
    let quiet = async {
        loop {
            let now = *claims.borrow_and_update();
            let quiet_at = now.last_ended_at.map(|at| at + QUIET).filter(|at| *at > Instant::now());
            // Cancel-safe: news of claims stays in the channel.
            tokio::select! {
                changed = claims.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(quiet_at.unwrap_or_else(Instant::now)), if now.under_way == 0 => return,
            }
        }
    };
    // Its time is up: as good as quiet.
    let _ = tokio::time::timeout(CLAIMS_FIRST, quiet).await;
}

async fn drop_members(manager: &Manager, members: impl Iterator<Item = &Member>) {
    for member in members {
        if let Err(error) = manager.drop_pooled(&member.id).await {
            tracing::warn!(sandbox = %member.id, %error, "desktop of a pool cannot be let go");
        }
    }
}
