//! Whatever central has said may come late, twice or out of order: a node
//! holds what central wanted at one moment, and never goes back in time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use roost_proto::model::RunState;

use super::*;
use crate::sandbox::Origin;

/// What is wanted of each sandbox at one generation.
type Wishes = BTreeMap<SandboxId, Desired>;

/// A desired state on its way to the node.
#[derive(Debug, Clone)]
struct Message {
    generation: u64,
    full: bool,
    base: u64,
    sandboxes: Vec<Desired>,
}

/// A change that somebody makes at central.
#[derive(Debug, Clone)]
enum Turn {
    /// One more sandbox.
    New,
    /// Another wish for one that is there.
    Wish(Index, u8),
}

/// What happens between central and the node.
#[derive(Debug, Clone)]
enum Event {
    Turn(Turn),
    /// Some message that was ever sent arrives, maybe once more.
    Arrives(Index),
    /// The next one in order arrives.
    Next(bool),
    /// The daemon is killed and the next one begins.
    Kill,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Turn(Turn::New)),
        6 => (any::<Index>(), 0..4_u8).prop_map(|(index, wish)| Event::Turn(Turn::Wish(index, wish))),
        6 => any::<Index>().prop_map(Event::Arrives),
        8 => any::<bool>().prop_map(Event::Next),
        1 => Just(Event::Kill),
    ]
}

/// Central: every state that it ever wanted.
struct Central {
    states: Vec<Wishes>,
}

impl Central {
    fn newest(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn turn(&mut self, turn: &Turn) {
        let mut wishes = self.states.last().cloned().unwrap_or_default();
        let alive: Vec<SandboxId> =
            wishes.values().filter(|d| d.run_state != RunState::Deleted).map(|d| d.id.clone()).collect();
        match turn {
            Turn::New if alive.len() < 5 => {
                let local = crate::reconcile::ledger::record().desired;
                let desired = Desired { origin: Origin::Central, spec: spec(), ..Desired::clone(&local) };
                wishes.insert(desired.id.clone(), desired);
            }
            Turn::Wish(index, wish) if !alive.is_empty() => {
                let Some(desired) = wishes.get_mut(index.get(&alive)) else { return };
                desired.generation += 1;
                match wish {
                    0 => desired.run_state = RunState::Running,
                    1 => desired.run_state = RunState::Stopped,
                    2 => desired.restart_count += 1,
                    _ => desired.run_state = RunState::Deleted,
                }
            }
            _ => return,
        }
        self.states.push(wishes);
    }

    /// What changed since `base`, or everything that is to exist.
    fn message(&self, base: Option<u64>, generation: u64) -> Message {
        let now = &self.states[generation as usize];
        let sandboxes = match base {
            Some(base) => {
                let then = &self.states[base as usize];
                now.values().filter(|desired| then.get(&desired.id) != Some(*desired)).cloned().collect()
            }
            None => now.values().filter(|desired| desired.run_state != RunState::Deleted).cloned().collect(),
        };
        Message { generation, full: base.is_none(), base: base.unwrap_or(0), sandboxes }
    }
}

/// Whether the node wants what central wanted at the generation that it holds.
fn check(node: &Played, central: &Central) -> Result<(), TestCaseError> {
    let held = node.manager.central_generation();
    for desired in central.states[held as usize].values() {
        let here = node.manager.record(&desired.id).map(|record| record.desired);
        match desired.run_state {
            RunState::Deleted => prop_assert!(here.is_none_or(|here| here.run_state == RunState::Deleted)),
            wanted => {
                let Some(here) = here else { return Err(TestCaseError::fail(format!("{} is lost", desired.id))) };
                prop_assert_eq!((here.run_state, here.generation), (wanted, desired.generation));
                prop_assert_eq!(here.restart_count, desired.restart_count);
            }
        }
    }
    Ok(())
}

async fn deliver(node: &Played, message: Message) -> Result<(), TestCaseError> {
    let before = node.manager.central_generation();
    let Message { generation, full, base, sandboxes } = message;
    let newer = generation > before;
    match node.manager.apply_central(generation, full, base, sandboxes).await {
        Ok(held) => prop_assert_eq!(held, if newer { generation } else { before }),
        Err(ApplyError::Base { base, held }) => prop_assert!(newer && base != held && held == before),
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    }
    prop_assert!(node.manager.central_generation() >= before, "the node went back in time");
    Ok(())
}

async fn play(events: Vec<Event>) -> Result<(), TestCaseError> {
    let (mut node, mut central) = (Played::new(), Central { states: vec![Wishes::new()] });
    let mut sent: Vec<Message> = Vec::new();
    for event in events {
        match event {
            Event::Turn(turn) => {
                central.turn(&turn);
                let newest = central.newest();
                // As a session that lives sends it, and as a new one does.
                sent.extend(newest.checked_sub(1).map(|base| central.message(Some(base), newest)));
                sent.extend(newest.checked_sub(3).map(|base| central.message(Some(base), newest)));
                sent.push(central.message(None, newest));
            }
            Event::Arrives(index) if !sent.is_empty() => deliver(&node, index.get(&sent).clone()).await?,
            Event::Next(full) => {
                let held = node.manager.central_generation();
                if held < central.newest() {
                    deliver(&node, central.message((!full).then_some(held), held + 1)).await?;
                }
            }
            Event::Kill => node = node.next_daemon(),
            Event::Arrives(_) => {}
        }
        check(&node, &central)?;
    }
    // A session that is whole again brings the node in step.
    deliver(&node, central.message(None, central.newest())).await?;
    prop_assert_eq!(node.manager.central_generation(), central.newest());
    check(&node, &central)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_node_never_goes_back_in_time_whatever_arrives(events in prop::collection::vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(events))?;
    }
}
