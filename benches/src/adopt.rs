//! `adopt`: a killed daemon comes back and finds its sandboxes undisturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::Phase;
use roost_tests::{Result, TestNode, traces, within};
use tokio::time::{Instant, sleep};

use crate::cgroup::{self, Role};
use crate::node::{fill, with_node};
use crate::progress::say;
use crate::report::Report;

/// Running sandboxes.
const SANDBOXES: usize = 50;
/// How long the adoption may take before it counts as failed.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the list.
const PERIOD: Duration = Duration::from_millis(2);

/// Process ids by what they belong to.
type Processes = BTreeMap<String, Vec<u32>>;

/// Processes of every container, and the shims.
fn processes(node: &TestNode, ids: &[SandboxId]) -> Result<Processes> {
    let parent = node.cgroup_parent();
    let mut processes = Processes::new();
    for (id, role) in ids.iter().flat_map(|id| Role::ALL.map(|role| (id, role))) {
        processes.insert(format!("{id} {role:?}"), cgroup::pids(&parent, id.as_str(), role)?);
    }
    let shims = traces::processes_with(&node.containerd.socket().display().to_string());
    processes
        .insert("shims".into(), shims.into_iter().map(|(pid, _)| pid).collect::<BTreeSet<_>>().into_iter().collect());
    Ok(processes)
}

/// Waits until the list shows every sandbox as Ready.
async fn all_ready(node: &TestNode, ids: &[SandboxId]) -> Result<()> {
    within("all sandboxes are adopted", LIMIT, async {
        loop {
            let list = node.client.list().await?;
            if ids.iter().all(|id| list.get(id.as_str()) == Some(&Phase::Ready)) {
                return Ok(());
            }
            sleep(PERIOD).await;
        }
    })
    .await
}

/// The first thing that is not as it was.
fn difference(before: &Processes, after: &Processes) -> Option<String> {
    let changed = before.iter().find(|(name, pids)| after.get(*name) != Some(pids))?;
    Some(format!("{}: was {:?}, is {:?}", changed.0, changed.1, after.get(changed.0)))
}

/// Kills the daemon and times its return.
///
/// # Errors
/// When a sandbox is not adopted, or a process of one is not the same.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(SANDBOXES);
    with_node(report.bench(), async |node| {
        let ids = fill(report.bench(), node, n).await?;
        kill_and_adopt(report, node, &ids).await
    })
    .await
}

/// Kills the daemon of a filled node and times its return to all of them.
///
/// # Errors
/// As [`run`].
pub(crate) async fn kill_and_adopt(report: &Report, node: &mut TestNode, ids: &[SandboxId]) -> Result<()> {
    let before = processes(node, ids)?;
    say(report.bench(), "killing roostd and starting it again");
    node.kill_daemon();
    let begun = Instant::now();
    node.restart().await?;
    all_ready(node, ids).await?;
    let adopt_ms = begun.elapsed().as_secs_f64() * 1000.0;
    if let Some(difference) = difference(&before, &processes(node, ids)?) {
        return Err(format!("a sandbox was disturbed: {difference}").into());
    }
    let note = "kill -9, then from the start of roostd until its list shows all Ready; same processes as before; \
                    the socket is tried every 20 ms";
    report.figure("adopt_ms", adopt_ms, "ms", ids.len(), note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_replaced_is_named() {
        let before = Processes::from([("a".into(), vec![1]), ("b".into(), vec![2, 3])]);
        assert_eq!(difference(&before, &before), None);
        let mut after = before.clone();
        after.insert("b".into(), vec![2, 4]);
        assert_eq!(difference(&before, &after).unwrap(), "b: was [2, 3], is Some([2, 4])");
        after.remove("b");
        assert!(difference(&before, &after).unwrap().ends_with("is None"));
    }
}
