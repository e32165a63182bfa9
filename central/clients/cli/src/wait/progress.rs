//! All sandboxes of one wait.

use roost_proto::id::SandboxId;
use roost_proto::model::Sandbox;

use super::WaitError;
use super::judge::{Goal, Verdict, failed_stage, judge, status, success};

/// A sandbox that is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Which.
    pub(crate) id: SandboxId,
    /// What people call it.
    pub(crate) label: String,
}

impl Subject {
    /// The subject that a sandbox is.
    pub(crate) fn of(sandbox: &Sandbox) -> Self {
        Self { id: sandbox.id.clone(), label: label(sandbox) }
    }
}

/// The name of a sandbox, or its id when it has none.
pub(crate) fn label(sandbox: &Sandbox) -> String {
    sandbox.name.as_ref().map_or_else(|| sandbox.id.to_string(), ToString::to_string)
}

/// How the wait for one sandbox ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What it was last; absent = it is gone.
    pub(crate) sandbox: Option<Sandbox>,
    /// The line for people, or what went wrong.
    pub(crate) outcome: Result<String, WaitError>,
}

#[derive(Debug)]
struct Item {
    subject: Subject,
    latest: Option<Sandbox>,
    is_over: bool,
}

/// What is still waited for.
#[derive(Debug)]
pub(crate) struct Progress {
    goal: Goal,
    items: Vec<Item>,
}

impl Progress {
    /// A wait that has seen nothing yet.
    pub(crate) fn new(goal: Goal, subjects: Vec<Subject>) -> Self {
        let items = subjects.into_iter().map(|subject| Item { subject, latest: None, is_over: false }).collect();
        Self { goal, items }
    }

    /// Whether nothing is waited for any more.
    pub(crate) fn is_over(&self) -> bool {
        self.items.iter().all(|item| item.is_over)
    }

    /// The sandboxes that are still waited for.
    pub(crate) fn open(&self) -> Vec<SandboxId> {
        self.items.iter().filter(|item| !item.is_over).map(|item| item.subject.id.clone()).collect()
    }

    /// Takes a sandbox as it is now. Older news than the last are ignored.
    pub(crate) fn see(&mut self, sandbox: Sandbox) -> Option<Ending> {
        let goal = self.goal;
        let item = self.item(&sandbox.id)?;
        if item.latest.as_ref().is_some_and(|latest| is_older(&sandbox, latest)) {
            return None;
        }
        let label = item.subject.label.clone();
        let outcome = match judge(goal, &sandbox) {
            Verdict::Waiting => {
                item.latest = Some(sandbox);
                return None;
            }
            Verdict::Met => Ok(success(&label, goal, Some(&sandbox))),
            Verdict::Gone => Err(WaitError::Gone { label, goal }),
            Verdict::Failed => Err(failure(label, &sandbox)),
            Verdict::Refused => {
                Err(WaitError::Refused { label, message: sandbox.observed.message.clone().unwrap_or_default() })
            }
        };
        item.is_over = true;
        Some(Ending { sandbox: Some(sandbox), outcome })
    }

    /// Takes the news that a sandbox is no more.
    pub(crate) fn gone(&mut self, id: &SandboxId) -> Option<Ending> {
        let goal = self.goal;
        let item = self.item(id)?;
        item.is_over = true;
        let label = item.subject.label.clone();
        let outcome = match goal {
            Goal::Gone => Ok(success(&label, goal, None)),
            Goal::Ready | Goal::Paused | Goal::Stopped | Goal::Updated => Err(WaitError::Gone { label, goal }),
        };
        Some(Ending { sandbox: None, outcome })
    }

    /// Ends the wait for everything that is still open.
    pub(crate) fn time_is_up(&mut self, after: &str) -> Vec<Ending> {
        let goal = self.goal;
        let end = |item: &mut Item| {
            item.is_over = true;
            let label = item.subject.label.clone();
            let latest = item.latest.take();
            let status = latest.as_ref().map_or_else(|| "not known".into(), |sandbox| status(&sandbox.observed));
            Ending { outcome: Err(WaitError::Timeout { label, goal, after: after.into(), status }), sandbox: latest }
        };
        self.items.iter_mut().filter(|item| !item.is_over).map(end).collect()
    }

    /// One line that says where things are.
    pub(crate) fn summary(&self) -> String {
        let open: Vec<_> = self.items.iter().filter(|item| !item.is_over).collect();
        match open.as_slice() {
            [item] => format!("{} {}", item.subject.label, item.status()),
            [item, ..] => {
                let (done, all) = (self.items.len() - open.len(), self.items.len());
                format!("{done} of {all} {}, {} {}", self.goal, item.subject.label, item.status())
            }
            [] => String::new(),
        }
    }

    fn item(&mut self, id: &SandboxId) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.subject.id == *id && !item.is_over)
    }
}

impl Item {
    fn status(&self) -> String {
        self.latest.as_ref().map_or_else(|| "…".into(), |sandbox| status(&sandbox.observed))
    }
}

fn is_older(new: &Sandbox, known: &Sandbox) -> bool {
    new.generation < known.generation
        || (new.generation == known.generation && new.observed.revision < known.observed.revision)
}

fn failure(label: String, sandbox: &Sandbox) -> WaitError {
    let observed = &sandbox.observed;
    WaitError::Failed {
        label,
        stage: failed_stage(observed),
        reason: observed.reason.clone().unwrap_or_else(|| "no reason was given".into()),
        message: observed.message.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::sandbox;
    use super::*;
    use roost_proto::model::Phase;

    fn progress(goal: Goal) -> (Progress, SandboxId) {
        let sandbox = sandbox(1, 0, Phase::Pending);
        (Progress::new(goal, vec![Subject::of(&sandbox)]), sandbox.id)
    }

    #[test]
    fn a_wait_ends_when_the_goal_is_met() {
        let (mut progress, _) = progress(Goal::Ready);
        assert!(progress.see(sandbox(1, 1, Phase::Starting)).is_none());
        assert_eq!(progress.summary(), "desktop-1 Starting");
        let ending = progress.see(sandbox(1, 1, Phase::Ready)).unwrap();
        assert_eq!(ending.outcome.unwrap(), "desktop-1 Ready");
        assert!(progress.is_over() && progress.open().is_empty());
    }

    #[test]
    fn older_news_do_not_turn_the_clock_back() {
        let (mut progress, _) = progress(Goal::Ready);
        let mut newer = sandbox(2, 1, Phase::Stopping);
        newer.observed.revision = 9;
        assert!(progress.see(newer).is_none());
        assert!(progress.see(sandbox(1, 1, Phase::Ready)).is_none(), "Ready of the start before");
        assert_eq!(progress.summary(), "desktop-1 Stopping");
    }

    #[test]
    fn a_failure_carries_reason_and_message() {
        let (mut progress, _) = progress(Goal::Ready);
        let mut failed = sandbox(1, 1, Phase::Failed);
        failed.observed.reason = Some("workload-exited".into());
        failed.observed.message = Some("The program ended with exit code 1.".into());
        let error = progress.see(failed).unwrap().outcome.unwrap_err();
        assert_eq!(error.to_string(), "desktop-1 failed: workload-exited: The program ended with exit code 1.");
    }

    #[test]
    fn gone_is_a_goal_or_an_error() {
        let (mut wanted, id) = progress(Goal::Gone);
        assert_eq!(wanted.gone(&id).unwrap().outcome.unwrap(), "desktop-1 Gone");
        let (mut unwanted, id) = progress(Goal::Ready);
        assert!(matches!(unwanted.gone(&id).unwrap().outcome, Err(WaitError::Gone { .. })));
    }

    #[test]
    fn when_time_is_up_the_last_status_is_told() {
        let (mut progress, _) = progress(Goal::Ready);
        progress.see(sandbox(1, 1, Phase::Starting));
        let ending = progress.time_is_up("30s").pop().unwrap();
        assert_eq!(ending.outcome.unwrap_err().to_string(), "desktop-1 is not Ready after 30s: it is Starting");
        assert!(progress.is_over());
    }

    #[test]
    fn a_stranger_is_ignored() {
        let (mut progress, _) = progress(Goal::Ready);
        let mut other = sandbox(1, 1, Phase::Ready);
        other.id = SandboxId::random();
        assert!(progress.see(other).is_none() && !progress.is_over());
    }
}
