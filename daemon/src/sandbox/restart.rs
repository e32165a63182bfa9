//! What follows when a part of a sandbox ends by itself. Pure: no locks, no
//! time, no chance but what is given.

use roost_proto::model::{Part, Restart, RestartPolicy, SandboxSpec, WindowManager};
use serde::{Deserialize, Serialize};

/// Most that is added to a wait, in thousandths of it.
const JITTER_PERMILLE: u64 = 200;

/// How much is made again. Each holds those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The window manager that Roost runs.
    WindowManager,
    /// The workload's container; the X server and its screen stay.
    Workload,
    /// Both containers; files stay.
    Sandbox,
}

/// An end that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What ended.
    pub part: Part,
    /// Stable word for why.
    pub reason: &'static str,
    /// Its exit code; none when it is not known, which counts as a failure.
    pub exit_code: Option<i32>,
}

/// What is to be made again, and after which wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// How much.
    pub scope: Scope,
    /// Wait, in milliseconds.
    pub wait_ms: u64,
}

/// What goes down with a part, and so is made again with it.
#[must_use]
pub fn scope_of(part: Part, window_manager: WindowManager) -> Scope {
    match part {
        // Every client of the X server ends with it.
        Part::Display => Scope::Sandbox,
        Part::Application => Scope::Workload,
        Part::WindowManager if window_manager == WindowManager::Platform => Scope::WindowManager,
        // The image's own: only its session knows how it is started.
        Part::WindowManager => Scope::Workload,
    }
}

/// Whether the policy of a sandbox makes something again after `end`; none
/// means that the sandbox is Failed.
///
/// `streak`: restarts since it was last stable. `jitter_permille`: chance, 0
/// to 1000.
#[must_use]
pub fn judge(spec: &SandboxSpec, end: &End, streak: u32, jitter_permille: u16) -> Option<Again> {
    let wanted = match spec.restart.policy(end.part) {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => end.exit_code != Some(0),
        RestartPolicy::Always => true,
    };
    let scope = scope_of(end.part, spec.window_manager);
    wanted.then(|| Again { scope, wait_ms: wait_ms(&spec.restart, streak, jitter_permille) })
}

/// The wait before the restart that follows `streak` earlier ones, in
/// milliseconds.
#[must_use]
pub fn wait_ms(restart: &Restart, streak: u32, jitter_permille: u16) -> u64 {
    let doubled = u64::from(restart.backoff_ms).checked_shl(streak.min(32)).unwrap_or(u64::MAX);
    let wait = doubled.min(restart.max_backoff_ms.into());
    wait + wait * JITTER_PERMILLE * u64::from(jitter_permille.min(1000)) / 1_000_000
}

/// The longest wait that a policy can ask for, in milliseconds: a clock that
/// was set back must not make it longer.
#[must_use]
pub fn longest_wait_ms(restart: &Restart) -> u64 {
    wait_ms(restart, u32::MAX, 1000)
}

/// Restarts that count for the next wait, after an end that came
/// `ready_for_ms` after the last entry into Ready; none: it was not Ready.
#[must_use]
pub fn streak_after(streak: u32, ready_for_ms: Option<u64>, restart: &Restart) -> u32 {
    match ready_for_ms {
        Some(ms) if ms >= u64::from(restart.stable_ms) => 0,
        _ => streak,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(restart: &str) -> SandboxSpec {
        let json = format!(r#"{{"template":"t","image":"i","window_manager":"platform","restart":{restart}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    fn end(part: Part, exit_code: Option<i32>) -> End {
        End { part, reason: "x", exit_code }
    }

    #[test]
    fn a_policy_speaks_for_its_own_part_alone() {
        let spec = spec(r#"{"application":"always","window_manager":"on-failure","display":"never"}"#);
        let scope = |part, code| judge(&spec, &end(part, code), 0, 0).map(|again| again.scope);
        assert_eq!(scope(Part::Application, Some(0)), Some(Scope::Workload));
        assert_eq!(scope(Part::WindowManager, Some(0)), None, "it ended in peace");
        assert_eq!(scope(Part::WindowManager, Some(1)), Some(Scope::WindowManager));
        assert_eq!(scope(Part::WindowManager, None), Some(Scope::WindowManager), "nobody knows why");
        assert_eq!(scope(Part::Display, Some(137)), None);
    }

    #[test]
    fn a_window_manager_of_the_image_comes_back_with_its_container() {
        let spec = SandboxSpec { window_manager: WindowManager::Image, ..spec("{}") };
        let again = judge(&spec, &end(Part::WindowManager, None), 0, 0).unwrap();
        assert_eq!(again.scope, Scope::Workload);
    }

    #[test]
    fn waits_double_up_to_their_bound() {
        let restart = Restart { backoff_ms: 200, max_backoff_ms: 1_500, ..Restart::default() };
        let waits: Vec<u64> = (0..5).map(|streak| wait_ms(&restart, streak, 0)).collect();
        assert_eq!(waits, [200, 400, 800, 1_500, 1_500]);
        assert_eq!(wait_ms(&restart, 0, 1000), 240);
        assert_eq!(longest_wait_ms(&restart), 1_800);
    }

    #[test]
    fn a_stable_time_makes_the_next_end_the_first_again() {
        let restart = Restart::default();
        assert_eq!(streak_after(7, Some(u64::from(restart.stable_ms)), &restart), 0);
        assert_eq!(streak_after(7, Some(u64::from(restart.stable_ms) - 1), &restart), 7);
        assert_eq!(streak_after(7, None, &restart), 7);
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_the_first_or_longer_than_a_fifth_above_the_last(
            backoff_ms in 100..3_600_000_u32, more in 0..3_600_000_u32, streak: u32, jitter in 0..=1000_u16
        ) {
            let max_backoff_ms = backoff_ms.saturating_add(more).min(3_600_000);
            let restart = Restart { backoff_ms, max_backoff_ms, ..Restart::default() };
            let wait = wait_ms(&restart, streak, jitter);
            prop_assert!(wait >= u64::from(backoff_ms));
            prop_assert!(wait <= u64::from(max_backoff_ms) * 12 / 10);
        }
    }
}
