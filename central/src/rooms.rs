//! The room of every node, as the last placement of an image read it, kept in
//! memory: so that a placement among ten thousand nodes reads no row of theirs.
//!
//! Only a hint comes from here. The transaction that places commits the room
//! on the node or refuses it, and then the placement reads all rows and brings
//! the memory up to date. What may be old meanwhile: room that was given back,
//! and what other processes placed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use roost_proto::id::{NodeId, TenantId};
use roost_proto::model::{ImageRef, NodePhase, NodeStatus};

use crate::changes::lock;
use crate::place::{Request, Room, Strategy, choose};

/// How long a memory is trusted: room that was given back is seen after it.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Images whose placements are remembered: ten thousand nodes take about 2 MB
/// each.
const IMAGES_MAX: usize = 32;

#[derive(Debug)]
struct Kept {
    rooms: Vec<Room>,
    read_at: Instant,
}

/// What is remembered of all nodes.
#[derive(Debug, Default)]
pub struct Rooms(Mutex<HashMap<(TenantId, ImageRef), Kept>>);

impl Rooms {
    /// The node that a request is best tried on, and takes the room there in
    /// memory; none when the rows must be read.
    pub fn choose(
        &self,
        tenant: &TenantId,
        request: &Request,
        phase: impl Fn(&NodeId) -> NodePhase,
        strategy: Strategy,
    ) -> Option<NodeId> {
        let mut kept = lock(&self.0);
        let kept = kept.get_mut(&(tenant.clone(), request.image.clone()))?;
        if kept.read_at.elapsed() > KEPT_FOR {
            return None;
        }
        let id = choose(&kept.rooms, phase, request, strategy).ok()?;
        let room = kept.rooms.iter_mut().find(|room| room.node_id == id)?;
        room.cpu_requested_millis += u64::from(request.cpu_millis);
        room.memory_requested_bytes += request.memory_bytes;
        room.sandboxes += 1;
        Some(id)
    }

    /// Remembers what a placement has just read.
    pub fn keep(&self, tenant: &TenantId, image: &ImageRef, rooms: &[Room]) {
        let mut kept = lock(&self.0);
        let key = (tenant.clone(), image.clone());
        if kept.len() >= IMAGES_MAX && !kept.contains_key(&key) {
            kept.clear();
        }
        kept.insert(key, Kept { rooms: rooms.to_vec(), read_at: Instant::now() });
    }

    /// Takes in what a node said of itself. One that is new makes the rows be
    /// read again.
    pub fn learn(&self, node: &NodeId, status: &NodeStatus) {
        lock(&self.0).retain(|(_, image), kept| {
            let room = kept.rooms.iter_mut().find(|room| room.node_id == *node);
            room.map(|room| room.learn(status, image)).is_some()
        });
    }

    /// Forgets everything: a node was removed, or its images changed.
    pub fn forget(&self) {
        lock(&self.0).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::NodeCapacity;

    fn capacity() -> NodeCapacity {
        NodeCapacity { cpu_allocatable_millis: 1000, memory_allocatable_bytes: 1 << 30, sandboxes_max: 2 }
    }

    fn room() -> Room {
        Room {
            node_id: NodeId::random(),
            name: "n".into(),
            capacity: capacity(),
            cpu_requested_millis: 0,
            memory_requested_bytes: 0,
            sandboxes: 0,
            failing: String::new(),
            has_image: true,
        }
    }

    fn request() -> Request {
        Request { cpu_millis: 10, memory_bytes: 1, image: "roost/desktop".parse().unwrap(), may_pull: false }
    }

    fn tenant() -> TenantId {
        "default".parse().unwrap()
    }

    fn hint(rooms: &Rooms) -> Option<NodeId> {
        rooms.choose(&tenant(), &request(), |_| NodePhase::Online, Strategy::Spread)
    }

    #[test]
    fn what_was_chosen_counts_at_once_and_a_full_memory_gives_no_hint() {
        let (rooms, nodes) = (Rooms::default(), [room(), room()]);
        assert_eq!(hint(&rooms), None, "nothing was read yet");
        rooms.keep(&tenant(), &request().image, &nodes);
        let mut chosen: Vec<NodeId> = (0..4).filter_map(|_| hint(&rooms)).collect();
        chosen.sort();
        chosen.dedup();
        assert_eq!(chosen.len(), 2, "spread over both");
        assert_eq!(hint(&rooms), None, "both are full");
    }

    #[test]
    fn a_node_that_falls_ill_or_loses_the_image_is_hinted_at_no_more() {
        let (rooms, node) = (Rooms::default(), room());
        rooms.keep(&tenant(), &request().image, std::slice::from_ref(&node));
        assert!(hint(&rooms).is_some());
        rooms.learn(&node.node_id, &NodeStatus { capacity: capacity(), ..NodeStatus::default() });
        assert_eq!(hint(&rooms), None, "it holds no image");
    }

    #[test]
    fn a_new_node_makes_the_rows_be_read_again() {
        let rooms = Rooms::default();
        rooms.keep(&tenant(), &request().image, &[room()]);
        rooms.learn(&NodeId::random(), &NodeStatus::default());
        assert_eq!(hint(&rooms), None);
    }
}
