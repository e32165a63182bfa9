//! Placement: which node takes a new sandbox. Pure.
//!
//! A node fits if and only if it is Online, all its conditions are true, it
//! holds the image or may pull it, and CPU, memory and sandbox count still have room for the
//! *requests* (never for the use of the moment, which any desktop can change in
//! a second). Everything placed counts until it is Gone, stopped or not.
//!
//! Among those that fit, the one with the smallest (`spread`) or largest
//! (`best-fit`) dominant share after the placement wins, where the dominant
//! share is the largest of the three filled fractions. A node that holds the
//! image comes before any that would have to pull it. Ties go to the smallest
//! node id, so that the same input always gives the same answer.

use roost_proto::id::NodeId;
use roost_proto::model::{ImageRef, NodeCapacity, NodePhase, NodeStatus};
use serde::{Deserialize, Serialize};

/// Which of the fitting nodes is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The emptiest: the loss of one node hurts least.
    #[default]
    Spread,
    /// The fullest: whole nodes stay free.
    BestFit,
}

/// What a new sandbox asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// CPU in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Image that the node must hold.
    pub image: ImageRef,
    /// Whether a node that does not hold it may pull it.
    pub may_pull: bool,
}

/// What the store knows of a node's room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Which node.
    pub node_id: NodeId,
    /// Its name, for reasons.
    pub name: String,
    /// What sandboxes may request there.
    pub capacity: NodeCapacity,
    /// CPU requested by what is placed there, in thousandths of a core.
    pub cpu_requested_millis: u64,
    /// Memory requested by what is placed there, in bytes.
    pub memory_requested_bytes: u64,
    /// Sandboxes placed there.
    pub sandboxes: u64,
    /// Conditions that are not true, as one text; empty when all are.
    pub failing: String,
    /// Whether it holds the requested image.
    pub has_image: bool,
}

impl Room {
    /// Takes in what the node said of itself.
    pub fn learn(&mut self, status: &NodeStatus, image: &ImageRef) {
        self.capacity = status.capacity;
        self.failing = failing(status);
        self.has_image = status.images.iter().any(|held| held.reference == *image);
    }
}

/// The conditions of a node that stop placement, as one text.
#[must_use]
pub fn failing(status: &NodeStatus) -> String {
    let failing =
        status.conditions.iter().filter(|c| c.stops_placement()).map(|c| format!("{}: {}", c.kind, c.message));
    failing.collect::<Vec<_>>().join("; ")
}

/// Why one node does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the node.
    pub node: String,
    /// One sentence.
    pub reason: String,
}

/// No node takes the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// There is no node at all.
    #[error("no node is enrolled")]
    NoNodes,
    /// No node holds the image.
    #[error("no node holds the image {0}")]
    ImageNowhere(ImageRef),
    /// Some node holds the image, but none of those has room or health.
    #[error("no node fits: {}", list(.0))]
    NothingFits(Vec<Refusal>),
}

/// Nodes that an answer names; of ten thousand that are full nobody reads more.
const NAMED_NODES: usize = 8;

fn list(refusals: &[Refusal]) -> String {
    let named = refusals.iter().take(NAMED_NODES).map(|r| format!("{}: {}", r.node, r.reason));
    let named = named.collect::<Vec<_>>().join("; ");
    match refusals.len().checked_sub(NAMED_NODES) {
        None | Some(0) => named,
        Some(others) => format!("{named}; and {others} more nodes"),
    }
}

/// Chooses the node for a request; `phase` says how well central hears a node.
///
/// # Errors
/// See [`PlaceError`]: a reason for every node.
pub fn choose(
    rooms: &[Room],
    phase: impl Fn(&NodeId) -> NodePhase,
    request: &Request,
    strategy: Strategy,
) -> Result<NodeId, PlaceError> {
    if rooms.is_empty() {
        return Err(PlaceError::NoNodes);
    }
    let mut best: Option<(bool, u128, &NodeId)> = None;
    for room in rooms {
        if refuse(room, phase(&room.node_id), request).is_some() {
            continue;
        }
        let share = dominant_share(room, request);
        let rank = match strategy {
            Strategy::Spread => share,
            Strategy::BestFit => u128::MAX - share,
        };
        let candidate = (!room.has_image, rank, &room.node_id);
        if best.is_none_or(|held| candidate < held) {
            best = Some(candidate);
        }
    }
    match best {
        Some((_, _, node_id)) => Ok(node_id.clone()),
        None if request.may_pull || rooms.iter().any(|room| room.has_image) => {
            let refusal = |room: &Room| {
                let reason = refuse(room, phase(&room.node_id), request)?.to_string();
                Some(Refusal { node: room.name.clone(), reason })
            };
            Err(PlaceError::NothingFits(rooms.iter().filter_map(refusal).collect()))
        }
        None => Err(PlaceError::ImageNowhere(request.image.clone())),
    }
}

/// Why a node does not fit; put into words only for an answer, as most nodes of
/// a full fleet refuse.
enum Why<'a> {
    NeverHeard,
    Silent(NodePhase),
    Sick(&'a str),
    NoImage(&'a ImageRef),
    Cpu { free_millis: u64, asked_millis: u32 },
    Memory { free_bytes: u64, asked_bytes: u64 },
    Crowded { sandboxes: u64, most: u64 },
}

impl std::fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NeverHeard => f.write_str("has never connected"),
            Self::Silent(phase) => write!(f, "is {phase}: central does not hear it"),
            Self::Sick(failing) => write!(f, "is not healthy: {failing}"),
            Self::NoImage(image) => write!(f, "does not hold the image {image}"),
            Self::Cpu { free_millis, asked_millis } => {
                write!(f, "has {free_millis} thousandths of a core free, {asked_millis} are requested")
            }
            Self::Memory { free_bytes, asked_bytes } => {
                write!(f, "has {free_bytes} bytes of memory free, {asked_bytes} are requested")
            }
            Self::Crowded { sandboxes, most } => write!(f, "holds {sandboxes} sandboxes, its maximum is {most}"),
        }
    }
}

/// The first reason why a node does not fit, in the order in which an operator
/// would mend them.
fn refuse<'a>(room: &'a Room, phase: NodePhase, request: &'a Request) -> Option<Why<'a>> {
    match phase {
        NodePhase::Online => {}
        NodePhase::Enrolled => return Some(Why::NeverHeard),
        NodePhase::Stale | NodePhase::Offline => return Some(Why::Silent(phase)),
    }
    if !room.failing.is_empty() {
        return Some(Why::Sick(&room.failing));
    }
    if !room.has_image && !request.may_pull {
        return Some(Why::NoImage(&request.image));
    }
    let free_millis = u64::from(room.capacity.cpu_allocatable_millis).saturating_sub(room.cpu_requested_millis);
    if u64::from(request.cpu_millis) > free_millis {
        return Some(Why::Cpu { free_millis, asked_millis: request.cpu_millis });
    }
    let free_bytes = room.capacity.memory_allocatable_bytes.saturating_sub(room.memory_requested_bytes);
    if request.memory_bytes > free_bytes {
        return Some(Why::Memory { free_bytes, asked_bytes: request.memory_bytes });
    }
    let (sandboxes, most) = (room.sandboxes, u64::from(room.capacity.sandboxes_max));
    (sandboxes >= most).then_some(Why::Crowded { sandboxes, most })
}

/// Largest filled fraction after the placement, in parts per 2^32.
fn dominant_share(room: &Room, request: &Request) -> u128 {
    let share = |used: u64, asked: u64, most: u64| {
        let filled = u128::from(used) + u128::from(asked);
        if most == 0 { 0 } else { (filled << 32) / u128::from(most) }
    };
    let cpu = share(room.cpu_requested_millis, request.cpu_millis.into(), room.capacity.cpu_allocatable_millis.into());
    let memory = share(room.memory_requested_bytes, request.memory_bytes, room.capacity.memory_allocatable_bytes);
    let count = share(room.sandboxes, 1, room.capacity.sandboxes_max.into());
    cpu.max(memory).max(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    // By name: proptest's prelude has a Strategy of its own.
    use super::Strategy;
    use proptest::prelude::*;

    fn room(name: &str, cpu: u32, used: u64) -> Room {
        Room {
            node_id: NodeId::random(),
            name: name.into(),
            capacity: NodeCapacity {
                cpu_allocatable_millis: cpu,
                memory_allocatable_bytes: 8 << 30,
                sandboxes_max: 100,
            },
            cpu_requested_millis: used,
            memory_requested_bytes: 0,
            sandboxes: 0,
            failing: String::new(),
            has_image: true,
        }
    }

    fn request() -> Request {
        Request { cpu_millis: 500, memory_bytes: 1 << 30, image: "roost/desktop".parse().unwrap(), may_pull: false }
    }

    fn online(_: &NodeId) -> NodePhase {
        NodePhase::Online
    }

    fn reason(room: Room, phase: NodePhase) -> String {
        match choose(&[room], |_| phase, &request(), Strategy::Spread) {
            Err(PlaceError::NothingFits(refusals)) => refusals[0].reason.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spread_takes_the_emptiest_and_best_fit_the_fullest() {
        let rooms = [room("full", 4000, 3000), room("empty", 4000, 0)];
        let spread = choose(&rooms, online, &request(), Strategy::Spread);
        let best_fit = choose(&rooms, online, &request(), Strategy::BestFit);
        assert_eq!(spread, Ok(rooms[1].node_id.clone()));
        assert_eq!(best_fit, Ok(rooms[0].node_id.clone()));
    }

    #[test]
    fn every_reason_is_said() {
        assert!(reason(room("n", 4000, 0), NodePhase::Stale).contains("Stale"));
        assert!(reason(room("n", 4000, 0), NodePhase::Enrolled).contains("never connected"));
        assert!(reason(room("n", 4000, 3600), NodePhase::Online).contains("400 thousandths"));
        let sick = Room { failing: "ContainerdReady: no answer".into(), ..room("n", 4000, 0) };
        assert!(reason(sick, NodePhase::Online).contains("ContainerdReady"));
        let crowded = Room { sandboxes: 100, ..room("n", 4000, 0) };
        assert!(reason(crowded, NodePhase::Online).contains("maximum is 100"));
        let small = Room { memory_requested_bytes: 8 << 30, ..room("n", 4000, 0) };
        assert!(reason(small, NodePhase::Online).contains("0 bytes of memory"));
    }

    #[test]
    fn an_answer_names_a_few_nodes_and_counts_the_others() {
        let full: Vec<Room> = (0..20).map(|_| room("n", 4000, 4000)).collect();
        let error = choose(&full, online, &request(), Strategy::Spread).unwrap_err().to_string();
        assert_eq!(error.matches("n: has 0 thousandths").count(), NAMED_NODES);
        assert!(error.ends_with("; and 12 more nodes"), "{error}");
    }

    #[test]
    fn an_image_that_is_nowhere_is_told_from_a_full_fleet() {
        let without = Room { has_image: false, ..room("n", 4000, 0) };
        let error = choose(&[without], online, &request(), Strategy::Spread);
        assert_eq!(error, Err(PlaceError::ImageNowhere(request().image)));
        assert_eq!(choose(&[], online, &request(), Strategy::Spread), Err(PlaceError::NoNodes));
    }

    #[test]
    fn a_node_that_holds_the_image_comes_before_an_emptier_one_that_must_pull_it() {
        let without = Room { has_image: false, ..room("empty", 4000, 0) };
        let with = room("full", 4000, 3000);
        let pulls = Request { may_pull: true, ..request() };
        let chosen = choose(&[without.clone(), with.clone()], online, &pulls, Strategy::Spread);
        assert_eq!(chosen, Ok(with.node_id));
        assert_eq!(choose(std::slice::from_ref(&without), online, &pulls, Strategy::Spread), Ok(without.node_id));
    }

    prop_compose! {
        fn any_room()(cpu in 0u32..4000, used in 0u64..5000, memory in 0u64..4 << 30, count in 0u64..12,
                      max in 0u32..10, sick in any::<bool>(), has_image in any::<bool>()) -> Room {
            Room {
                capacity: NodeCapacity {
                    cpu_allocatable_millis: cpu, memory_allocatable_bytes: 2 << 30, sandboxes_max: max,
                },
                memory_requested_bytes: memory,
                sandboxes: count,
                failing: if sick { "X: y".into() } else { String::new() },
                has_image,
                ..room("n", cpu, used)
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits_and_what_is_refused_does_not(rooms in prop::collection::vec(any_room(), 0..8)) {
            let request = request();
            let fits = |r: &Room| {
                r.has_image && r.failing.is_empty() && r.sandboxes < u64::from(r.capacity.sandboxes_max)
                    && r.cpu_requested_millis + 500 <= u64::from(r.capacity.cpu_allocatable_millis)
                    && r.memory_requested_bytes + (1 << 30) <= r.capacity.memory_allocatable_bytes
            };
            match choose(&rooms, online, &request, Strategy::Spread) {
                Ok(id) => prop_assert!(rooms.iter().any(|r| r.node_id == id && fits(r))),
                Err(_) => prop_assert!(!rooms.iter().any(fits)),
            }
        }

        #[test]
        fn the_order_of_the_nodes_does_not_matter(rooms in prop::collection::vec(any_room(), 1..8)) {
            let mut reversed = rooms.clone();
            reversed.reverse();
            let chosen = choose(&rooms, online, &request(), Strategy::BestFit).ok();
            prop_assert_eq!(chosen, choose(&reversed, online, &request(), Strategy::BestFit).ok());
        }
    }
}
