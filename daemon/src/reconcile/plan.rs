//! What exists against what the ledger holds. Pure.

use std::collections::{BTreeSet, HashMap};

use roost_proto::id::SandboxId;

use crate::containerd::{ContainerId, Role, TaskRecord, TaskStatus};
use crate::reconcile::ledger::{Progress, Record};
use crate::sandbox::driver::Found;

/// Everything of this daemon that exists on the host.
#[derive(Debug, Clone, Default)]
pub struct Existing {
    /// Containers in containerd.
    pub containers: Vec<ContainerId>,
    /// Their tasks.
    pub tasks: Vec<TaskRecord>,
    /// Names of directories and cgroups of sandboxes.
    pub names: Vec<String>,
}

/// What to do with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nobody owns these: remove all that is theirs.
    pub reap: BTreeSet<SandboxId>,
    /// The ledger's sandboxes, with what exists of each.
    pub adopt: Vec<(Record, Progress, Found)>,
}

/// Compares the ledger's sandboxes with what exists.
#[must_use]
pub fn plan(records: Vec<(Record, Progress)>, existing: &Existing) -> Plan {
    let owned: BTreeSet<&SandboxId> = records.iter().map(|(record, _)| &record.desired.id).collect();
    let named = existing.names.iter().filter_map(|name| name.parse::<SandboxId>().ok());
    let contained = existing.containers.iter().map(|container| container.sandbox.clone());
    let reap = named.chain(contained).filter(|id| !owned.contains(id)).collect();
    let status: HashMap<&ContainerId, TaskStatus> = existing.tasks.iter().map(|t| (&t.id, t.status)).collect();
    let adopt = records
        .into_iter()
        .map(|(record, progress)| {
            let of = |role| status.get(&ContainerId::new(&record.desired.id, role)).copied();
            let found = Found { display: of(Role::Display), workload: of(Role::Workload) };
            (record, progress, found)
        })
        .collect();
    Plan { reap, adopt }
}

/// Sandboxes whose containers do not both run, although a task list was just
/// taken: their drivers look for themselves.
#[must_use]
pub fn not_running(ids: Vec<SandboxId>, tasks: &[TaskRecord]) -> Vec<SandboxId> {
    let running: BTreeSet<(&SandboxId, &str)> = tasks
        .iter()
        .filter(|task| task.status == TaskStatus::Running)
        .map(|task| (&task.id.sandbox, task.id.role.as_str()))
        .collect();
    let runs = |id: &SandboxId| Role::ALL.iter().all(|role| running.contains(&(id, role.as_str())));
    ids.into_iter().filter(|id| !runs(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::ledger::decode;
    use proptest::prelude::*;

    fn record() -> Record {
        let golden = include_str!("ledger/golden/record-v1.json");
        let record: Record = decode(golden.as_bytes()).unwrap();
        let desired =
            crate::sandbox::Desired { id: SandboxId::random(), ..crate::sandbox::Desired::clone(&record.desired) };
        Record { desired: desired.into(), ..record }
    }

    fn task(id: &SandboxId, role: Role, status: TaskStatus) -> TaskRecord {
        TaskRecord { id: ContainerId::new(id, role), pid: 1, status }
    }

    #[test]
    fn what_the_ledger_does_not_hold_is_reaped_and_nothing_else() {
        let (owned, stray, dir_only) = (record(), SandboxId::random(), SandboxId::random());
        let existing = Existing {
            containers: vec![
                ContainerId::new(&owned.desired.id, Role::Display),
                ContainerId::new(&stray, Role::Workload),
            ],
            tasks: vec![],
            names: vec!["shims".into(), dir_only.to_string(), owned.desired.id.to_string()],
        };
        let plan = plan(vec![(owned, Progress::default())], &existing);
        assert_eq!(plan.reap, BTreeSet::from([stray, dir_only]));
        assert_eq!(plan.adopt.len(), 1);
    }

    #[test]
    fn each_sandbox_gets_the_status_of_its_own_tasks() {
        let (a, b) = (record(), record());
        let existing = Existing {
            tasks: vec![
                task(&a.desired.id, Role::Display, TaskStatus::Running),
                task(&b.desired.id, Role::Workload, TaskStatus::Stopped(3)),
            ],
            ..Existing::default()
        };
        let plan = plan(vec![(a, Progress::default()), (b, Progress::default())], &existing);
        assert_eq!(plan.adopt[0].2, Found { display: Some(TaskStatus::Running), workload: None });
        assert_eq!(plan.adopt[1].2, Found { display: None, workload: Some(TaskStatus::Stopped(3)) });
    }

    /// What may be found of one sandbox.
    #[derive(Debug, Clone, Copy)]
    struct Seen {
        owned: bool,
        named: bool,
        contained: [bool; 2],
        status: [Option<u8>; 2],
    }

    fn seen() -> impl Strategy<Value = Seen> {
        let status = || prop::option::of(0..4_u8);
        (any::<bool>(), any::<bool>(), any::<[bool; 2]>(), [status(), status()])
            .prop_map(|(owned, named, contained, status)| Seen { owned, named, contained, status })
    }

    fn status(kind: u8) -> TaskStatus {
        [TaskStatus::Created, TaskStatus::Running, TaskStatus::Stopped(3), TaskStatus::Unknown][usize::from(kind)]
    }

    proptest! {
        #[test]
        fn any_order_of_what_is_found_gives_one_plan_and_its_second_round_nothing(
            all in prop::collection::vec(seen(), 0..12), turn in any::<usize>(),
        ) {
            let mut records = Vec::new();
            let mut existing = Existing::default();
            for found in &all {
                let record = record();
                let id = record.desired.id.clone();
                existing.names.extend(found.named.then(|| id.to_string()));
                for (index, role) in Role::ALL.into_iter().enumerate() {
                    existing.containers.extend(found.contained[index].then(|| ContainerId::new(&id, role)));
                    existing.tasks.extend(found.status[index].map(|kind| task(&id, role, status(kind))));
                }
                records.extend(found.owned.then_some((record, Progress::default())));
            }
            let first = plan(records.clone(), &existing);
            // Each sandbox is either kept or removed, and nothing is forgotten.
            prop_assert_eq!(first.adopt.len(), records.len());
            prop_assert!(first.adopt.iter().all(|(record, _, _)| !first.reap.contains(&record.desired.id)));
            let strays = all.iter().filter(|f| !f.owned && (f.named || f.contained.contains(&true))).count();
            prop_assert_eq!(first.reap.len(), strays);
            // In another order and seen twice it is the same.
            let mut other = existing.clone();
            other.containers.extend(existing.containers.clone());
            other.names.extend(existing.names.clone());
            other.tasks.reverse();
            let len = other.names.len().max(1);
            other.names.rotate_left(turn % len);
            prop_assert_eq!(&plan(records.clone(), &other), &first);
            // Once it was carried out there is nothing to remove.
            let stays = |id: &SandboxId| !first.reap.contains(id);
            other.containers.retain(|container| stays(&container.sandbox));
            other.tasks.retain(|task| stays(&task.id.sandbox));
            other.names.retain(|name| name.parse().is_ok_and(|id| stays(&id)));
            let second = plan(records, &other);
            prop_assert!(second.reap.is_empty());
            prop_assert_eq!(second.adopt, first.adopt);
        }
    }

    #[test]
    fn a_sandbox_with_half_its_containers_does_not_run() {
        let (whole, half) = (SandboxId::random(), SandboxId::random());
        let tasks = [
            task(&whole, Role::Display, TaskStatus::Running),
            task(&whole, Role::Workload, TaskStatus::Running),
            task(&half, Role::Display, TaskStatus::Running),
            task(&half, Role::Workload, TaskStatus::Unknown),
        ];
        assert_eq!(not_running(vec![whole, half.clone()], &tasks), [half]);
    }
}
