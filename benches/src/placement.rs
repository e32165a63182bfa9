//! `placement`: how long the choice among ten thousand nodes takes, over the
//! data of central's own creation: remembered rooms and heard heartbeats.

use std::time::Duration;

use roost_central::live::{Live, Silence};
use roost_central::place::{Request, Room, Strategy, choose};
use roost_central::rooms::Rooms;
use roost_proto::id::{NodeId, TenantId};
use roost_proto::model::{ImageRef, NodeCapacity};
use roost_tests::Result;
use tokio::time::Instant;

use crate::progress::{Progress, say};
use crate::report::{Report, Samples};

/// Nodes to choose among.
const NODES: usize = 10_000;
/// Placements that count.
const PLACEMENTS: usize = 2_000;
/// Any moment: every node was heard then.
const NOW_UNIX_MS: u64 = 1_800_000_000_000;

/// Places sandboxes until a tenth of the room is taken, then on full nodes.
///
/// # Errors
/// When a placement finds no node where there is one.
pub(crate) async fn run(report: &Report, n: Option<usize>) -> Result<()> {
    let n = n.unwrap_or(NODES);
    say(report.bench(), "making nodes");
    let (tenant, request) = ("default".parse::<TenantId>()?, request()?);
    let live = Live::new(silence(), Vec::new());
    let nodes = (0..n).map(room).collect::<Result<Vec<Room>>>()?;
    nodes.iter().for_each(|room| live.heard(&room.node_id, None, NOW_UNIX_MS));
    let phase = |node: &NodeId| live.phase(node, NOW_UNIX_MS);

    let rooms = Rooms::default();
    rooms.keep(&tenant, &request.image, &nodes);
    let (mut samples, progress) = (Samples::default(), Progress::new(report.bench(), "placing", PLACEMENTS)?);
    for _ in 0..PLACEMENTS {
        let begun = Instant::now();
        rooms.choose(&tenant, &request, phase, Strategy::Spread).ok_or("no node fits")?;
        samples.push(begun.elapsed());
        progress.step();
    }
    drop(progress);
    let note = format!("{n} nodes, each looked at; remembered rooms, phases from heartbeats; no database");
    report.median_ms("p50_ms", &samples, &note)?;
    report.figure("p99_ms", samples.percentile_ms(99)?, "ms", samples.len(), &note)?;

    let mut refusals = Samples::default();
    let full = Request { cpu_millis: u32::MAX, ..request };
    for _ in 0..PLACEMENTS / 10 {
        let begun = Instant::now();
        let refusal = choose(&nodes, phase, &full, Strategy::Spread).err().ok_or("a full node was chosen")?;
        std::hint::black_box(refusal.to_string());
        refusals.push(begun.elapsed());
    }
    let note = format!("{n} nodes without room, and the answer in words");
    report.figure("refusal_p99_ms", refusals.percentile_ms(99)?, "ms", refusals.len(), &note)
}

fn silence() -> Silence {
    Silence { stale_after: Duration::from_secs(45), offline_after: Duration::from_secs(120) }
}

fn request() -> Result<Request> {
    let image: ImageRef = "roost/desktop".parse()?;
    Ok(Request { cpu_millis: 500, memory_bytes: 512 << 20, image, may_pull: false })
}

/// A node of 96 cores and 512 GiB that holds up to 50 sandboxes already; every
/// tenth lacks the image.
fn room(number: usize) -> Result<Room> {
    let sandboxes = u64::try_from(number % 50)?;
    Ok(Room {
        node_id: NodeId::random(),
        name: format!("node-{number:05}"),
        capacity: NodeCapacity {
            cpu_allocatable_millis: 96_000,
            memory_allocatable_bytes: 512 << 30,
            sandboxes_max: 200,
        },
        cpu_requested_millis: sandboxes * 500,
        memory_requested_bytes: sandboxes * (512 << 20),
        sandboxes,
        failing: String::new(),
        has_image: !number.is_multiple_of(10),
    })
}
