//! What the node says of itself: facts, capacity, images, conditions, load.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::id::SandboxId;
use roost_proto::model::{Ability, ImageInfo, NodeCapacity, NodeCondition, NodeFacts, NodeStatus};
use tokio::sync::watch;

use crate::admin::Condition;
use crate::config::Config;
use crate::doctor::{self, abilities};
use crate::facts;
use crate::link::LinkState;
use crate::node::images::NodeImages;
use crate::sandbox::Node;
use crate::sandbox::failure::chain;
use crate::sandbox::manager::Holdings;

/// Between two looks at what changes without telling: load, disk, images.
const PERIOD: Duration = Duration::from_secs(10);

/// Composes the status and publishes it on a watch.
#[derive(Debug)]
pub struct StatusReporter {
    /// The node.
    pub node: Arc<Node>,
    /// The configuration in force.
    pub config: Config,
    /// What the host can do, as [`Self::run`] found out last.
    pub abilities: Vec<Ability>,
    /// Its images.
    pub images: NodeImages,
    /// What sandboxes may request.
    pub capacity: NodeCapacity,
    /// Whether containerd's events flow.
    pub containerd: watch::Receiver<bool>,
    /// Rises when an image comes or goes.
    pub images_changed: watch::Receiver<u64>,
    /// How the connection to central does; none before it is begun, or where
    /// the node works alone.
    pub link: watch::Receiver<Option<LinkState>>,
    /// What the node runs short of.
    pub pressures: watch::Receiver<Vec<NodeCondition>>,
    /// What sandboxes hold that central does not know of.
    pub holdings: watch::Receiver<Holdings>,
    /// Where the status goes.
    pub status: watch::Sender<NodeStatus>,
    /// Readiness conditions of the process: containerd, display image.
    pub ready: (Condition, Condition),
}

impl StatusReporter {
    /// Reports once: so that nobody sees an empty status.
    pub async fn report(&mut self) {
        let containerd_up = *self.containerd.borrow_and_update();
        self.images_changed.borrow_and_update();
        let mut told = self.pressures.borrow_and_update().clone();
        let holdings = self.holdings.borrow_and_update().clone();
        told.extend(id_conflict(&holdings));
        let version = match self.node.client.version().await {
            Ok(version) if containerd_up => version.version,
            _ => self.status.borrow().facts.containerd_version.clone(),
        };
        let mut status = self.compose(containerd_up, &version, told).await;
        status.capacity = holdings.leave_of(self.capacity);
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }

    /// Reports for ever. The host is looked at once, and again when containerd
    /// comes or goes: not at the first report, which the start waits for.
    pub async fn run(mut self) {
        let mut was_up = None;
        loop {
            let is_up = *self.containerd.borrow();
            if was_up.replace(is_up) != Some(is_up) {
                let sandboxes = doctor::configured_sandboxes(&self.config);
                self.abilities = abilities::of_host(&doctor::look(&self.config, sandboxes, true).await);
            }
            self.report().await;
            // Cancel-safe: watches keep what was not seen, the time is only waited for.
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                Ok(()) = self.containerd.changed() => {}
                Ok(()) = self.images_changed.changed() => {}
                Ok(()) = self.pressures.changed() => {}
                Ok(()) = self.holdings.changed() => {}
            }
        }
    }

    async fn compose(&self, containerd_up: bool, containerd_version: &str, told: Vec<NodeCondition>) -> NodeStatus {
        let version = self.node.cgroups.version().as_str();
        let facts = facts::node_facts(version, containerd_version).unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "facts of the node cannot be read");
            NodeFacts::default()
        });
        let mut load = facts::node_load(self.node.layout.root()).unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "load of the node cannot be read");
            roost_proto::model::NodeLoad::default()
        });
        let images = match self.images.list().await {
            Ok(images) => images.into_iter().map(settled).collect(),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "images cannot be listed");
                self.status.borrow().images.clone()
            }
        };
        let display_image = self.node.display_image(false);
        let has_display = images.iter().any(|image| image.reference == *display_image);
        let containerd_says = format!("containerd does not answer in namespace {}", self.node.client.namespace());
        let display_says =
            format!("the display image {display_image} is not on the node: `roost image import` brings it");
        let link = self.link.borrow().clone();
        load.clock_offset_ms = link.as_ref().and_then(|link| link.clock_offset_ms);
        let mut conditions = vec![
            condition("ContainerdReady", containerd_up, "NotAnswering", &containerd_says),
            condition("DisplayImageReady", has_display, "ImageMissing", &display_says),
        ];
        tell(&self.ready.0, &conditions[0]);
        tell(&self.ready.1, &conditions[1]);
        conditions.extend(link.and_then(|link| link.clock_skew()));
        conditions.extend(told);
        let (plain, glx) = (self.node.display_image(false), self.node.display_image(true));
        let mut abilities = self.abilities.clone();
        abilities.extend(abilities::of_displays(&images, plain, glx));
        // None before the host was looked at.
        if !abilities.is_empty() {
            abilities.push(abilities::disk_limit(self.node.storage.kind(), &self.abilities));
        }
        let cap = self.node.cgroups.cap();
        NodeStatus { facts, capacity: self.capacity, images, conditions, load, abilities, cap }
    }
}

/// An image without what changes with every start: central would write it
/// down each time, and asks the node itself when somebody wants to know.
fn settled(image: ImageInfo) -> ImageInfo {
    ImageInfo { in_use_by: 0, last_used_at_unix_ms: 0, ..image }
}

/// Says that sandboxes are refused because others have their ids. It stops no
/// placement: new sandboxes get ids of their own.
fn id_conflict(holdings: &Holdings) -> Option<NodeCondition> {
    let ids: Vec<&str> = holdings.id_conflicts.iter().map(SandboxId::as_str).collect();
    (!ids.is_empty()).then(|| NodeCondition {
        kind: "IdRangeConflict".into(),
        is_true: true,
        reason: "IdsTaken".into(),
        message: format!(
            "refused, because other sandboxes have their ids: {}; see `roost sandbox get`",
            ids.join(", ")
        ),
    })
}

fn condition(kind: &str, is_true: bool, reason: &str, message: &str) -> NodeCondition {
    let text = |text: &str| if is_true { String::new() } else { text.to_owned() };
    let reason = if is_true { "Ok".into() } else { reason.to_owned() };
    NodeCondition { kind: kind.into(), is_true, reason, message: text(message) }
}

fn tell(ready: &Condition, condition: &NodeCondition) {
    if condition.is_true {
        ready.hold();
    } else {
        ready.fail(condition.message.clone());
    }
}
