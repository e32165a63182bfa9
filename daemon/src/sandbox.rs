//! The life of a sandbox.
//!
//! One [`driver`] task owns one sandbox. It compares what is desired with
//! where the sandbox is ([`state`], pure), takes one step, and publishes
//! ([`publisher`]). A start is a chain of phases ([`ensure`]), each undone by
//! [`teardown`], which is idempotent and takes nothing for granted.

pub mod activity;
pub mod allocate;
pub mod claim;
pub mod containers;
pub mod desired;
pub mod driver;
pub mod ensure;
pub mod eviction;
pub mod expiry;
pub mod failure;
pub mod image;
pub mod layout;
mod limits;
pub mod manager;
pub mod node_time;
pub mod prepare;
pub mod publisher;
mod remains;
pub mod request_queue;
pub mod restart;
pub mod runtime;
pub mod state;
pub mod table;
pub mod teardown;
pub mod volumes;

use roost_proto::model::ImageRef;

use crate::containerd::{Client, RuntimeOptions};
use crate::host::cgroup::Cgroups;
use crate::storage::Storage;

pub use desired::{Desired, Origin, View};
pub use manager::{ApplyError, Manager, RequestError};
pub use runtime::{Runtime, Services};

/// A real node: what starts sandboxes, and what looks into them.
#[derive(Debug)]
pub struct Node {
    /// The containerd that runs the containers.
    pub client: Client,
    /// Where files lie.
    pub layout: layout::Layout,
    /// The cgroups of this daemon.
    pub cgroups: Cgroups,
    /// Holds what is written, where that is limited.
    pub storage: Storage,
    /// The volumes, as files and mounts.
    pub homes: crate::volume::Homes,
    /// Where the runtime keeps what is not the sandbox's.
    pub runtime: RuntimeOptions,
    /// Unpacked images.
    pub images: image::Images,
    /// Brings images from registries.
    pub puller: crate::pull::Puller,
    /// Roost's own images for the display container: without GLX, and with.
    pub display_images: (ImageRef, ImageRef),
    /// Reads pixels.
    pub screenshots: crate::display::encode::Screenshots,
    /// First processes of workloads.
    pub workload_pids: claim::WorkloadPids,
    /// Where tasks run.
    pub tasks: crate::tasks::Tasks,
}

impl Node {
    /// The display image for a template's choice.
    #[must_use]
    pub fn display_image(&self, glx: bool) -> &ImageRef {
        if glx { &self.display_images.1 } else { &self.display_images.0 }
    }
}
