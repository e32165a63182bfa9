//! What one observation means for a goal.

use clap::ValueEnum;
use roost_proto::model::{Observed, Phase, Sandbox, Stage};

use crate::output::human::duration_us;

/// Where a sandbox should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// It can be worked with
    #[value(name = "Ready", alias = "ready")]
    Ready,
    /// Its processes stand still
    #[value(name = "Paused", alias = "paused")]
    Paused,
    /// It has no process
    #[value(name = "Stopped", alias = "stopped")]
    Stopped,
    /// Nothing of it is left
    #[value(name = "Gone", alias = "gone", alias = "delete", alias = "deleted")]
    Gone,
    /// The kernel enforces the limits that are wanted
    #[value(skip)]
    Updated,
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ready => "Ready",
            Self::Paused => "Paused",
            Self::Stopped => "Stopped",
            Self::Gone => "Gone",
            Self::Updated => "updated",
        })
    }
}

/// What an observation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not yet.
    Waiting,
    /// There.
    Met,
    /// It failed and will not get there by itself.
    Failed,
    /// It is gone, and that was not the goal.
    Gone,
    /// The kernel refuses the limits for now.
    Refused,
}

/// Judges a sandbox. An observation that answers an older wish than the
/// present one says nothing: a restarted sandbox is `Ready` for a moment more.
pub(crate) fn judge(goal: Goal, sandbox: &Sandbox) -> Verdict {
    let is_current = sandbox.observed.observed_generation >= sandbox.generation;
    match (goal, sandbox.observed.phase) {
        (Goal::Gone, Phase::Gone) => Verdict::Met,
        (_, Phase::Gone | Phase::Deleting) if goal != Goal::Gone => Verdict::Gone,
        (Goal::Updated, phase) if is_current => judge_limits(phase, sandbox),
        (Goal::Ready, Phase::Ready) | (Goal::Paused, Phase::Paused) | (Goal::Stopped, Phase::Stopped) if is_current => {
            Verdict::Met
        }
        // What failed can still be removed.
        (Goal::Ready | Goal::Paused | Goal::Stopped, Phase::Failed) if is_current => Verdict::Failed,
        _ => Verdict::Waiting,
    }
}

/// What does not run gets its limits with its next start; what stands still,
/// when it goes on.
fn judge_limits(phase: Phase, sandbox: &Sandbox) -> Verdict {
    let observed = &sandbox.observed;
    match (phase, &observed.reason) {
        (Phase::Stopped | Phase::Failed | Phase::Paused, _) => Verdict::Met,
        (Phase::Ready, _) if observed.limits.as_ref() == Some(sandbox.resources()) => Verdict::Met,
        (Phase::Ready, Some(_)) if observed.limits.is_some() => Verdict::Refused,
        _ => Verdict::Waiting,
    }
}

/// Phase with what is worth knowing beside it: `Starting: rootfs`,
/// `Failed: workload-exited`.
pub(crate) fn status(observed: &Observed) -> String {
    match (observed.phase, observed.stage, &observed.reason) {
        (Phase::Starting, None, Some(reason)) => format!("Starting: {reason}"),
        (Phase::Starting, Some(stage), _) => format!("Starting: {stage}"),
        (phase @ (Phase::Failed | Phase::Stopped | Phase::Paused | Phase::Deleting | Phase::Gone), _, Some(reason)) => {
            format!("{phase}: {reason}")
        }
        (phase, _, _) => phase.to_string(),
    }
}

/// The stage in which a failed start ended: the one that the node names, or
/// the one after the last that was timed.
pub(crate) fn failed_stage(observed: &Observed) -> Option<Stage> {
    if observed.stage.is_some() || observed.ready_at_unix_ms.is_some() {
        return observed.stage;
    }
    let last = observed.stages.iter().map(|timing| timing.stage).max()?;
    Stage::ALL.into_iter().find(|&stage| stage > last)
}

/// Time from the acceptance of the last start to Ready, as the node measured
/// it, in microseconds.
pub(crate) fn start_us(observed: &Observed) -> Option<u64> {
    observed.stages.iter().map(|timing| timing.begin_us.saturating_add(timing.duration_us)).max()
}

/// The stages that took at least a millisecond, in order and in milliseconds:
/// `rootfs 40, display_container 61`.
pub(crate) fn stage_summary(observed: &Observed) -> String {
    let shown = observed.stages.iter().filter(|timing| timing.duration_us >= 1_000);
    let text = |timing: &roost_proto::model::StageTiming| {
        format!("{} {}", timing.stage, timing.duration_us.saturating_add(500) / 1_000)
    };
    shown.map(text).collect::<Vec<_>>().join(", ")
}

/// `desktop-1 Ready in 231 ms (rootfs 40, …)`, or without what is not known.
pub(crate) fn success(label: &str, goal: Goal, sandbox: Option<&Sandbox>) -> String {
    let observed = sandbox.filter(|_| goal == Goal::Ready).map(|sandbox| &sandbox.observed);
    let Some((observed, us)) = observed.and_then(|observed| Some((observed, start_us(observed)?))) else {
        return format!("{label} {goal}");
    };
    match stage_summary(observed) {
        summary if summary.is_empty() => format!("{label} {goal} in {}", duration_us(us)),
        summary => format!("{label} {goal} in {} ({summary})", duration_us(us)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use roost_proto::model::{Resources, RunState, StageTiming};

    pub(crate) fn sandbox(generation: u64, observed_generation: u64, phase: Phase) -> Sandbox {
        Sandbox {
            id: "sbx-0123456789abcdef".parse().unwrap(),
            name: Some("desktop-1".parse().unwrap()),
            tenant: "default".parse().unwrap(),
            node_id: "node-0123456789abcdef".parse().unwrap(),
            generation,
            run_state: RunState::Running,
            restart_count: 0,
            spec: serde_json::from_str(r#"{"template":"desktop","image":"roost/desktop"}"#).unwrap(),
            resources: None,
            paused: false,
            lifetime: None,
            ttl_count: 0,
            observed: Observed { observed_generation, phase, ..Observed::pending() },
            created_at_unix_ms: 0,
            observed_at_unix_ms: None,
        }
    }

    #[test]
    fn an_answer_to_an_older_wish_decides_nothing() {
        for phase in [Phase::Ready, Phase::Failed] {
            assert_eq!(judge(Goal::Ready, &sandbox(2, 1, phase)), Verdict::Waiting, "{phase}");
        }
        assert_eq!(judge(Goal::Ready, &sandbox(2, 2, Phase::Ready)), Verdict::Met);
        assert_eq!(judge(Goal::Stopped, &sandbox(3, 2, Phase::Stopped)), Verdict::Waiting);
    }

    #[test]
    fn each_goal_has_its_phase() {
        assert_eq!(judge(Goal::Stopped, &sandbox(1, 1, Phase::Stopped)), Verdict::Met);
        assert_eq!(judge(Goal::Gone, &sandbox(1, 1, Phase::Gone)), Verdict::Met);
        assert_eq!(judge(Goal::Gone, &sandbox(1, 1, Phase::Deleting)), Verdict::Waiting);
        assert_eq!(judge(Goal::Gone, &sandbox(1, 1, Phase::Failed)), Verdict::Waiting);
        assert_eq!(judge(Goal::Ready, &sandbox(1, 1, Phase::Stopped)), Verdict::Waiting);
    }

    #[test]
    fn a_failed_or_deleted_sandbox_ends_the_wait() {
        assert_eq!(judge(Goal::Ready, &sandbox(1, 1, Phase::Failed)), Verdict::Failed);
        assert_eq!(judge(Goal::Ready, &sandbox(2, 1, Phase::Deleting)), Verdict::Gone);
        assert_eq!(judge(Goal::Stopped, &sandbox(2, 1, Phase::Gone)), Verdict::Gone);
    }

    #[test]
    fn limits_are_there_when_they_are_in_force_or_nothing_runs() {
        let mut sandbox = sandbox(2, 2, Phase::Ready);
        assert_eq!(judge(Goal::Updated, &sandbox), Verdict::Waiting, "an older node never says");
        sandbox.observed.limits = Some(sandbox.spec.resources.clone());
        assert_eq!(judge(Goal::Updated, &sandbox), Verdict::Met);
        sandbox.resources = Some(Resources { pids_limit: 77, ..Resources::default() });
        assert_eq!(judge(Goal::Updated, &sandbox), Verdict::Waiting);
        sandbox.observed.reason = Some("limits-in-use".into());
        assert_eq!(judge(Goal::Updated, &sandbox), Verdict::Refused);
        sandbox.observed.phase = Phase::Stopped;
        assert_eq!(judge(Goal::Updated, &sandbox), Verdict::Met);
    }

    #[test]
    fn success_names_total_and_stages() {
        let mut sandbox = sandbox(1, 1, Phase::Ready);
        assert_eq!(success("desktop-1", Goal::Ready, Some(&sandbox)), "desktop-1 Ready");
        let timing = |stage, begin_us, duration_us| StageTiming { stage, begin_us, duration_us };
        sandbox.observed.stages = vec![
            timing(Stage::Ledger, 0, 400),
            timing(Stage::Rootfs, 400, 40_100),
            timing(Stage::FirstFrame, 200_000, 31_200),
        ];
        let line = success("desktop-1", Goal::Ready, Some(&sandbox));
        assert_eq!(line, "desktop-1 Ready in 231 ms (rootfs 40, first_frame 31)");
        assert_eq!(success("desktop-1", Goal::Stopped, Some(&sandbox)), "desktop-1 Stopped");
    }

    #[test]
    fn the_stage_of_a_failure_is_the_one_after_the_last_timed() {
        let mut observed = sandbox(1, 1, Phase::Failed).observed;
        assert_eq!(failed_stage(&observed), None);
        observed.stages = vec![StageTiming { stage: Stage::Rootfs, begin_us: 0, duration_us: 1 }];
        assert_eq!(failed_stage(&observed), Some(Stage::DisplayContainer));
        observed.stage = Some(Stage::Workload);
        assert_eq!(failed_stage(&observed), Some(Stage::Workload));
    }
}
