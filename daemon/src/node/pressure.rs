//! What the node runs short of: disk, inodes, memory.
//!
//! Each look compares what is free with thresholds ([`judge`], pure) and
//! publishes conditions; while one is true the node takes no new sandbox.
//! Where sandboxes eat the reserve of the disk itself, the one that writes
//! most is stopped ([`reserve`]).

pub mod judge;
mod reserve;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roost_proto::model::NodeCondition;
use tokio::sync::watch;

use crate::config::{PressureConfig, ReservedConfig};
use crate::facts;
use crate::host::disk::{self, DiskSpace};
use crate::host::{Error, blocking};
use crate::sandbox::failure::chain;
use crate::sandbox::{Manager, Node};
use judge::{Band, Sight, judge};
use reserve::Reserve;

/// Between two looks: two calls of statvfs and one file of procfs.
const PERIOD: Duration = Duration::from_secs(2);
/// Between two looks while the disk is short: what one sandbox writes in it
/// must be less than the reserve.
const SHORT_PERIOD: Duration = Duration::from_millis(250);

/// Looks at the node for ever.
#[derive(Debug)]
pub struct PressureGuard {
    node: Arc<Node>,
    snapshotter: String,
    config: PressureConfig,
    /// Directories of containerd on file systems that count; found once it
    /// answers.
    image_roots: Option<Vec<PathBuf>>,
    conditions: watch::Sender<Vec<NodeCondition>>,
    reserve: Reserve,
    reserve_bytes: u64,
}

impl PressureGuard {
    /// A guard that publishes on `conditions`.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        manager: Manager,
        snapshotter: &str,
        (config, reserved): (PressureConfig, &ReservedConfig),
        conditions: watch::Sender<Vec<NodeCondition>>,
    ) -> Self {
        let reserve = Reserve::new(node.clone(), manager);
        let snapshotter = snapshotter.to_owned();
        Self { node, snapshotter, config, image_roots: None, conditions, reserve, reserve_bytes: reserved.disk_bytes }
    }

    /// Looks for ever.
    pub async fn run(mut self) {
        loop {
            let is_disk_short = self.look().await;
            tokio::time::sleep(if is_disk_short { SHORT_PERIOD } else { PERIOD }).await;
        }
    }

    /// Looks once; whether the disk is short.
    pub async fn look(&mut self) -> bool {
        if self.image_roots.is_none() {
            self.image_roots = self.find_image_roots().await;
        }
        let mut places = vec![self.node.layout.root().to_owned()];
        places.extend(self.image_roots.iter().flatten().cloned());
        let looked = blocking(move || {
            let spaces = places.into_iter().map(|place| (disk::space(&place), place)).collect::<Vec<_>>();
            Ok((spaces, facts::memory_available_bytes()))
        });
        let (spaces, memory) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::debug!(%error, "the node was not looked at");
                return false;
            }
        };
        let own_free_bytes = spaces.first().and_then(|(space, _)| Some(space.as_ref().ok()?.free_bytes));
        let is_disk_short = self.publish(&self.sights(&spaces, memory.ok()));
        self.reserve.look(is_disk_short, own_free_bytes, self.reserve_bytes).await;
        is_disk_short
    }

    async fn find_image_roots(&self) -> Option<Vec<PathBuf>> {
        match self.node.client.image_roots(&self.snapshotter).await {
            Ok(roots) => {
                let (seen, hidden): (Vec<_>, Vec<_>) = roots.into_iter().partition(|root| root.exists());
                if !hidden.is_empty() {
                    tracing::warn!(
                        ?hidden,
                        "directories of containerd are not seen from here: their disk is not watched"
                    );
                }
                Some(seen)
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "containerd does not say where it keeps images");
                None
            }
        }
    }

    fn sights(&self, spaces: &[(Result<DiskSpace, Error>, PathBuf)], memory: Option<u64>) -> [Sight; 3] {
        for (space, _) in spaces {
            if let Err(error) = space {
                tracing::warn!(error = %chain(error), "a disk cannot be looked at");
            }
        }
        let scarcest = |what: &str, free: fn(&DiskSpace) -> Option<u64>| {
            let known = spaces.iter().filter_map(|(space, place)| Some((place, free(space.as_ref().ok()?)?)));
            known.min_by_key(|(_, free)| *free).map(|(place, free)| (describe(what, place), free))
        };
        let percent = self.config.hysteresis_percent;
        let disk = self.reserve_bytes.saturating_add(self.config.disk_bytes);
        [
            Sight {
                kind: "DiskPressure",
                band: Band::new(disk, percent),
                free: scarcest("bytes", |space| Some(space.free_bytes)),
                advice: "remove images or sandboxes, or other files there",
            },
            Sight {
                kind: "InodePressure",
                band: Band::new(self.config.inodes, percent),
                free: scarcest("inodes", |space| space.inodes_free),
                advice: "remove images or sandboxes, or other files there",
            },
            Sight {
                kind: "MemoryPressure",
                band: Band::new(self.config.memory_bytes, percent),
                free: memory.map(|free| ("bytes of memory".to_owned(), free)),
                advice: "stop sandboxes, or what else runs on the machine",
            },
        ]
    }

    /// Publishes the conditions; each change is one line in the log. Whether
    /// the disk is short.
    fn publish(&self, sights: &[Sight]) -> bool {
        let before = self.conditions.borrow().clone();
        let of = |kind: &str| before.iter().find(|condition| condition.kind == kind);
        let now: Vec<NodeCondition> = sights.iter().map(|sight| judge(of(sight.kind), sight)).collect();
        for condition in &now {
            let held = of(&condition.kind).is_some_and(|before| before.is_true);
            match (held, condition.is_true) {
                (false, true) => {
                    tracing::warn!(condition = condition.kind, message = condition.message, "pressure begins")
                }
                (true, false) => tracing::info!(condition = condition.kind, "pressure ends"),
                _ => {}
            }
        }
        let is_disk_short = now.iter().any(|condition| condition.kind == "DiskPressure" && condition.is_true);
        self.conditions.send_if_modified(|held| {
            let changed = *held != now;
            *held = now;
            changed
        });
        is_disk_short
    }
}

fn describe(what: &str, place: &Path) -> String {
    format!("{what} on {}", place.display())
}
