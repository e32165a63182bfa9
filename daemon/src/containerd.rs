//! The only room that names containerd types.

pub mod client;
pub mod container;
pub mod content;
pub mod error;
pub mod event;
pub mod exec;
pub mod image;
pub mod lease;
pub mod listing;
pub mod plugin;
mod roots;
pub mod seccomp;
pub mod snapshot;
pub mod spec;
pub mod task;

pub use client::Client;
pub use container::{ContainerId, ContainerImage, RuntimeOptions};
pub use error::Error;
pub use lease::{GcLease, LeaseId};
pub use spec::Role;
pub use task::{TaskRecord, TaskStatus};
